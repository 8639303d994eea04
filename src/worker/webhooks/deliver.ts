/**
 * Sends events to webhook endpoints: each at least once, in no promised order.
 *
 * An endpoint is a cursor over its organization's audit events, so what decides writes nothing for it. Whoever claims an
 * endpoint has a turn: it sends the events after the cursor, one after the other, and those whose retry is due. After each
 * attempt one batch records the outcome and moves the cursor. If it is killed before that batch, the event is sent again,
 * with the same id. An event that fails gets a row and is tried again later, and so does not hold up the next.
 *
 * An endpoint that fails several times in a row rests, for longer each time. Meanwhile its events wait behind the cursor,
 * and need no rows.
 */
import { and, asc, eq, getTableColumns, lte, or, sql } from 'drizzle-orm';
import { presentAuditEvent } from '../audit/read.ts';
import { atOnce } from '../core/at-once.ts';
import { newId } from '../core/ids.ts';
import { logError } from '../core/log.ts';
import { passes } from '../core/rate-limiter.ts';
import { SECONDS_A_DAY, unixNow } from '../core/time.ts';
import { webhookSubjects } from '../core/vocabulary.ts';
import type { DeliveryStatus } from '../core/vocabulary.ts';
import { batch } from '../d1/batch.ts';
import { boundedCount } from '../d1/bounded-count.ts';
import { existsIn, newValues, rowColumns } from '../d1/columns.ts';
import type { RowParameters } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { BoundQuery, Placeholders } from '../d1/query.ts';
import { audit_events, organizations, webhook_deliveries, webhook_endpoints } from '../d1/schema.ts';
import { bySystem, eventParameters } from '../decision/call.ts';
import type { EventParameters } from '../decision/call.ts';
import { eventRecorder } from '../decision/event.ts';
import { wakeDelivery } from '../decision/wake.ts';
import type { Bindings } from '../env.ts';
import { isOrganization } from '../organizations/organization.ts';
import { findDue, isDueEndpoint } from './due.ts';
import { isEndpoint } from './endpoint.ts';
import { findSecrets, openSecrets } from './secrets.ts';
import { send } from './send.ts';
import type { Attempt } from './send.ts';
import { webhookTestLimit } from './test-limit.ts';
import { test, testRecorder, writeTest } from './test.ts';
import type { TestedParameters, TestOutcome } from './test.ts';

/** An invocation has six connections (core/connections.ts): these, and two to spare. */
const ENDPOINTS_AT_ONCE = 4;
/**
 * An attempt takes up to five statements. With ten endpoints these are below the 1,000 that D1 allows in one invocation of a
 * Worker.
 */
const EVENTS_PER_TURN = 13;
const RETRIES_PER_TURN = 5;
const TURN_MILLISECONDS = 20_000;
/** Longer than a turn, of which the last attempt may begin at its end. */
const LEASE_SECONDS = 60;

const FIRST_RETRY_SECONDS = 5;
const MAX_RETRY_SECONDS = SECONDS_A_DAY / 2;
const RETRIED_FOR_SECONDS = 3 * SECONDS_A_DAY;

/** So many attempts that fail in a row are the endpoint's fault, and not that of single events. */
const FAILURES_BEFORE_REST = 3;
const FIRST_REST_SECONDS = 5;
const MAX_REST_SECONDS = 60 * 60;
/** What is due sooner than the next run of the cron is woken by a message of its own. */
const SOON_SECONDS = 60;

/** For one endpoint. With ten endpoints these are 10,000 rows of an organization. */
const MAX_ROWS: Record<DeliveryStatus, number> = { retrying: 500, dead: 490, delivered: 10 };

interface Place {
  organization_id: string;
  endpoint_id: string;
}

interface ClaimParameters extends Place {
  claim: string;
}

const claimEndpoint = query((db, parameters: Placeholders<ClaimParameters & { now: number; claimed_until: number }>) =>
  db
    .update(webhook_endpoints)
    .set({ claim: sql`${parameters.claim}`, claimed_until: sql`${parameters.claimed_until}` })
    .where(and(isEndpoint(parameters), isDueEndpoint(db, parameters)))
    .returning(getTableColumns(webhook_endpoints)),
);

