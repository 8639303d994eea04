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
import { and, asc, eq, getTableColumns, lte, not, or, sql } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
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
import type { BoundQuery, Builder, Placeholders } from '../d1/query.ts';
import { audit_events, organizations, webhook_deliveries, webhook_endpoints } from '../d1/schema.ts';
import { bySystem, eventParameters } from '../decision/call.ts';
import type { EventParameters } from '../decision/call.ts';
import { eventRecorder } from '../decision/event.ts';
import { wakeDelivery } from '../decision/wake.ts';
import type { WakeUp } from '../decision/wake.ts';
import type { Bindings } from '../env.ts';
import { isOrganization } from '../organizations/organization.ts';
import { isEventOfDelivery } from './delivery.ts';
import { findDue, isDueEndpoint } from './due.ts';
import { isEndpoint } from './endpoint.ts';
import type { EndpointKey } from './endpoint.ts';
import { findSecrets, openSecrets } from './secrets.ts';
import { send } from './send.ts';
import type { Attempt } from './send.ts';
import { webhookTestLimit } from './test-limit.ts';
import { test, testRecorder, writeTest } from './test.ts';
import type { TestedParameters, TestOutcome } from './test.ts';

/** An invocation has six connections (core/connections.ts): these, and two to spare. */
const ENDPOINTS_AT_ONCE = 4;
/**
 * An attempt takes up to four statements, and a turn ten more. With ten endpoints these are below the 1,000 that D1 allows in
 * one invocation of a Worker.
 */
const EVENTS_PER_TURN = 13;
/** Among these a turn looks for those that the endpoint asks for. The next turn goes on behind them. */
const EVENTS_LOOKED_AT = 1000;
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

interface ClaimParameters extends EndpointKey {
  claim: string;
  /** Of the endpoint, when it was claimed. */
  revision: number;
}

type Claiming = Omit<ClaimParameters, 'revision'> & { now: number; claimed_until: number };

/** A claim that comes so late that its lease is over is none: who sent it has given up. */
const claimEndpoint = query((db, parameters: Placeholders<Claiming>) =>
  db
    .update(webhook_endpoints)
    .set({ claim: sql`${parameters.claim}`, claimed_until: sql`${parameters.claimed_until}` })
    .where(and(isEndpoint(parameters), isDueEndpoint(db, parameters), sql`${parameters.claimed_until} > unixepoch()`))
    .returning(getTableColumns(webhook_endpoints)),
);

type Endpoint = typeof webhook_endpoints.$inferSelect;

/**
 * Selects the endpoint, if it is still this one's turn: nobody has changed it since, and its organization is not suspended.
 */
const isClaimed = (db: Builder, parameters: Placeholders<ClaimParameters>) =>
  and(
    isEndpoint(parameters),
    eq(webhook_endpoints.claim, parameters.claim),
    eq(webhook_endpoints.revision, parameters.revision),
    existsIn(db, organizations, and(isOrganization(parameters), eq(organizations.status, 'active'))),
  );

/** Selects the events after the cursor. */
const isAfterCursor = (parameters: Placeholders<EndpointKey>) =>
  and(
    isEndpoint(parameters),
    eq(audit_events.organization_id, parameters.organization_id),
    sql`(${audit_events.created_at}, ${audit_events.sequence}) > (${webhook_endpoints.cursor_at}, ${webhook_endpoints.cursor_sequence})`,
  );

const inOrder = [asc(audit_events.created_at), asc(audit_events.sequence)];

/**
 * Of the next events, those that the endpoint gets: endpoints are told about their subjects, and a pattern of this one asks
 * for them. SQLite does not reorder a cross join: the endpoint must come first.
 */
const findEvents = query((db, parameters: Placeholders<EndpointKey & { limit: number }>) => {
  const next = db
    .select({ ...getTableColumns(audit_events), patterns: sql<string>`${webhook_endpoints.events}`.as('patterns') })
    .from(webhook_endpoints)
    .crossJoin(audit_events)
    .where(isAfterCursor(parameters))
    .orderBy(...inOrder)
    .limit(EVENTS_LOOKED_AT)
    .as('next');
  return db
    .select()
    .from(next)
    .where(
      and(
        or(...webhookSubjects.map((subject) => sql`${next.action} GLOB ${sql.raw(`'${subject}.*'`)}`)),
        sql`EXISTS (SELECT 1 FROM json_each(${next.patterns}) WHERE ${next.action} GLOB value)`,
      ),
    )
    .orderBy(asc(next.created_at), asc(next.sequence))
    .limit(parameters.limit);
});

