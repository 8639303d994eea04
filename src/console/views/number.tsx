import { useState } from 'hono/jsx/dom';
import { unwrap } from 'patchbay-client';
import { useAct } from '../act.ts';
import { useLoad } from '../load.ts';
import type { Loaded } from '../load.ts';
import { codeOf, nameIn, readNumber, useIntegrations, wrongAgent } from '../numbers.ts';
import type { Integration, PhoneNumber } from '../numbers.ts';
import { Changed, ChangedSince } from '../parts/changed.tsx';
import { Copy } from '../parts/copy.tsx';
import { Dialog } from '../parts/dialog.tsx';
import { EventsOf } from '../parts/events.tsx';
import { CheckField, Form, SelectField, textOf, TextField } from '../parts/form.tsx';
import { notify } from '../parts/notice.tsx';
import { Holder, IntegrationLink, Ownership, supportOf } from '../parts/numbers.tsx';
import { Empty, Loading, Page } from '../parts/page.tsx';
import { Problem } from '../parts/problem.tsx';
import { SipFields, trunkOf } from '../parts/sip.tsx';
import { Provider } from '../parts/status.tsx';
import { Time } from '../parts/time.tsx';
import { goTo, hrefOf } from '../route.ts';
import type { Api, Session } from '../session.ts';
import type { ViewProps } from '../view.ts';

const parent = { href: hrefOf(['numbers']), name: 'Numbers' };

/** One number: what is known of it, and what can be done with it. */
export function NumberView({ session, id }: ViewProps & { id: string }) {
  const loaded = useLoad((options) => readNumber(session.api, id, options), [id]);
  const { value, error, isLoading, reload } = loaded;
  const title = value?.body.data.phone_number ?? 'Number';
  const isGone = codeOf(error) === 'phone_number_not_found';
  return (
    <Page title={title} parent={parent}>
      {isLoading && <Loading what="number" />}
      {isGone ? (
        <Empty>
          <p>
            There is no such number: it may have been deleted. <a href={parent.href}>Go to the numbers</a>
          </p>
        </Empty>
      ) : (
        <Problem error={error} retry={reload} />
      )}
      {value && <Known session={session} number={value.body.data} etag={value.etag} reload={reload} />}
    </Page>
  );
}

interface KnownProps {
  session: Session;
  number: PhoneNumber;
  /** Of the number as it is shown. */
  etag: string;
  reload: () => void;
}

function Known(props: KnownProps) {
  const { session, number, etag } = props;
  const integrations = useIntegrations(session, number.provider);
  return (
    <div>
      <Facts number={number} integrations={integrations.value} />
      <Problem error={integrations.error} retry={integrations.reload} />
      <div class="actions">
        {number.provider !== 'sip' && session.can('phone_numbers:update') && <Verify {...props} />}
        {session.can('phone_numbers:delete') && <Delete {...props} integrations={integrations} />}
      </div>
      {session.can('phone_numbers:update') && (
        <section>
          <h2>Change it</h2>
          <Edit key={etag} {...props} integrations={integrations} />
        </section>
      )}
      {session.can('audit:read') && (
        <section>
          <h2>History</h2>
          <EventsOf session={session} target_id={number.phone_number_id} />
        </section>
      )}
    </div>
  );
}

function Facts({ number, integrations }: { number: PhoneNumber; integrations: Integration[] | undefined }) {
  return (
    <dl class="facts">
      <dt>Provider</dt>
      <dd>
        <Provider provider={number.provider} />
      </dd>
      {number.integration_id !== null && (
        <>
          <dt>Integration</dt>
          <dd>
            <IntegrationLink id={number.integration_id} integrations={integrations} />
          </dd>
        </>
      )}
      <dt>Agent</dt>
      <dd>
        <Holder assigned_agent_id={number.assigned_agent_id} />
      </dd>
      <dt>Supports</dt>
      <dd>{supportOf(number)}</dd>
      <dt>Ownership</dt>
      <dd>
        <Ownership ownership={number.ownership} />
      </dd>
      {number.provider === 'sip' &&
        trunkFields.flatMap((name) => [
          <dt key={name}>{labels[name]}</dt>,
          <dd key={`${name} value`}>{number[name] ?? 'none'}</dd>,
        ])}
      <dt>Imported</dt>
      <dd>
        <Time value={number.created_at} />
      </dd>
      <dt>Changed</dt>
      <dd>
        <Time value={number.updated_at} />
      </dd>
      <dt>Id</dt>
      <dd>
        <code>{number.phone_number_id}</code> <Copy value={number.phone_number_id} what="id of the number" />
      </dd>
    </dl>
  );
}