type Endpoint = typeof webhook_endpoints.$inferSelect;

/** Selects the endpoint, if it is still this one's turn. */
const isClaimed = (parameters: Placeholders<ClaimParameters>) =>
  and(isEndpoint(parameters), eq(webhook_endpoints.claim, parameters.claim));

/** Predicate of an event: it is of those that endpoints are told about, and a pattern of this one asks for it. */
const isAskedFor = and(
  or(...webhookSubjects.map((subject) => sql`${audit_events.action} GLOB ${sql.raw(`'${subject}.*'`)}`)),
  sql`EXISTS (SELECT 1 FROM json_each(${webhook_endpoints.events}) WHERE ${audit_events.action} GLOB value)`,
);

/** The events after the cursor. It is a cross join because SQLite keeps the order of one. */
const findEvents = query((db, parameters: Placeholders<Place & { limit: number }>) =>
  db
    .select(getTableColumns(audit_events))
    .from(webhook_endpoints)
    .crossJoin(audit_events)
    .where(
      and(
        isEndpoint(parameters),
        eq(audit_events.organization_id, parameters.organization_id),
        sql`(${audit_events.created_at}, ${audit_events.sequence}) > (${webhook_endpoints.cursor_at}, ${webhook_endpoints.cursor_sequence})`,
        isAskedFor,
      ),
    )
    .orderBy(asc(audit_events.created_at), asc(audit_events.sequence))
    .limit(parameters.limit),
);

type Event = typeof audit_events.$inferSelect;

/** The place of the newest event. */
const findEnd = query((db, parameters: Placeholders<Place>) =>
  db
    .select({
      cursor_at: sql<number>`${organizations.last_event_at}`.as('cursor_at'),
      cursor_sequence: sql<number>`${organizations.last_sequence}`.as('cursor_sequence'),
    })
    .from(organizations)
    .where(isOrganization(parameters)),
);

const isDeliveryOf = ({ organization_id, endpoint_id }: Placeholders<Place>) =>
  and(eq(webhook_deliveries.organization_id, organization_id), eq(webhook_deliveries.endpoint_id, endpoint_id));

/** The events whose retry is due, those first that are due for longest. */
const findRetries = query((db, parameters: Placeholders<Place & { now: number; limit: number }>) =>
  db
    .select({
      ...getTableColumns(audit_events),
      attempts: webhook_deliveries.attempts,
      first_attempt_at: sql<number>`${webhook_deliveries.created_at}`.as('first_attempt_at'),
    })
    .from(webhook_deliveries)
    .crossJoin(audit_events)
    .where(
      and(
        isDeliveryOf(parameters),
        lte(webhook_deliveries.next_attempt_at, parameters.now),
        eq(audit_events.organization_id, parameters.organization_id),
        eq(audit_events.event_id, webhook_deliveries.event_id),
      ),
    )
    .orderBy(asc(webhook_deliveries.next_attempt_at))
    .limit(parameters.limit),
);

const countRetrying = query((db, parameters: Placeholders<Place>) =>
  boundedCount(db, webhook_deliveries, and(isDeliveryOf(parameters), eq(webhook_deliveries.status, 'retrying'))),
);

type DeliveryParameters = ClaimParameters & RowParameters<typeof webhook_deliveries>;

const excluded = (name: keyof typeof webhook_deliveries.$inferSelect) => sql.raw(`excluded.${name}`);

/** An event that is sent again, because of a replay, has its row already. */
const putDelivery = query((db, parameters: Placeholders<DeliveryParameters>) =>
  db
    .insert(webhook_deliveries)
    .select(db.select(rowColumns(webhook_deliveries, parameters)).from(webhook_endpoints).where(isClaimed(parameters)))
    .onConflictDoUpdate({
      target: [webhook_deliveries.organization_id, webhook_deliveries.endpoint_id, webhook_deliveries.event_id],
      set: {
        status: excluded('status'),
        attempts: excluded('attempts'),
        created_at: excluded('created_at'),
        attempted_at: excluded('attempted_at'),
        next_attempt_at: excluded('next_attempt_at'),
        response_status: excluded('response_status'),
        response_body: excluded('response_body'),
        duration_ms: excluded('duration_ms'),
        last_error: excluded('last_error'),
      },
    }),
);