type Event = typeof audit_events.$inferSelect;

/** Where the events end that {@link findEvents} looks at: at the newest one, or at one before. */
const findEnd = query((db, parameters: Placeholders<EndpointKey>) => {
  const lastLookedAt = (column: SQLiteColumn) =>
    db
      .select({ value: column })
      .from(webhook_endpoints)
      .crossJoin(audit_events)
      .where(isAfterCursor(parameters))
      .orderBy(...inOrder)
      .limit(1)
      .offset(EVENTS_LOOKED_AT - 1);
  return db
    .select({
      cursor_at: sql<number>`coalesce(${lastLookedAt(audit_events.created_at)}, ${organizations.last_event_at})`.as(
        'cursor_at',
      ),
      cursor_sequence: sql<number>`coalesce(${lastLookedAt(audit_events.sequence)}, ${organizations.last_sequence})`.as(
        'cursor_sequence',
      ),
    })
    .from(organizations)
    .where(isOrganization(parameters));
});

const isDeliveryOf = ({ organization_id, endpoint_id }: Placeholders<EndpointKey>) =>
  and(eq(webhook_deliveries.organization_id, organization_id), eq(webhook_deliveries.endpoint_id, endpoint_id));

/** The events whose retry is due, those first that are due for longest. */
const findRetries = query((db, parameters: Placeholders<EndpointKey & { now: number; limit: number }>) =>
  db
    .select({
      ...getTableColumns(audit_events),
      attempts: webhook_deliveries.attempts,
      first_attempt_at: sql<number>`${webhook_deliveries.created_at}`.as('first_attempt_at'),
    })
    .from(webhook_deliveries)
    .crossJoin(audit_events)
    .where(and(isDeliveryOf(parameters), lte(webhook_deliveries.next_attempt_at, parameters.now), isEventOfDelivery))
    .orderBy(asc(webhook_deliveries.next_attempt_at))
    .limit(parameters.limit),
);

/** What is due of events that are kept no longer: there is nothing to send. */
const deleteWithoutEvent = query((db, parameters: Placeholders<Claiming>) =>
  db
    .delete(webhook_deliveries)
    .where(
      and(
        isDeliveryOf(parameters),
        lte(webhook_deliveries.next_attempt_at, parameters.now),
        not(existsIn(db, audit_events, isEventOfDelivery)),
        existsIn(db, webhook_endpoints, and(isEndpoint(parameters), eq(webhook_endpoints.claim, parameters.claim))),
      ),
    ),
);

const countRetrying = query((db, parameters: Placeholders<EndpointKey>) =>
  boundedCount(db, webhook_deliveries, and(isDeliveryOf(parameters), eq(webhook_deliveries.status, 'retrying'))),
);

type DeliveryParameters = ClaimParameters & RowParameters<typeof webhook_deliveries>;

const excluded = (name: keyof typeof webhook_deliveries.$inferSelect) => sql.raw(`excluded.${name}`);