/** Asks the account of the number's integration now. */
function Verify({ session, number, reload }: KnownProps) {
  const { phone_number_id } = number;
  const act = useAct((_: string, headers) =>
    unwrap(session.api['phone-numbers'][':phone_number_id'].verify.$post({ param: { phone_number_id } }, { headers })),
  );
  async function verify() {
    const checked = await act.run(phone_number_id);
    if (!checked) return;
    const { phone_number, ownership } = checked.data;
    const said = ownership === 'confirmed' ? 'The account holds' : 'The account does not hold';
    notify(`${said} ${phone_number}: its ownership is ${ownership}.`);
    reload();
  }
  return (
    <div>
      <button
        type="button"
        class="secondary"
        aria-busy={act.isBusy ? 'true' : 'false'}
        disabled={act.isBusy}
        onClick={() => void verify()}
      >
        Verify ownership now
      </button>
      <Problem error={act.error} />
    </div>
  );
}

type WithIntegrations = KnownProps & { integrations: Loaded<Integration[]> };

function Delete({ session, number, etag, reload, integrations }: WithIntegrations) {
  const { phone_number_id, phone_number, assigned_agent_id } = number;
  const [isOpen, setOpen] = useState(false);
  // What was shown when a delete was refused because of a change.
  const [seen, setSeen] = useState<PhoneNumber | undefined>(undefined);
  const act = useAct(async (tag: string, headers) => {
    const path = session.api['phone-numbers'][':phone_number_id'];
    try {
      return await unwrap(path.$delete({ param: { phone_number_id } }, { headers: { ...headers, 'If-Match': tag } }));
    } catch (error) {
      if (codeOf(error) === 'precondition_failed') {
        setSeen(number);
        reload();
      }
      throw error;
    }
  });

  async function remove() {
    const deleted = await act.run(etag);
    if (!deleted) return;
    notify(`${phone_number} is deleted.`);
    goTo(['numbers']);
  }
  function close() {
    setOpen(false);
    setSeen(undefined);
    act.reset();
  }

  const wasChanged = codeOf(act.error) === 'precondition_failed';
  return (
    <div>
      <button type="button" class="danger" onClick={() => setOpen(true)}>
        Delete
      </button>
      {isOpen && (
        <Dialog title={`Delete ${phone_number}`} closeText="Keep it" onClose={close}>
          {wasChanged && seen && <ChangedSince fields={differences(comparable, seen, number, integrations.value)} />}
          {!wasChanged && <Problem error={act.error} />}
          {assigned_agent_id === null ? (
            <>
              <p>
                No calls reach it through this service any more, and another organization may import it. At its provider
                nothing changes.
              </p>
              <button
                type="button"
                class="danger"
                aria-busy={act.isBusy ? 'true' : 'false'}
                disabled={act.isBusy}
                onClick={() => void remove()}
              >
                Delete the number
              </button>
            </>
          ) : (
            <p>
              <code>{assigned_agent_id}</code> holds it, so it cannot be deleted. Free it first: empty its agent, and
              save.
            </p>
          )}
        </Dialog>
      )}
    </div>
  );
}

type Put = Api['phone-numbers'][':phone_number_id']['$put'];
type Changes = NonNullable<Parameters<Put>[0]['json']>;

const trunkFields = [
  'sip_trunk_name',
  'sip_server_address',
  'sip_transport',
  'media_encryption',
  'sip_username',
  'inbound_room_name',
] as const;
const comparable = [
  'assigned_agent_id',
  'integration_id',
  'supports_inbound',
  'supports_outbound',
  ...trunkFields,
] as const;
const secrets = ['sip_password', 'inbound_pin'] as const;
type Field = (typeof comparable)[number];

const labels = {
  assigned_agent_id: 'Agent',
  integration_id: 'Integration',
  supports_inbound: 'Supports inbound calls',
  supports_outbound: 'Supports outbound calls',
  sip_trunk_name: 'Trunk name',
  sip_username: 'User name',
  sip_password: 'Password',
  sip_server_address: 'Server address',
  sip_transport: 'Transport',
  inbound_room_name: 'Inbound room name',
  inbound_pin: 'Inbound PIN',
  media_encryption: 'Media encryption',
};

function textFor(name: Field, value: Changes[Field], integrations: Integration[] | undefined): string {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (name === 'integration_id' && value) return nameIn(integrations, value);
  return value ?? 'none';
}

