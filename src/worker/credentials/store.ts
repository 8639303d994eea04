/**
 * Where credentials are kept. This module, the outbox's drain (purge.ts) and the reconciliation after a restore
 * (recovery/reconcile.ts) alone touch the CREDENTIALS namespace.
 *
 * | KV key                                        | value                    |
 * | --------------------------------------------- | ------------------------ |
 * | `v1/{organization_id}/{subject_id}/{version}` | ciphertext (envelope.ts) |
 *
 * A subject is an integration or a SIP number. A version is a fresh random id for each attempt, written once and never
 * overwritten, so that a stale edge can only ever show the right bytes or none.
 */
import { and, eq, inArray, isNotNull, not, sql } from 'drizzle-orm';
import type { Placeholder, SQL } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import { nanoid } from 'nanoid';
import { eventExists, isEvent, isOfOperation } from '../decision/event.ts';
import type { EventParameters, RecordParameters } from '../decision/event.ts';
import { assertCallerMay, callerKey, isCallerWith } from '../decision/caller.ts';
import type { Permission } from '../core/permissions.ts';
import type { Operation } from '../env.ts';
import { DeadlineError } from '../core/deadlines.ts';
import { logError } from '../core/log.ts';
import { DomainError } from '../core/errors.ts';
import { batch, existsIn, query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { MAX_TRIES, retry } from '../core/retry.ts';
import { api_keys, audit_events, credential_purges, key_encryption_keys } from '../d1/schema.ts';
import type { AuditAction, PurgeState } from '../core/vocabulary.ts';
import { unixNow } from '../core/time.ts';
import { parseKekRing, seal } from './envelope.ts';
import type { Credentials, KekRing, WrappedDataKey } from './envelope.ts';
import { currentKek, isNoOtherKek, isUsableKek } from './kek-check.ts';

/** Longer than a request lives: a purge must not overtake a create that is merely slow. */
export const INTENT_DUE_SECONDS = 3600;

/** What the row of a subject remembers of its credentials, and where their ciphertext is. */
export interface StoredCredentials extends WrappedDataKey {
  /** Null where they were not stored: the batch that decides will refuse, or has decided already. */
  kv_key: string | null;
  credentials_version: string;
}

/** What leaves a version of credentials behind as garbage. */
const purgingActions = [
  'integration.updated',
  'integration.deleted',
  'phone_number.deleted',
  'phone_number.released',
] as const satisfies AuditAction[];

/** The KV key of one version of a subject's credentials; also what binds the ciphertext to its place. */
export function credentialsKey(organization_id: string, subject_id: string, version: string): string {
  return `v1/${organization_id}/${subject_id}/${version}`;
}

/** For an insert into the outbox. */
export const inState = (state: PurgeState) => sql<PurgeState>`${sql.raw(`'${state}'`)}`.as('state');

/** Of what is owed: no data key opens it any more. */
export const ofNoKek = sql<null>`NULL`;

type KekCheck = ReturnType<typeof currentKek>;

interface IntentParameters {
  organization_id: string;
  /** Null where there are no credentials, and so no intent. */
  kv_key: string | null;
}

const isIntent = ({ organization_id, kv_key }: Placeholders<IntentParameters>) =>
  and(eq(credential_purges.kv_key, kv_key), eq(credential_purges.organization_id, organization_id));

/** The outbox row of an intent, in the table's order. */
function intentColumns(
  { kv_key }: Placeholders<IntentParameters>,
  now: Placeholder,
  state: PurgeState,
  kek_id: SQL<string | null>,
) {
  const due_at = sql<number>`${now} + ${sql.raw(String(INTENT_DUE_SECONDS))}`;
  return {
    kv_key: sql<string>`${kv_key}`.as('kv_key'),
    organization_id: api_keys.organization_id,
    due_at: due_at.as('due_at'),
    attempts: sql<number>`0`.as('attempts'),
    first_due_at: due_at.as('first_due_at'),
    state: inState(state),
    kek_id: kek_id.as('kek_id'),
  };
}

/** Follows the intent, without which the KEK wraps nothing. */
const recordKekOfIntent = query((db, parameters: Placeholders<IntentParameters & KekCheck & { now: number }>) =>
  db
    .insert(key_encryption_keys)
    .select(
      db
        .select({
          kek_id: sql<string>`${parameters.kek_id}`.as('kek_id'),
          check_value: sql<string>`${parameters.check_value}`.as('check_value'),
          created_at: sql<number>`${parameters.now}`.as('created_at'),
          retired_at: sql<null>`NULL`.as('retired_at'),
          rewrap_place: sql<null>`NULL`.as('rewrap_place'),
        })
        .from(credential_purges)
        .where(isIntent(parameters)),
    )
    .onConflictDoNothing(),
);

/** One row: what the KEK is known by, if it is, and whether there is the intent. */
const findBegun = query((db, parameters: Placeholders<IntentParameters & KekCheck>) =>
  db
    .select({
      check_value: key_encryption_keys.check_value,
      retired_at: key_encryption_keys.retired_at,
      has_intent: sql<number>`${existsIn(db, credential_purges, isIntent(parameters))}`.as('has_intent'),
    })
    .from(sql`(SELECT 1)`)
    .leftJoin(key_encryption_keys, eq(key_encryption_keys.kek_id, parameters.kek_id)),
);

/**
 * Makes the function that stores a new version of credentials for a caller with the permission.
 *
 * Interrupted anywhere within an hour, before its intent is due, it leaves no ciphertext that the outbox does not name: the
 * intent to purge is written before the ciphertext is, and the batch that decides either makes the version live and withdraws
 * the intent, or spends it ({@link intentStands}, {@link withdrawIntent}, {@link spendIntent}). Whatever of the two happened
 * first, no late try can undo it: a withdrawn intent does not come back, and a spent one stays in the outbox until it is due.
 *
 * @param precondition what else must hold, so that a call which will be refused leaves nothing behind
 */
export function credentialsWriter<Parameters extends EventParameters>(
  permission: Permission,
  precondition?: (db: Builder, parameters: Placeholders<Parameters>) => SQL,
) {
  const recordIntent = query((db, parameters: Placeholders<Parameters & IntentParameters & KekCheck>) =>
    db
      .insert(credential_purges)
      .select(
        db
          .select(intentColumns(parameters, parameters.now, 'intended', sql<string>`${parameters.kek_id}`))
          .from(api_keys)
          .where(
            and(
              isCallerWith(permission, db, parameters),
              precondition?.(db, parameters),
              isNoOtherKek(db, parameters),
              not(eventExists(db, parameters)),
            ),
          ),
      )
      .onConflictDoNothing(),
  );

  /** Records the intent to purge a version, and seals it, under a KEK that is known to be the one of its name. */
  async function begin(operation: Operation, event: Parameters, subject_id: string, credentials: Credentials) {
    const { CREDENTIALS_KEKS, DB } = operation.env;
    const credentials_version = nanoid();
    const kv_key = credentialsKey(event.organization_id, subject_id, credentials_version);
    const ring = await kekRing(CREDENTIALS_KEKS);
    const kek = currentKek(ring);
    const intent = { ...event, ...kek, kv_key };
    const [[caller], , , [begun]] = await beforeDecision(
      batch(DB, [
        callerKey.bind(event),
        recordIntent.bind(intent),
        recordKekOfIntent.bind(intent),
        findBegun.bind(intent),
      ]),
    );
    assertCallerMay(permission, operation, caller);
    if (!isUsableKek(kek, begun)) throw nothingDone(undefined);
    const { ciphertext, ...wrapped } = await seal(ring, kv_key, credentials);
    const stored: StoredCredentials = { kv_key: begun?.has_intent ? kv_key : null, credentials_version, ...wrapped };
    return { ciphertext, stored };
  }

  /**
   * Each put is of a version of its own, because one that seems to have failed may have landed, or land later: its intent
   * is spent, so that it stays even where a purge was faster than the put.
   *
   * @param event of the operation that makes the version live, and what the precondition asks about
   * @param credentials plaintext; it goes no further than this call
   * @returns where the ciphertext is, and how it opens
   * @throws DomainError `invalid_api_key`, `permission_denied`, `temporarily_unavailable` (`not_done`)
   */
  return async function storeCredentials(
    operation: Operation,
    event: Parameters,
    subject_id: string,
    credentials: Credentials,
  ): Promise<StoredCredentials> {
    let putFailure: DomainError | undefined;
    return retry(
      async () => {
        const { ciphertext, stored } = await begin(operation, event, subject_id, credentials);
        if (stored.kv_key === null) return stored;
        try {
          await operation.env.CREDENTIALS.put(stored.kv_key, ciphertext);
        } catch (cause) {
          logError('put_failed', cause, { request_id: operation.request_id });
          const spent = spendIntent.bind({ ...event, now: unixNow(), kv_key: stored.kv_key });
          await beforeDecision(batch(operation.env.DB, [spent]));
          throw (putFailure = nothingDone(cause));
        }
        return stored;
      },
      (error) => (putFailure && error === putFailure && !(putFailure.cause instanceof DeadlineError) ? MAX_TRIES : 1),
    );
  };
}

/** Until the deciding batch, nothing that the client asked for has happened, whatever became of the intent. */
function nothingDone(cause: unknown): DomainError {
  return new DomainError('temporarily_unavailable', { outcome: 'not_done' }, { cause });
}

/** The result of a batch that stands before the deciding one. */
async function beforeDecision<Result>(batched: Promise<Result>): Promise<Result> {
  try {
    return await batched;
  } catch (error) {
    throw error instanceof DomainError ? nothingDone(error) : error;
  }
}

/** Nothing was done and nothing refuses it: what the precondition found in the way of an intent has gone since. */
class WithoutIntent extends DomainError<'temporarily_unavailable'> {
  constructor() {
    super('temporarily_unavailable', { outcome: 'not_done' });
  }
}

/** Of a decision that did not act, where no refusal tells why. For {@link beginAgain}. */
export function notDone({ kv_key }: { kv_key: string | null }): DomainError {
  return kv_key === null ? new WithoutIntent() : new DomainError('temporarily_unavailable', { outcome: 'not_done' });
}

/**
 * Carries out what stores credentials and decides, and again with a new intent, a bounded number of times, where it is
 * {@link notDone} for want of one. All attempts are of one event, which keeps late tries of each from acting twice.
 *
 * @throws the last attempt's error
 */
export function beginAgain<Result>(attempt: () => Promise<Result>): Promise<Result> {
  return retry(attempt, (error) => (error instanceof WithoutIntent ? MAX_TRIES : 1));
}

const isIntended = (parameters: Placeholders<IntentParameters>) =>
  and(isIntent(parameters), eq(credential_purges.state, 'intended'));

/**
 * Predicate of the statement that makes a version live: its intent stands. A purge that claims the ciphertext, a decision
 * that withdraws or spends the intent, and a deletion, which owes the removal, each end that for good.
 */
export const intentStands = (db: Builder, parameters: Placeholders<IntentParameters>) =>
  existsIn(db, credential_purges, and(isIntended(parameters), eq(credential_purges.attempts, 0)));

/**
 * Follows the event that made a version live, in its batch: the ciphertext is no garbage any more. A late try finds no intent,
 * and what is owed since then stays.
 */
export const withdrawIntent = query((db, parameters: Placeholders<EventParameters & IntentParameters>) =>
  db.delete(credential_purges).where(and(isIntended(parameters), eventExists(db, parameters))),
);

/** Of a column's value in the row that is there and in the one that was to be inserted. */
const laterOf = (column: SQLiteColumn) => sql<number>`max(${column}, excluded.${sql.identifier(column.name)})`;

/**
 * Follows {@link withdrawIntent}, or a put that failed: what has not become live never will, by no late try. The row stays
 * for an hour from `now`, longer than any put is late, and comes back if a purge took it. Nobody can read the ciphertext:
 * its data key was stored nowhere.
 */
export const spendIntent = query((db, parameters: Placeholders<EventParameters & IntentParameters>) =>
  db
    .insert(credential_purges)
    .select(
      db
        .select({
          ...intentColumns(parameters, parameters.now, 'owed', ofNoKek),
          attempts: sql<number>`1`.as('attempts'),
        })
        .from(api_keys)
        .where(
          and(
            eq(api_keys.key_id, parameters.actor_key_id),
            eq(api_keys.organization_id, parameters.organization_id),
            sql`${parameters.kv_key} IS NOT NULL`,
            not(eventExists(db, parameters)),
          ),
        ),
    )
    .onConflictDoUpdate({
      target: credential_purges.kv_key,
      set: {
        due_at: laterOf(credential_purges.due_at),
        attempts: sql`${credential_purges.attempts} + 1`,
        first_due_at: laterOf(credential_purges.first_due_at),
        state: 'owed',
      },
    }),
);

/** Makes {@link enqueuePurge}, of the events that the predicate selects. */
const purgeEnqueuer = (isTheirs: (parameters: Placeholders<RecordParameters>) => SQL | undefined) =>
  query((db, parameters: Placeholders<RecordParameters>) => {
    const version = sql<string>`json_extract(${audit_events.state}, '$.credentials_version')`;
    return (
      db
        .insert(credential_purges)
        .select(
          db
            .select({
              kv_key:
                sql<string>`'v1/' || ${audit_events.organization_id} || '/' || ${audit_events.target_id} || '/' || ${version}`.as(
                  'kv_key',
                ),
              organization_id: audit_events.organization_id,
              due_at: sql<number>`${parameters.now}`.as('due_at'),
              attempts: sql<number>`0`.as('attempts'),
              first_due_at: sql<number>`${parameters.now}`.as('first_due_at'),
              state: inState('owed'),
              kek_id: ofNoKek.as('kek_id'),
            })
            .from(audit_events)
            .where(and(isTheirs(parameters), isNotNull(version), inArray(audit_events.action, [...purgingActions]))),
        )
        // A row that is there must not veto what the event decided: an intent becomes a debt, a debt says the same.
        .onConflictDoUpdate({ target: credential_purges.kv_key, set: { state: 'owed' } })
    );
  });

/**
 * Follows the event that made a version garbage, in its batch: the version that the row had when the event saw it goes to
 * the outbox. (The row itself may be gone, or have moved on.)
 */
export const enqueuePurge = purgeEnqueuer(isEvent);

/** {@link enqueuePurge} of all events of an operation. */
export const enqueuePurges = purgeEnqueuer(isOfOperation);

let parsedRing: { secret: string; ring: KekRing } | undefined;

/** The ring, parsed once per isolate and secret. (A promise of it must not be kept: no request may await another's.) */
export async function kekRing(secret: string): Promise<KekRing> {
  if (parsedRing?.secret !== secret) parsedRing = { secret, ring: await parseKekRing(secret) };
  return parsedRing.ring;
}
