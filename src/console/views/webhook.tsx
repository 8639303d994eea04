import type { InferResponseType } from 'hono/client';
import { unwrap } from 'patchbay-client';
import { deliveryStatuses } from '../../worker/core/vocabulary.ts';
import type { DeliveryStatus } from '../../worker/core/vocabulary.ts';
import { codeOf, useAct } from '../act.ts';
import { useLoad, usePages } from '../load.ts';
import { ActButton } from '../parts/act-button.tsx';
import { Copy } from '../parts/copy.tsx';
import { EventsOf } from '../parts/events.tsx';
import { anyOr, SelectField } from '../parts/form.tsx';
import { More, Table } from '../parts/list.tsx';
import { notify } from '../parts/notice.tsx';
import { Empty, Loading, Page } from '../parts/page.tsx';
import { Problem } from '../parts/problem.tsx';
import { Badge } from '../parts/status.tsx';
import type { Tone } from '../parts/status.tsx';
import { Age, Time } from '../parts/time.tsx';
import { EndpointState, EventPatterns, Outcome, TestOutcome } from '../parts/webhooks.tsx';
import { hrefOf, setQuery } from '../route.ts';
import { oneOf } from '../rules.ts';
import type { Api, Session } from '../session.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';
import type { Endpoint } from '../webhooks.ts';
import { DeleteEndpoint, EditEndpoint, Replay, RotateSecret } from './webhook-dialogs.tsx';

const parent = { href: hrefOf(['webhooks']), name: 'Webhooks' };

/** One webhook endpoint: its state, what was sent to it, and what can be done with it. */
export function WebhookView({ session, query, id }: ViewProps & { id: string }) {
  const { api, can } = session;
  const { value, error, reload } = useLoad(
    async (options) =>
      (await unwrap(api['webhook-endpoints'][':endpoint_id'].$get({ param: { endpoint_id: id } }, options))).data,
    [id],
  );
  // An id that is not of the form of one is a 422.
  const isGone = codeOf(error) === 'webhook_endpoint_not_found' || codeOf(error) === 'validation_failed';
  return (
    <Page title={value?.url ?? 'Webhook endpoint'} parent={parent}>
      {!value && error === undefined && <Loading what="the endpoint" />}
      {isGone ? (
        <Empty>
          <p>
            There is no such endpoint: it may have been deleted. <a href={parent.href}>Go to the webhooks</a>
          </p>
        </Empty>
      ) : (
        <Problem error={error} retry={reload} />
      )}
      {value && !isGone && (
        <>
          <Facts endpoint={value} />
          <Actions session={session} endpoint={value} reload={reload} />
          <Deliveries
            session={session}
            endpoint_id={id}
            status={oneOf(deliveryStatuses, query.get('status'))}
            reload={reload}
          />
          {can('audit:read') && (
            <section>
              <h2>History</h2>
              <EventsOf key={JSON.stringify(value)} session={session} target_id={id} />
            </section>
          )}
        </>
      )}
    </Page>
  );
}

function Facts({ endpoint }: { endpoint: Endpoint }) {
  const { endpoint_id, description, last_test, last_delivered_at, created_at, updated_at } = endpoint;
  return (
    <dl class="facts">
      <dt>State</dt>
      <dd>
        <EndpointState {...endpoint} />
      </dd>
      <dt>Events</dt>
      <dd>
        <EventPatterns {...endpoint} />
      </dd>
      {description !== null && <dt>Description</dt>}
      {description !== null && <dd>{description}</dd>}
      <dt>Last test</dt>
      <dd>{last_test === null ? 'none' : <TestOutcome test={last_test} />}</dd>
      <dt>Last delivered</dt>
      <dd>{last_delivered_at === null ? 'never' : <Age value={last_delivered_at} />}</dd>
      <dt>Created</dt>
      <dd>
        <Time value={created_at} />
      </dd>
      <dt>Changed</dt>
      <dd>
        <Time value={updated_at} />
      </dd>
      <dt>Id</dt>
      <dd>
        <code>{endpoint_id}</code> <Copy value={endpoint_id} what="id of the endpoint" />
      </dd>
    </dl>
  );
}

const dialogs = { Edit: EditEndpoint, 'Rotate the secret': RotateSecret, 'Send events again': Replay } as const;
const dialogNames = ['Edit', 'Rotate the secret', 'Send events again'] as const;

interface ActionsProps {
  session: Session;
  endpoint: Endpoint;
  reload: () => void;
}