/** Of those that are not tried any more, only the last ones are kept. */
const deleteSurplus = query((db, parameters: Placeholders<DeliveryParameters & { kept: number }>) =>
  db.delete(webhook_deliveries).where(
    and(
      isDeliveryOf(parameters),
      sql`${webhook_deliveries.delivery_id} IN (SELECT ${webhook_deliveries.delivery_id} FROM ${webhook_deliveries}
        WHERE ${isDeliveryOf(parameters)} AND ${webhook_deliveries.status} = ${parameters.status}
        ORDER BY ${webhook_deliveries.created_at} DESC, ${webhook_deliveries.delivery_id} DESC LIMIT -1 OFFSET ${parameters.kept})`,
    ),
  ),
);

type SystemParameters = EventParameters & ClaimParameters;

const recordDead = eventRecorder<SystemParameters & { dead_event_id: string }>({
  table: webhook_deliveries,
  target_id: webhook_deliveries.delivery_id,
  action: 'webhook_delivery.dead',
  where: (db, parameters) =>
    and(
      isDeliveryOf(parameters),
      eq(webhook_deliveries.event_id, parameters.dead_event_id),
      eq(webhook_deliveries.status, 'dead'),
      existsIn(db, webhook_endpoints, isClaimed(parameters)),
    ),
});

const recordTest = testRecorder<TestedParameters & ClaimParameters>((_, parameters) => isClaimed(parameters));

/** What an endpoint's own attempts have led to. */
const standingColumns = [
  'cursor_at',
  'cursor_sequence',
  'last_delivered_at',
  'failing_since',
  'last_error',
  'failed_attempt_count',
  'resting_until',
] as const;
type Standing = Pick<Endpoint, (typeof standingColumns)[number]>;
type Cursor = Pick<Standing, 'cursor_at' | 'cursor_sequence'>;

const writeStanding = query((db, parameters: Placeholders<ClaimParameters & Standing>) =>
  db
    .update(webhook_endpoints)
    .set(newValues(parameters, standingColumns))
    .where(isClaimed(parameters))
    .returning({ endpoint_id: webhook_endpoints.endpoint_id }),
);

const noteFailedTest = query((db, parameters: Placeholders<ClaimParameters & TestOutcome>) =>
  db
    .update(webhook_endpoints)
    .set(newValues(parameters, ['tested_at', 'test_response_status', 'test_duration_ms', 'test_error']))
    .where(isClaimed(parameters)),
);

const release = query((db, parameters: Placeholders<ClaimParameters>) =>
  db
    .update(webhook_endpoints)
    .set({ claim: sql`NULL`, claimed_until: sql`0` })
    .where(isClaimed(parameters)),
);

/**
 * Sends what these organizations' endpoints are due, for one turn of each. What is left after that wakes itself. It logs
 * `webhook_turn_failed`.
 *
 * @throws DomainError `temporarily_unavailable` if it cannot find out which endpoints are due
 */
export async function deliver(env: Bindings, organization_ids: string[]): Promise<void> {
  const [due] = await batch(env.DB, [
    findDue.bind({ organization_ids: JSON.stringify(organization_ids), now: unixNow() }),
  ]);
  await atOnce(ENDPOINTS_AT_ONCE, due, (place) =>
    takeTurn(env, place).catch((error: unknown) => logError('webhook_turn_failed', error)),
  );
}

/** An event that is to be sent. Of a retry, with what was tried before. */
type Pending = Event & { attempts?: number; first_attempt_at?: number };

