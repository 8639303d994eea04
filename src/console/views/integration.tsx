import { unwrap } from 'patchbay-client';
import { codeOf, useAct } from '../act.ts';
import { readIntegration } from '../integrations.ts';
import type { Integration, TaggedIntegration } from '../integrations.ts';
import { useLoad, usePages } from '../load.ts';
import { listNumbers } from '../numbers.ts';
import { ActButton } from '../parts/act-button.tsx';
import { Copy } from '../parts/copy.tsx';
import { EventsOf } from '../parts/events.tsx';
import { More, Table } from '../parts/list.tsx';
import { notify } from '../parts/notice.tsx';
import { Holder, NumberLink, Ownership } from '../parts/numbers.tsx';
import { Empty, Loading, Page } from '../parts/page.tsx';
import { Problem } from '../parts/problem.tsx';
import { Badge, Provider, Verification } from '../parts/status.tsx';
import { Age, Time } from '../parts/time.tsx';
import { hrefOf } from '../route.ts';
import type { Session } from '../session.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';
import { Rename, ReplaceCredentials } from './integration-change.tsx';
import { ImportSection, useImport } from './integration-import.tsx';

export function IntegrationView({ session, id }: ViewProps & { id: string }) {
  const { api } = session;
  const { value, error, reload } = useLoad((options) => readIntegration(api, id, options), [id]);
  // An id that is not of the form of one is a 422.
  const isUnknown = codeOf(error) === 'integration_not_found' || codeOf(error) === 'validation_failed';
  const verifying = useAct((integration_id: string, headers) =>
    unwrap(api.integrations[':integration_id'].verify.$post({ param: { integration_id } }, { headers })),
  );
  async function verify() {
    const checked = await verifying.run(id);
    if (!checked) return;
    reload();
    const { name, verification } = checked.data;
    notify(`“${name}” was checked now: ${verification.status}.`);
  }
  return (
    <Page
      title={value?.body.data.name ?? 'Integration'}
      parent={{ href: hrefOf(['integrations']), name: 'Integrations' }}
      actions={
        value &&
        !isUnknown && <Actions session={session} seen={value} reload={reload} verifying={verifying} onVerify={verify} />
      }
    >
      <Problem error={verifying.error} />
      {!value && error === undefined && <Loading what="the integration" />}
      {isUnknown ? <Unknown id={id} /> : <Problem error={error} retry={reload} />}
      {value && !isUnknown && <Details session={session} seen={value} />}
    </Page>
  );
}

const Unknown = ({ id }: { id: string }) => (
  <Empty>
    <p>
      There is no integration <code>{id}</code>. It may have been deleted, or belong to another organization.{' '}
      <a href={hrefOf(['integrations'])}>See all integrations</a>
    </p>
  </Empty>
);

interface SeenProps {
  session: Session;
  seen: TaggedIntegration;
}

interface ActionsProps extends SeenProps {
  reload: () => void;
  verifying: { isBusy: boolean };
  onVerify: () => Promise<void>;
}

function Actions({ session, seen, reload, verifying, onVerify }: ActionsProps) {
  const { integration_id } = seen.body.data;
  /** A dialog goes on from what was seen when it was opened, whatever is loaded meanwhile. */
  const [dialog, setDialog] = useState<{ kind: 'rename' | 'replace'; seen: TaggedIntegration } | undefined>(undefined);
  const leave = () => {
    setDialog(undefined);
    reload();
  };
  return (
    <>
      {session.can('integrations:update') && (
        <>
          <ActButton act={verifying} kind={isBroken(seen.body.data) ? 'secondary' : ''} onAct={onVerify}>
            Verify now
          </ActButton>
          <button type="button" class="secondary" onClick={() => setDialog({ kind: 'rename', seen })}>
            Rename
          </button>
          <button
            type="button"
            class={isBroken(seen.body.data) ? '' : 'secondary'}
            onClick={() => setDialog({ kind: 'replace', seen })}
          >
            Replace credentials
          </button>
        </>
      )}
      {session.can('integrations:delete') && (
        <a href={hrefOf(['integrations', integration_id, 'delete'])}>Delete, with a preview</a>
      )}
      {dialog?.kind === 'rename' && (
        <Rename
          session={session}
          seen={dialog.seen}
          onLeave={leave}
          onDone={({ name }) => {
            leave();
            notify(`The integration is now called “${name}”.`);
          }}
        />
      )}
      {dialog?.kind === 'replace' && (
        <ReplaceCredentials
          session={session}
          seen={dialog.seen}
          onLeave={leave}
          onDone={({ verification }) => {
            leave();
            notify(`The credentials are replaced. ${verification.detail}`);
          }}
        />
      )}
    </>
  );
}

