/**
 * Stores credentials. Only four modules use the CREDENTIALS namespace: this one, the one that reads (read.ts), the drain
 * (drain.ts), and the reconciliation after a restore of D1 (operator/recovery/reconcile.ts).
 *
 * | KV key                                                    | value                    |
 * | --------------------------------------------------------- | ------------------------ |
 * | `v1/{organization_id}/{subject_id}/{version}` (kv-key.ts) | ciphertext (envelope.ts) |
 *
 * Each attempt makes a new random version, which is written once and never overwritten. So an edge with an old view of
 * KV has either the right bytes or none.
 */
import { and, eq, not, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { nanoid } from 'nanoid';
import { DeadlineError } from '../core/deadlines.ts';
import { DomainError } from '../core/errors.ts';
import { logError } from '../core/log.ts';
import type { Permission } from '../core/permissions.ts';
import { MAX_TRIES, retry } from '../core/retry.ts';
import { unixNow } from '../core/time.ts';
import { batch, beforeDecision, nothingDone } from '../d1/batch.ts';
import type { Database } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { credential_purges, integrations, key_encryption_keys, organizations } from '../d1/schema.ts';
import { actorParameters } from '../decision/call.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { hasDecided } from '../decision/event.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { seal } from './envelope.ts';
import type { Credentials, WrappedDataKey } from './envelope.ts';
import { currentKek, isNoOtherKek, isUsableKek } from './kek-check.ts';
import { kekRing } from './kek-ring.ts';
import { credentialsKey } from './kv-key.ts';
import { intentRow, isOutboxRow, spendIntent } from './outbox.ts';
import type { IntentParameters } from './outbox.ts';

/** What a subject's row stores about its credentials, and where their ciphertext is. */
export interface StoredCredentials extends WrappedDataKey {
  /** Null if nothing was stored, because the batch that decides will refuse, or has decided already. */
  kv_key: string | null;
  credentials_version: string;
}

type KekCheck = ReturnType<typeof currentKek>;

/** Runs after the intent is recorded. Without an intent the KEK wraps nothing, so it is not recorded either. */
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
        .where(isOutboxRow(parameters)),
    )
    .onConflictDoNothing(),
);

/** One row: the organization, the KEK as it is recorded, whether the intent exists, and the integration if it is one. */
const findBegun = query((db, parameters: Placeholders<IntentParameters & KekCheck & { subject_id: string }>) =>
  db
    .select({
      check_value: key_encryption_keys.check_value,
      retired_at: key_encryption_keys.retired_at,
      has_intent: sql<number>`${existsIn(db, credential_purges, isOutboxRow(parameters))}`.as('has_intent'),
      account_salt: sql<string>`coalesce(${organizations.account_salt}, '')`.as('account_salt'),
      checks_stopped_until: organizations.checks_stopped_until,
      account_hint: integrations.account_hint,
      account_fingerprint: integrations.account_fingerprint,
      phone_number_count: sql<number>`coalesce(${integrations.phone_number_count}, 0)`.as('phone_number_count'),
    })
    .from(organizations)
    .leftJoin(key_encryption_keys, eq(key_encryption_keys.kek_id, parameters.kek_id))
    .leftJoin(
      integrations,
      and(
        eq(integrations.organization_id, parameters.organization_id),
        eq(integrations.integration_id, parameters.subject_id),
      ),
    )
    .where(eq(organizations.organization_id, parameters.organization_id)),
);

/** What is known before the put. */
export interface Begun {
  /** Of the intent. */
  kv_key: string;
  account_salt: string;
  checks_stopped_until: number;
  /** Of the integration, if there is one already. */
  account_hint: string | null;
  account_fingerprint: string | null;
  phone_number_count: number;
}

/**
 * Makes the function that stores a new version of credentials, for callers with the permission.
 *
 * It writes the intent to purge the ciphertext before the ciphertext itself, and the batch that decides withdraws or
 * spends the intent (outbox.ts). So wherever a call is interrupted, the outbox names any ciphertext that no row names.
 *
 * @param precondition what else must hold, so that a call which will be refused stores nothing; it may use the row of
 *   `organizations`
 */