/** What one claim of an endpoint is about, and leads to. */
interface Turn {
  readonly env: Bindings;
  readonly endpoint: Endpoint;
  readonly claim: ClaimParameters;
  readonly secrets: CryptoKey[];
  /** The place of the last event, if this turn has all that the endpoint is to get. */
  readonly end: Cursor | undefined;
  standing: Standing;
  /** How many of its events are tried again. */
  retrying: number;
  /** When the first of those that failed in this turn is due. */
  next_attempt_at: number;
  isOver: boolean;
}

async function takeTurn(env: Bindings, place: Place): Promise<void> {
  const now = unixNow();
  const claim = { ...place, claim: crypto.randomUUID() };
  const [[endpoint], secretRows, events, [last], retries, [retrying]] = await batch(env.DB, [
    claimEndpoint.bind({ ...claim, now, claimed_until: now + LEASE_SECONDS }),
    findSecrets.bind({ ...place, now }),
    findEvents.bind({ ...place, limit: EVENTS_PER_TURN }),
    findEnd.bind(place),
    findRetries.bind({ ...place, now, limit: RETRIES_PER_TURN }),
    countRetrying.bind(place),
  ]);
  if (!endpoint) return;
  const turn: Turn = {
    env,
    endpoint,
    claim,
    secrets: await openSecrets(env, place, secretRows),
    end: events.length < EVENTS_PER_TURN ? last : undefined,
    standing: { ...endpoint, resting_until: 0 },
    retrying: retrying?.count ?? 0,
    next_attempt_at: Infinity,
    isOver: false,
  };
  await (endpoint.verified_at === null ? sendTest(turn) : sendEvents(turn, events, retries));
  if (!turn.isOver) await end(turn);
}

async function sendTest(turn: Turn): Promise<void> {
  const { env, endpoint, claim } = turn;
  if (!(await passes(env[webhookTestLimit.binding], endpoint.organization_id))) {
    turn.standing = { ...turn.standing, resting_until: unixNow() + webhookTestLimit.period_seconds };
    return;
  }
  const outcome = await test(env, endpoint, turn.secrets);
  turn.standing = afterAttempt(turn.standing, outcome.test_error, FAILURES_BEFORE_REST);
  const parameters = { ...eventParameters(bySystem(endpoint.organization_id)), ...claim, ...outcome };
  await settle(
    turn,
    outcome.test_error === null
      ? [recordTest.bind(parameters), writeTest.bind(parameters)]
      : [noteFailedTest.bind(parameters)],
  );
}

/** Of an endpoint that rested, the retries come first: new events might never let them have their turn. */
async function sendEvents(turn: Turn, events: Event[], retries: Pending[]): Promise<void> {
  const endsAt = Date.now() + TURN_MILLISECONDS;
  const hasRested = turn.standing.failed_attempt_count >= FAILURES_BEFORE_REST;
  const pending: Pending[] = hasRested ? [...retries, ...events] : [...events, ...retries];
  for (const event of pending) {
    if (turn.isOver || turn.standing.resting_until > 0 || Date.now() >= endsAt) return;
    await sendEvent(turn, event);
  }
  if (turn.standing.resting_until === 0) turn.standing = { ...turn.standing, ...turn.end };
}

const placeOf = ({ created_at, sequence }: Event): Cursor => ({ cursor_at: created_at, cursor_sequence: sequence });