function Details({ session, seen }: SeenProps) {
  const integration = seen.body.data;
  const { integration_id } = integration;
  return (
    <>
      <Facts integration={integration} />
      <Numbers session={session} integration_id={integration_id} />
      {session.can('phone_numbers:create') && <ImportSection session={session} integration={integration} />}
      {session.can('audit:read') && (
        <section aria-label="History">
          <h2>History</h2>
          <EventsOf key={seen.etag} session={session} target_id={integration_id} />
        </section>
      )}
    </>
  );
}

/** Its credentials must be replaced. */
const isBroken = ({ status, verification }: Integration) =>
  status === 'credentials_missing' || verification.status === 'refused';

function Facts({ integration }: { integration: Integration }) {
  const { integration_id, provider, account_hint, status, verification, created_at, updated_at } = integration;
  const { checked_at, provider_status, provider_code, detail } = verification;
  return (
    <dl class="facts">
      <dt>Provider</dt>
      <dd>
        <Provider provider={provider} />
      </dd>
      <dt>Account</dt>
      <dd>{account_hint === null ? 'not known' : <code>{account_hint}</code>}</dd>
      <dt>Status</dt>
      <dd>
        {status === 'active' ? (
          <Badge tone="good" text="active" />
        ) : (
          <>
            <Badge tone="bad" text="credentials missing" /> A restore of the database could not bring the credentials
            back. Replace them.
          </>
        )}
      </dd>
      <dt>Verification</dt>
      <dd>
        <Verification status={verification.status} /> {detail}
      </dd>
      {checked_at !== null && (
        <>
          <dt>Checked</dt>
          <dd>
            <Age value={checked_at} />
          </dd>
        </>
      )}
      {provider_status !== null && (
        <>
          <dt>Provider’s answer</dt>
          <dd>
            status {provider_status}
            {provider_code !== null && (
              <>
                , code <code>{provider_code}</code>
              </>
            )}
          </dd>
        </>
      )}
      <dt>Created</dt>
      <dd>
        <Time value={created_at} />
      </dd>
      <dt>Updated</dt>
      <dd>
        <Time value={updated_at} />
      </dd>
      <dt>Id</dt>
      <dd>
        <code>{integration_id}</code> <Copy value={integration_id} what="integration id" />
      </dd>
    </dl>
  );
}

function Numbers({ session: { api }, integration_id }: { session: Session; integration_id: string }) {
  const { endings } = useImport(integration_id);
  const pages = usePages(
    (page, options) => listNumbers(api, { integration_id, ...page }, options),
    [integration_id, endings],
  );
  return (
    <section aria-label="Numbers">
      <h2>Numbers</h2>
      {pages.rows.length > 0 && (
        <Table label="Numbers of this integration">
          <thead>
            <tr>
              <th scope="col">Number</th>
              <th scope="col">Held by</th>
              <th scope="col">Ownership</th>
            </tr>
          </thead>
          <tbody>
            {pages.rows.map((number) => (
              <tr key={number.phone_number_id}>
                <th scope="row">
                  <NumberLink {...number} />
                </th>
                <td>
                  <Holder {...number} />
                </td>
                <td>
                  <Ownership {...number} />
                </td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
      {pages.rows.length === 0 && !pages.isLoading && pages.error === undefined && (
        <Empty>
          <p>No number is imported through this integration yet.</p>
        </Empty>
      )}
      <More pages={pages} what="numbers" />
    </section>
  );
}
