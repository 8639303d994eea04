import { unwrap } from 'patchbay-client';
import { codeOf, useAct } from '../act.ts';
import { useIntegrations } from '../integrations.ts';
import type { ListedIntegration } from '../integrations.ts';
import { useLoad } from '../load.ts';
import { labels, trunkFields } from '../number-fields.ts';
import { readNumber } from '../numbers.ts';
import type { NumberProps, PhoneNumber } from '../numbers.ts';
import { ActButton } from '../parts/act-button.tsx';
import { Copy } from '../parts/copy.tsx';
import { EventsOf } from '../parts/events.tsx';
import { notify } from '../parts/notice.tsx';
import { Holder, IntegrationLink, Ownership, supportOf } from '../parts/numbers.tsx';
import { Empty, Loading, Page } from '../parts/page.tsx';
import { Problem } from '../parts/problem.tsx';
import { Provider } from '../parts/status.tsx';
import { Time } from '../parts/time.tsx';
import { hrefOf } from '../route.ts';
import type { ViewProps } from '../view.ts';
import { DeleteNumber } from './number-delete.tsx';
import { EditNumber } from './number-edit.tsx';

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
      {value && !isGone && <Known session={session} number={value.body.data} etag={value.etag} reload={reload} />}
    </Page>
  );
}

function Known(known: Omit<NumberProps, 'integrations'>) {
  const { session, number } = known;
  const integrations = useIntegrations(session, number.provider);
  const props = { ...known, integrations };
  return (
    <div>
      <Facts number={number} integrations={integrations.value} />
      <Problem error={integrations.error} retry={integrations.reload} />
      <div class="actions">
        {number.provider !== 'sip' && session.can('phone_numbers:update') && <Verify {...props} />}
        {session.can('phone_numbers:delete') && <DeleteNumber {...props} />}
      </div>
      {session.can('phone_numbers:update') && (
        <section>
          <h2>Change it</h2>
          <EditNumber {...props} />
        </section>
      )}
      {session.can('audit:read') && (
        <section>
          <h2>History</h2>
          <EventsOf key={known.etag} session={session} target_id={number.phone_number_id} />
        </section>
      )}
    </div>
  );
}

function Facts({ number, integrations }: { number: PhoneNumber; integrations: ListedIntegration[] | undefined }) {
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
      <dt>Calls</dt>
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
function Verify({ session, number, reload }: NumberProps) {
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
      <ActButton act={act} onAct={verify}>
        Verify ownership now
      </ActButton>
      <Problem error={act.error} />
    </div>
  );
}