async function sendEvent(turn: Turn, event: Pending): Promise<void> {
  const attempted_at = unixNow();
  const { error, ...attempt } = await sendTo(turn, event);
  const { attempts: attemptsBefore, first_attempt_at: created_at = attempted_at } = event;
  const isRetry = attemptsBefore !== undefined;
  const attempts = (attemptsBefore ?? 0) + 1;
  const status = statusAfter(error, created_at);
  turn.standing = afterAttempt(turn.standing, error, 1);
  if (error === null) turn.standing.last_delivered_at = attempted_at;

  if (status === 'retrying' && !isRetry) {
    if (turn.retrying >= MAX_ROWS.retrying) {
      // The event waits behind the cursor, until there is room for its row.
      turn.standing.resting_until ||= unixNow() + restAfter(FAILURES_BEFORE_REST);
      return settle(turn, []);
    }
    turn.retrying += 1;
  }
  const next_attempt_at = status === 'retrying' ? unixNow() + retryAfter(attempts) : null;
  turn.next_attempt_at = Math.min(turn.next_attempt_at, next_attempt_at ?? Infinity);
  if (!isRetry) turn.standing = { ...turn.standing, ...placeOf(event) };
  const parameters = {
    ...turn.claim,
    ...attempt,
    delivery_id: newId('whdel'),
    event_id: event.event_id,
    event_type: event.action,
    status,
    attempts,
    created_at,
    attempted_at,
    next_attempt_at,
    last_error: error,
  };
  await settle(turn, [
    putDelivery.bind(parameters),
    ...(status === 'dead'
      ? [
          recordDead.bind({
            ...eventParameters(bySystem(turn.claim.organization_id)),
            ...turn.claim,
            dead_event_id: event.event_id,
          }),
        ]
      : []),
    ...(status === 'retrying' ? [] : [deleteSurplus.bind({ ...parameters, kept: MAX_ROWS[status] })]),
  ]);
}

async function sendTo({ env, endpoint, secrets }: Turn, event: Event): Promise<Attempt> {
  const { target_id, state, changes, actor } = presentAuditEvent(event);
  return send(env, endpoint.url, secrets, {
    id: event.event_id,
    type: event.action,
    organization_id: event.organization_id,
    created_at: event.created_at,
    data: { target_id, state, ...(changes && { changes }), actor },
  });
}

function statusAfter(error: string | null, created_at: number): DeliveryStatus {
  if (error === null) return 'delivered';
  return unixNow() - created_at >= RETRIED_FOR_SECONDS ? 'dead' : 'retrying';
}

/** @param weight how many failures this one counts as */
function afterAttempt(standing: Standing, error: string | null, weight: number): Standing {
  const now = unixNow();
  if (error === null) {
    return { ...standing, failing_since: null, last_error: null, failed_attempt_count: 0, resting_until: 0 };
  }
  const failed_attempt_count = standing.failed_attempt_count + weight;
  return {
    ...standing,
    failing_since: standing.failing_since ?? now,
    last_error: error,
    failed_attempt_count,
    resting_until: failed_attempt_count < FAILURES_BEFORE_REST ? 0 : now + restAfter(failed_attempt_count),
  };
}

/** Whole seconds, from half to one and a half of these, so that what failed together does not come back together. */
const jittered = (seconds: number) => Math.ceil(seconds * (0.5 + Math.random()));

const retryAfter = (attempts: number) =>
  jittered(Math.min(FIRST_RETRY_SECONDS * 4 ** (attempts - 1), MAX_RETRY_SECONDS));

const restAfter = (failures: number) =>
  jittered(Math.min(FIRST_REST_SECONDS * 2 ** (failures - FAILURES_BEFORE_REST), MAX_REST_SECONDS));

/** Records the outcome of an attempt and what it means for the endpoint. The turn is over if it has lost its claim. */
async function settle(turn: Turn, statements: BoundQuery<unknown>[]): Promise<void> {
  const { env, claim, standing } = turn;
  const results = await batch(env.DB, [...statements, writeStanding.bind({ ...claim, ...standing })]);
  const held = results.at(-1);
  turn.isOver = !(Array.isArray(held) && held.length > 0);
}

async function end({ env, claim, standing, next_attempt_at }: Turn): Promise<void> {
  const { organization_id, endpoint_id } = claim;
  const now = unixNow();
  const [, , due] = await batch(env.DB, [
    writeStanding.bind({ ...claim, ...standing }),
    release.bind(claim),
    findDue.bind({ organization_ids: JSON.stringify([organization_id]), now }),
  ]);
  if (due.some((other) => other.endpoint_id === endpoint_id)) return wakeDelivery(env, organization_id);
  const seconds = (standing.resting_until > now ? standing.resting_until : next_attempt_at) - now;
  if (seconds < SOON_SECONDS) await wakeDelivery(env, organization_id, Math.max(seconds, 1));
}