/** The fields of which two sides say something else. */
function differences(
  fields: readonly Field[],
  mine: Changes,
  theirs: PhoneNumber,
  integrations: Integration[] | undefined,
) {
  return fields
    .filter((name) => mine[name] !== theirs[name])
    .map((name) => ({
      name: labels[name],
      mine: textFor(name, mine[name], integrations),
      theirs: textFor(name, theirs[name], integrations),
    }));
}

/** What differs from the number as it is. A secret is changed if it is given. */
function changesOf(values: FormData, number: PhoneNumber): Changes {
  const { sip_password, inbound_pin, ...trunk } = trunkOf(values);
  const changes: Changes = {
    assigned_agent_id: textOf(values, 'assigned_agent_id').trim() || null,
    supports_inbound: values.has('supports_inbound'),
    supports_outbound: values.has('supports_outbound'),
    ...(number.provider === 'sip' ? trunk : { integration_id: textOf(values, 'integration_id') }),
    ...(sip_password !== null || values.has('without_user') ? { sip_password } : {}),
    ...(inbound_pin !== null || values.has('without_pin') ? { inbound_pin } : {}),
  };
  for (const name of comparable) if (changes[name] === number[name]) delete changes[name];
  return changes;
}

interface Request {
  changes: Changes;
  verify: boolean;
  /** Of the number that the changes were meant for. */
  tag: string;
}

interface Conflict extends Request {
  theirs: PhoneNumber;
}

function Edit({ session, number, etag, reload, integrations }: WithIntegrations) {
  const { api } = session;
  const { phone_number_id, integration_id } = number;
  const [isMoved, setMoved] = useState(false);
  const [conflict, setConflict] = useState<Conflict | undefined>(undefined);
  const act = useAct(async ({ changes, verify, tag }: Request, headers) => {
    const given = { param: { phone_number_id }, json: changes, query: { verify } };
    try {
      return await unwrap(
        api['phone-numbers'][':phone_number_id'].$put(given, { headers: { ...headers, 'If-Match': tag } }),
      );
    } catch (error) {
      if (codeOf(error) === 'precondition_failed') {
        const theirs = await readNumber(api, phone_number_id);
        setConflict({ changes, verify, tag: theirs.etag, theirs: theirs.body.data });
      }
      throw error;
    }
  });

  async function save(request: Request) {
    if (Object.keys(request.changes).length === 0) return notify('Nothing differs, so nothing was sent.');
    const saved = await act.run(request);
    if (!saved) return;
    notify(`${saved.data.phone_number} is changed.`);
    reload();
  }

  const isConflict = codeOf(act.error) === 'precondition_failed';
  return (
    <div>
      <Form
        act={isConflict ? { ...act, error: undefined } : act}
        submit="Save"
        onSubmit={(values) =>
          void save({ changes: changesOf(values, number), verify: !values.has('unasked'), tag: etag })
        }
      >
        <TextField
          name="assigned_agent_id"
          label="Agent"
          value={number.assigned_agent_id ?? ''}
          placeholder="agent_…"
          hint="Without an agent the number is free."
          check={wrongAgent}
        />
        {integration_id !== null && (
          <div>
            <SelectField
              name="integration_id"
              label="Integration"
              value={integration_id}
              options={[
                [integration_id, nameIn(integrations.value, integration_id)],
                ...(integrations.value ?? [])
                  .filter((integration) => integration.integration_id !== integration_id)
                  .map((integration) => [integration.integration_id, integration.name] as const),
              ]}
              onChoose={(chosen) => setMoved(chosen !== integration_id)}
            />
            {isMoved && (
              <CheckField
                name="unasked"
                label="Do not ask the new account whether it holds the number"
                hint="The number is then unconfirmed, until it is asked about."
              />
            )}
          </div>
        )}
        <CheckField name="supports_inbound" label="Supports inbound calls" checked={number.supports_inbound} />
        <CheckField name="supports_outbound" label="Supports outbound calls" checked={number.supports_outbound} />
        {number.provider === 'sip' && <SipFields number={number} />}
      </Form>
      {isConflict && conflict && (
        <Changed
          fields={[
            ...differences(
              comparable.filter((name) => name in conflict.changes),
              conflict.changes,
              conflict.theirs,
              integrations.value,
            ),
            ...secrets
              .filter((name) => name in conflict.changes)
              .map((name) => ({
                name: labels[name],
                mine: conflict.changes[name] === null ? 'removed' : 'a new one',
                theirs: 'not shown',
              })),
          ]}
          isBusy={act.isBusy}
          onKeepMine={() => void save(conflict)}
          onTakeTheirs={reload}
        />
      )}
    </div>
  );
}