export function credentialsWriter<Parameters extends MutationParameters>(
  permission: Permission,
  precondition?: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
) {
  const recordIntent = query((db, parameters: Placeholders<Parameters & IntentParameters & KekCheck>) =>
    db
      .insert(credential_purges)
      .select(
        db
          .select(intentRow(parameters))
          .from(organizations)
          .where(
            and(
              eq(organizations.organization_id, parameters.organization_id),
              mayDecide(permission, db, parameters),
              precondition?.(db, parameters),
              isNoOtherKek(db, parameters),
              not(hasDecided(db, parameters)),
            ),
          ),
      )
      .onConflictDoNothing(),
  );

  /** Records the intent and encrypts the credentials, with a KEK that has been checked (kek-check.ts). */
  async function begin(call: ApiCall, event: Parameters, subject_id: string, credentials: Credentials) {
    const credentials_version = nanoid();
    const kv_key = credentialsKey(event.organization_id, subject_id, credentials_version);
    const ring = await kekRing(call.env.CREDENTIALS_KEKS);
    const kek = currentKek(ring);
    const intent = { ...event, ...actorParameters(call), ...kek, kv_key, subject_id };
    const {
      begun: [begun],
    } = await confirmAndRead(permission, call, event, { begun: findBegun.bind(intent) }, [
      recordIntent.bind(intent),
      recordKekOfIntent.bind(intent),
    ]);
    if (!isUsableKek(kek, begun)) throw nothingDone(undefined);
    const { ciphertext, ...wrapped } = await seal(ring, kv_key, credentials);
    const stored: StoredCredentials = { kv_key: begun?.has_intent ? kv_key : null, credentials_version, ...wrapped };
    return { ciphertext, stored, begun };
  }

  /**
   * Each put has a version of its own. A put that seems to have failed may have succeeded, or may still succeed. So its
   * intent is spent, which keeps its row in the outbox even if the drain has already claimed it.
   *
   * @param event of the call that will make the version live, with the parameters of the precondition
   * @param credentials in plain text
   * @param beforePut runs once the intent stands, again for each new intent; if it throws, nothing is put
   * @returns where the ciphertext is, and the wrapped data key
   * @throws DomainError `invalid_api_key`, `permission_denied`, `temporarily_unavailable` (`not_done`)
   */
  return async function storeCredentials(
    call: ApiCall,
    event: Parameters,
    subject_id: string,
    credentials: Credentials,
    beforePut?: (begun: Begun) => Promise<void>,
  ): Promise<StoredCredentials> {
    let putFailure: DomainError | undefined;
    const database: Database = call.env.DB;
    return retry(
      async () => {
        const { ciphertext, stored, begun } = await begin(call, event, subject_id, credentials);
        if (stored.kv_key === null) return stored;
        if (begun) await beforePut?.({ ...begun, kv_key: stored.kv_key });
        try {
          await call.env.CREDENTIALS.put(stored.kv_key, ciphertext);
        } catch (cause) {
          logError('put_failed', cause, { request_id: call.request_id });
          const spent = spendIntent.bind({ ...event, ...actorParameters(call), now: unixNow(), kv_key: stored.kv_key });
          await beforeDecision(batch(call.env.DB, [spent]));
          throw (putFailure = nothingDone(cause));
        }
        return stored;
      },
      (error) => (putFailure && error === putFailure && !(putFailure.cause instanceof DeadlineError) ? MAX_TRIES : 1),
      database,
    );
  };
}

/**
 * Nothing was done, because what the attempt went by is out of date: what refused the intent has gone since, or the
 * credentials that it was to read were replaced.
 */
class Outdated extends DomainError<'temporarily_unavailable'> {
  constructor() {
    super('temporarily_unavailable', { outcome: 'not_done' });
  }
}

/** The error if an attempt decided nothing and no refusal explains it. Without a KV key it is for {@link beginAgain}. */
export function notDone({ kv_key }: { kv_key: string | null }): DomainError {
  return kv_key === null ? new Outdated() : new DomainError('temporarily_unavailable', { outcome: 'not_done' });
}

/**
 * Runs an attempt that decides by credentials, or stores some. If it decided nothing because what it went by is out of
 * date ({@link notDone}), it runs again, a bounded number of times. All attempts have the same event id, so they cannot
 * act twice.
 *
 * @throws the error of the last attempt
 */
export function beginAgain<Result>(attempt: () => Promise<Result>): Promise<Result> {
  return retry(attempt, (error) => (error instanceof Outdated ? MAX_TRIES : 1));
}
