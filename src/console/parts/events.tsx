import { unwrap } from 'patchbay-client';
import { actorOf, sentenceOf, textOfValue } from '../events.ts';
import type { AuditEvent } from '../events.ts';
import { usePages } from '../load.ts';
import { hrefOf } from '../route.ts';
import type { Session } from '../session.ts';
import { Copy } from './copy.tsx';
import { More, Table } from './list.tsx';
import { Badge } from './status.tsx';
import { Age, Time } from './time.tsx';

/** What happened to one thing, newest first; nothing for a key that may not read that. */
export const EventsOf = ({ session, target_id }: { session: Session; target_id: string }) => (
  <div class="events-of">{session.can('audit:read') && <Events session={session} target_id={target_id} />}</div>
);

const EVENTS_OF_ONE = 10;

function Events({ session: { api }, target_id }: { session: Session; target_id: string }) {
  const pages = usePages(
    (page, options) => unwrap(api['audit-events'].$get({ query: { ...page, target_id, order: 'desc' } }, options)),
    [target_id],
    EVENTS_OF_ONE,
  );
  return (
    <div>
      <EventList events={pages.rows} />
      <More pages={pages} what="events" />
      <p>
        <a href={hrefOf(['history'], { target_id })}>Filter and export them in the history</a>
      </p>
    </div>
  );
}

export const EventList = ({ events }: { events: readonly AuditEvent[] }) => (
  <ol class="events">
    {events.map((event) => (
      <EventLine key={event.event_id} event={event} />
    ))}
  </ol>
);

const EventLine = ({ event }: { event: AuditEvent }) => (
  <li>
    <p>
      {sentenceOf(event)} {event.outcome === 'refused' && <Badge tone="bad" text="refused" />}
    </p>
    <p class="when">
      <Time value={event.created_at} /> · <Age value={event.created_at} />
    </p>
    <details>
      <summary aria-label={`Details: ${sentenceOf(event)}`}>Details</summary>
      <Details event={event} />
    </details>
  </li>
);

/** Where things are shown, by the prefix of their ids. */
const views: Partial<Record<string, (id: string, state: AuditEvent['state']) => string>> = {
  intg: (id) => hrefOf(['integrations', id]),
  phon: (id) => hrefOf(['numbers', id]),
  apikey: () => hrefOf(['keys'], { ended: 'shown' }),
  whep: (id) => hrefOf(['webhooks', id]),
  whdel: (id, state) => hrefOf(['webhooks', 'endpoint_id' in state ? state.endpoint_id : id]),
};

/** Undefined if it has no view, or none any more. */
function viewOf({ action, target_id, state }: AuditEvent): string | undefined {
  if (/\.(?:deleted|released)$/.test(action)) return undefined;
  return views[target_id.split('_')[0] ?? '']?.(target_id, state);
}

function Details({ event }: { event: AuditEvent }) {
  const { action, target_id, actor, actor_key_id, request_id, changes, reason } = event;
  const view = viewOf(event);
  return (
    <div>
      <dl class="facts">
        <dt>Action</dt>
        <dd>
          <code>{action}</code>
        </dd>
        <dt>Target</dt>
        <dd>
          {view === undefined ? <code>{target_id}</code> : <a href={view}>{target_id}</a>} ·{' '}
          <a href={hrefOf(['history'], { target_id })}>All events of this target</a>
        </dd>
        <dt>Actor</dt>
        <dd>
          {actorOf(event)} ({actor.type.replace('_', ' ')}
          {actor.id === null || actor.id === actor.name ? '' : ` ${actor.id}`})
          {actor_key_id !== null && (
            <span>
              {' · '}
              <a href={hrefOf(['history'], { actor_key_id })}>All events by this key</a>
            </span>
          )}
        </dd>
        {reason !== null && <dt>Reason</dt>}
        {reason !== null && <dd>{reason}</dd>}
        <dt>Event</dt>
        <dd>
          <code>{event.event_id}</code>
        </dd>
        <dt>Request</dt>
        <dd>
          <code>{request_id}</code> <Copy value={request_id} what="request id" />
        </dd>
      </dl>
      {changes !== null && Object.keys(changes).length > 0 && <Changes changes={changes} />}
      <p>The target {/\.(?:created|imported)$/.test(action) ? 'as it was made' : 'just before'}:</p>
      <pre>{JSON.stringify(event.state, null, 2)}</pre>
    </div>
  );
}

const Changes = ({ changes }: { changes: NonNullable<AuditEvent['changes']> }) => (
  <Table label="What changed">
    <thead>
      <tr>
        <th scope="col">Field</th>
        <th scope="col">From</th>
        <th scope="col">To</th>
      </tr>
    </thead>
    <tbody>
      {Object.entries(changes).map(([field, { from, to }]) => (
        <tr key={field}>
          <th scope="row">{field}</th>
          <td>{textOfValue(from)}</td>
          <td>{textOfValue(to)}</td>
        </tr>
      ))}
    </tbody>
  </Table>
);