function Actions({ session, endpoint, reload }: ActionsProps) {
  const { api, can } = session;
  /** A dialog goes on from what was seen when it was opened, whatever is loaded meanwhile. */
  const [dialog, setDialog] = useState<
    { name: (typeof dialogNames)[number] | 'Delete'; endpoint: Endpoint } | undefined
  >(undefined);
  const act = useAct((endpoint_id: string, headers) =>
    unwrap(api['webhook-endpoints'][':endpoint_id'].test.$post({ param: { endpoint_id } }, { headers })),
  );
  const [result, setResult] = useState<Endpoint['last_test']>(null);
  async function test() {
    setResult(null);
    const tested = await act.run(endpoint.endpoint_id);
    setResult(tested?.data.last_test ?? null);
    reload();
  }
  const close = () => setDialog(undefined);
  const Dialog = dialog && dialog.name !== 'Delete' ? dialogs[dialog.name] : undefined;
  return (
    <div>
      <div class="actions">
        {can('webhooks:update') && (
          <>
            <ActButton act={act} kind={endpoint.verified_at === null ? '' : 'secondary'} onAct={test}>
              Send a test
            </ActButton>
            {dialogNames.map((name) => (
              <button key={name} type="button" class="secondary" onClick={() => setDialog({ name, endpoint })}>
                {name}
              </button>
            ))}
          </>
        )}
        {can('webhooks:delete') && (
          <button type="button" class="danger" onClick={() => setDialog({ name: 'Delete', endpoint })}>
            Delete
          </button>
        )}
      </div>
      <p role="status">{result && <TestOutcome test={result} />}</p>
      <Problem error={act.error} />
      {dialog && Dialog && (
        <Dialog
          session={session}
          endpoint={dialog.endpoint}
          onClose={close}
          onDone={(notice) => {
            close();
            reload();
            notify(notice);
          }}
        />
      )}
      {dialog?.name === 'Delete' && <DeleteEndpoint session={session} endpoint={dialog.endpoint} onClose={close} />}
    </div>
  );
}

type DeliveriesPath = Api['webhook-endpoints'][':endpoint_id']['deliveries'];
type Delivery = InferResponseType<DeliveriesPath['$get'], 200>['data'][number];

interface DeliveriesProps {
  session: Session;
  endpoint_id: string;
  status: DeliveryStatus | undefined;
  /** Loads the endpoint again: what is sent to it changes its state. */
  reload: () => void;
}

/** What was sent: failures, and the last successes. */
function Deliveries({ session, endpoint_id, status, reload }: DeliveriesProps) {
  const path = session.api['webhook-endpoints'][':endpoint_id'].deliveries;
  const pages = usePages(
    (page, options) =>
      unwrap(path.$get({ param: { endpoint_id }, query: { ...page, ...(status && { status }) } }, options)),
    [endpoint_id, status],
  );
  function reloadAll() {
    pages.reload();
    reload();
  }
  return (
    <section aria-label="Deliveries">
      <div class="heading">
        <h2>Deliveries</h2>
        <button type="button" class="small secondary" onClick={reloadAll}>
          Reload
        </button>
      </div>
      <SelectField
        name="status"
        label="Status"
        options={anyOr(deliveryStatuses)}
        value={status ?? ''}
        onChoose={(chosen) => setQuery({ status: chosen })}
      />
      {pages.rows.length > 0 && (
        <Table label="Deliveries of this endpoint">
          <thead>
            <tr>
              <th scope="col">Event</th>
              <th scope="col">Status</th>
              <th scope="col">Attempts</th>
              <th scope="col">Last outcome</th>
              <th scope="col">Next attempt</th>
              {session.can('webhooks:update') && <th scope="col">Actions</th>}
            </tr>
          </thead>
          <tbody>
            {pages.rows.map((delivery) => (
              <Row key={delivery.delivery_id} session={session} delivery={delivery} reload={reloadAll} />
            ))}
          </tbody>
        </Table>
      )}
      {pages.rows.length === 0 && !pages.isLoading && pages.error === undefined && (
        <Empty>
          <p>No delivery is found. Failures and the last successes are listed for 7 days.</p>
        </Empty>
      )}
      <More pages={pages} what="deliveries" />
    </section>
  );
}

const tones: Record<DeliveryStatus, Tone> = { delivered: 'good', retrying: 'warning', dead: 'bad' };

interface RowProps {
  session: Session;
  delivery: Delivery;
  reload: () => void;
}

function Row({ session: { api, can }, delivery, reload }: RowProps) {
  const { event_type, event_id, status, attempts, next_attempt_at, response_body } = delivery;
  const act = useAct(({ endpoint_id, delivery_id }: Delivery, headers) =>
    unwrap(
      api['webhook-endpoints'][':endpoint_id'].deliveries[':delivery_id'].retry.$post(
        { param: { endpoint_id, delivery_id } },
        { headers },
      ),
    ),
  );
  async function retry() {
    if (!(await act.run(delivery))) return;
    notify(`${event_type} is sent again.`);
    reload();
  }
  return (
    <tr>
      <th scope="row">
        {event_type}
        <br />
        <code>{event_id}</code>
      </th>
      <td>
        <Badge tone={tones[status]} text={status} />
      </td>
      <td>{attempts.toLocaleString()}</td>
      <td>
        <Outcome
          status={delivery.response_status}
          milliseconds={delivery.duration_ms}
          error={delivery.last_error}
          time={delivery.attempted_at}
        />
        {response_body !== null && response_body !== '' && (
          <details>
            <summary aria-label={`The start of the answer to ${event_id}`}>The start of the answer</summary>
            <pre>{response_body}</pre>
          </details>
        )}
      </td>
      <td>{next_attempt_at === null ? 'none' : <Age value={next_attempt_at} />}</td>
      {can('webhooks:update') && (
        <td>
          <ActButton act={act} kind="small secondary" label={`Retry ${event_type} ${event_id}`} onAct={retry}>
            Retry
          </ActButton>
          <Problem error={act.error} />
        </td>
      )}
    </tr>
  );
}