/** An event that is sent again, because of a replay, has its row already. */
const putDelivery = query((db, parameters: Placeholders<DeliveryParameters>) =>
  db
    .insert(webhook_deliveries)
    .select(
      db.select(rowColumns(webhook_deliveries, parameters)).from(webhook_endpoints).where(isClaimed(db, parameters)),
    )
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
        ORDER BY ${webhook_deliveries.attempted_at} DESC, ${webhook_deliveries.delivery_id} DESC LIMIT -1 OFFSET ${parameters.kept})`,
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
      existsIn(db, webhook_endpoints, isClaimed(db, parameters)),
    ),
});

const recordTest = testRecorder<TestedParameters & ClaimParameters>((db, parameters) => isClaimed(db, parameters));

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
    .where(isClaimed(db, parameters))
    .returning({ endpoint_id: webhook_endpoints.endpoint_id }),
);

const noteFailedTest = query((db, parameters: Placeholders<ClaimParameters & TestOutcome>) =>
  db
    .update(webhook_endpoints)
    .set(newValues(parameters, ['tested_at', 'test_response_status', 'test_duration_ms', 'test_error']))
    .where(isClaimed(db, parameters)),
);

const release = query((db, parameters: Placeholders<ClaimParameters>) =>
  db
    .update(webhook_endpoints)
    .set({ claim: sql`NULL`, claimed_until: sql`0` })
    .where(isClaimed(db, parameters)),
);

/**
 * Sends what is due of what is woken: each endpoint has one turn. If something is left after that, the turn sends a wake-up.
 * It logs `webhook_turn_failed`.
 *
 * @throws DomainError `temporarily_unavailable` if it cannot find out which endpoints are due
 */
export async function deliver(env: Bindings, woken: WakeUp[]): Promise<void> {
  const [due] = await batch(env.DB, [findDue.bind({ woken: JSON.stringify(woken), now: unixNow() })]);
  await atOnce(ENDPOINTS_AT_ONCE, due, (key) =>
    takeTurn(env, key).catch((error: unknown) => logError('webhook_turn_failed', error, key)),
  );
}

/** An event that is to be sent. */
type Pending = Event & {
  /** How often it was tried. */
  attempts: number;
  /** Unix seconds. Null: it is new. */
  first_attempt_at: number | null;
};

/** What one claim of an endpoint is about, and leads to. */
interface Turn {
  readonly env: Bindings;
  readonly endpoint: Endpoint;
  readonly secrets: CryptoKey[];
  held: ClaimParameters;
  standing: Standing;
  /** How many of its events are tried again. */
  retrying: number;
  /** When the first of those that failed in this turn is due. */
  next_attempt_at: number;
  /** Failures in a row, up to now. */
  failures: number;
  /** Without an attempt, it may have led to nothing. */
  hasTried: boolean;
  /** It can send no more: it has lost the endpoint, or an event has no place. */
  isOver: boolean;
}

async function takeTurn(env: Bindings, key: EndpointKey): Promise<void> {
  const now = unixNow();
  const claim = { ...key, claim: crypto.randomUUID(), now, claimed_until: now + LEASE_SECONDS };
  const [[endpoint], , secretRows, events, [lookedAt], retries, [retrying]] = await batch(env.DB, [
    claimEndpoint.bind(claim),
    deleteWithoutEvent.bind(claim),
    findSecrets.bind({ ...key, now }),
    findEvents.bind({ ...key, limit: EVENTS_PER_TURN }),
    findEnd.bind(key),
    findRetries.bind({ ...key, now, limit: RETRIES_PER_TURN }),
    countRetrying.bind(key),
  ]);
  if (!endpoint) return;
  const turn: Turn = {
    env,
    endpoint,
    secrets: await openSecrets(env, key, secretRows),
    held: { ...key, claim: claim.claim, revision: endpoint.revision },
    standing: { ...endpoint, resting_until: 0 },
    retrying: retrying?.count ?? 0,
    next_attempt_at: Infinity,
    failures: 0,
    hasTried: false,
    isOver: false,
  };
  if (endpoint.verified_at === null) await sendTest(turn);
  else {
    const areAll = events.length < EVENTS_PER_TURN;
    const isDone = await sendEvents(turn, alternating(events.map(neverTried), retries));
    if (isDone && areAll) turn.standing = { ...turn.standing, ...lookedAt };
  }
  await finish(turn);
}

const neverTried = (event: Event): Pending => ({ ...event, attempts: 0, first_attempt_at: null });

/** New events and retries by turns, so that neither holds up the other. */
const alternating = (events: Pending[], retries: Pending[]): Pending[] =>
  Array.from({ length: Math.max(events.length, retries.length) }).flatMap((_, index) => [
    ...events.slice(index, index + 1),
    ...retries.slice(index, index + 1),
  ]);

async function sendTest(turn: Turn): Promise<void> {
  const { env, endpoint, held } = turn;
  if (!(await passes(env[webhookTestLimit.binding], endpoint.organization_id))) {
    turn.standing = { ...turn.standing, resting_until: unixNow() + webhookTestLimit.period_seconds };
    return;
  }
  turn.hasTried = true;
  const outcome = await test(env, endpoint, turn.secrets);
  const event = eventParameters(bySystem(endpoint.organization_id));
  const parameters = { ...event, ...held, ...outcome, kept_claim: held.claim };
  turn.standing = afterAttempt(turn.standing, outcome.test_error, FAILURES_BEFORE_REST);
  if (outcome.test_error === null) {
    // The outcome is a change of the endpoint.
    turn.held = { ...held, revision: held.revision + 1 };
    await settle(turn, [recordTest.bind(parameters), writeTest.bind(parameters)]);
  } else await settle(turn, [noteFailedTest.bind(parameters)]);
}

/** @returns whether all of them were tried */
async function sendEvents(turn: Turn, pending: Pending[]): Promise<boolean> {
  const endsAt = Date.now() + TURN_MILLISECONDS;
  for (const event of pending) {
    if (turn.isOver || turn.failures >= FAILURES_BEFORE_REST || Date.now() >= endsAt) return false;
    await sendEvent(turn, event);
  }
  return !turn.isOver;
}

const cursorOf = ({ created_at, sequence }: Event): Cursor => ({ cursor_at: created_at, cursor_sequence: sequence });

async function sendEvent(turn: Turn, event: Pending): Promise<void> {
  const attempted_at = unixNow();
  turn.hasTried = true;
  const { error, ...attempt } = await sendTo(turn, event);
  turn.standing = afterAttempt(turn.standing, error, 1);
  turn.failures = error === null ? 0 : turn.failures + 1;
  if (error === null) turn.standing.last_delivered_at = attempted_at;

  const isNew = event.first_attempt_at === null;
  const created_at = event.first_attempt_at ?? attempted_at;
  const status = statusAfter(error, created_at);
  if (isNew && status === 'retrying' && turn.retrying >= MAX_ROWS.retrying) {
    // It waits behind the cursor, and all that follow, until there is room for its row.
    await settle(turn, []);
    turn.isOver = true;
    return;
  }
  if (isNew) {
    turn.standing = { ...turn.standing, ...cursorOf(event) };
    if (status === 'retrying') turn.retrying += 1;
  }
  const attempts = event.attempts + 1;
  const next_attempt_at = status === 'retrying' ? unixNow() + retryAfter(attempts) : null;
  turn.next_attempt_at = Math.min(turn.next_attempt_at, next_attempt_at ?? Infinity);
  const parameters = {
    ...turn.held,
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
  const { organization_id } = event;
  const died = { ...eventParameters(bySystem(organization_id)), ...turn.held, dead_event_id: event.event_id };
  await settle(turn, [
    putDelivery.bind(parameters),
    ...(status === 'dead' ? [recordDead.bind(died)] : []),
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
const afterAttempt = (standing: Standing, error: string | null, weight: number): Standing =>
  error === null
    ? { ...standing, failing_since: null, last_error: null, failed_attempt_count: 0 }
    : {
        ...standing,
        failing_since: standing.failing_since ?? unixNow(),
        last_error: error,
        failed_attempt_count: standing.failed_attempt_count + weight,
      };

/** Whole seconds, from half to one and a half of these, so that what failed together does not come back together. */
const jittered = (seconds: number) => Math.ceil(seconds * (0.5 + Math.random()));

const retryAfter = (attempts: number) =>
  jittered(Math.min(FIRST_RETRY_SECONDS * 4 ** (attempts - 1), MAX_RETRY_SECONDS));

const restAfter = (failures: number) =>
  jittered(Math.min(FIRST_REST_SECONDS * 2 ** (failures - FAILURES_BEFORE_REST), MAX_REST_SECONDS));

/** Records the outcome of an attempt and what it means for the endpoint. The turn is over if it has lost the endpoint. */
async function settle(turn: Turn, statements: BoundQuery<unknown>[]): Promise<void> {
  const { env, held, standing } = turn;
  const results = await batch(env.DB, [...statements, writeStanding.bind({ ...held, ...standing })]);
  const kept = results.at(-1);
  turn.isOver = !(Array.isArray(kept) && kept.length > 0);
}

/** Lets the endpoint rest, if its last attempts have failed, and gives it back. */
async function finish({ env, endpoint, held, standing, next_attempt_at, hasTried }: Turn): Promise<void> {
  const { organization_id, endpoint_id } = held;
  const now = unixNow();
  const { failed_attempt_count } = standing;
  const mustRest = failed_attempt_count >= FAILURES_BEFORE_REST;
  const resting_until = Math.max(standing.resting_until, mustRest ? now + restAfter(failed_attempt_count) : 0);
  const woken = { organization_id, endpoint_id };
  const [, , due] = await batch(env.DB, [
    writeStanding.bind({ ...held, ...standing, resting_until }),
    release.bind(held),
    findDue.bind({ woken: JSON.stringify([woken]), now }),
  ]);
  // A turn that led to nothing must not begin another one at once.
  const hasMoved = standing.cursor_sequence !== endpoint.cursor_sequence;
  if (due.length > 0 && (hasTried || hasMoved)) return wakeDelivery(env, woken);
  const seconds = (resting_until > now ? resting_until : next_attempt_at) - now;
  if (seconds < SOON_SECONDS) await wakeDelivery(env, woken, Math.max(seconds, 1));
}
