/**
 * Stores credentials. This module, the drain (drain.ts) and the reconciliation after a restore of D1 (operator/recovery) alone
 * touch the CREDENTIALS namespace.
 *
 * | KV key                                                    | value                    |
 * | --------------------------------------------------------- | ------------------------ |
 * | `v1/{organization_id}/{subject_id}/{version}` (kv-key.ts) | ciphertext (envelope.ts) |
 *
 * A version is a new random id for each attempt. It is written once and never overwritten, so a stale edge can only show the
 * right bytes or none.
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
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { credential_purges, key_encryption_keys, organizations } from '../d1/schema.ts';
import type { Builder } from '../d1/query.ts';
import type { ApiCall } from '../decision/call.ts';
import { assertCallerMay, callerKey, mayAct } from '../decision/caller.ts';
import { hasDecided } from '../decision/event.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { seal } from './envelope.ts';
import type { Credentials, WrappedDataKey } from './envelope.ts';
import { currentKek, isNoOtherKek, isUsableKek } from './kek-check.ts';
import { kekRing } from './kek-ring.ts';
import { credentialsKey } from './kv-key.ts';
import { intentRow, isOfIntent, spendIntent } from './outbox.ts';
import type { IntentParameters } from './outbox.ts';

/** What the row of a subject remembers of its credentials, and where their ciphertext is. */
export interface StoredCredentials extends WrappedDataKey {
  /** Null where they were not stored: the batch that decides will refuse, or has decided already. */
  kv_key: string | null;
  credentials_version: string;
}

type KekCheck = ReturnType<typeof currentKek>;

/** Follows the intent: without one, the KEK wraps nothing. */
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
        .where(isOfIntent(parameters)),
    )
    .onConflictDoNothing(),
);

/** One row: what the KEK is known by, if it is known, and whether there is the intent. */
const findBegun = query((db, parameters: Placeholders<IntentParameters & KekCheck>) =>
  db
    .select({
      check_value: key_encryption_keys.check_value,
      retired_at: key_encryption_keys.retired_at,
      has_intent: sql<number>`${existsIn(db, credential_purges, isOfIntent(parameters))}`.as('has_intent'),
    })
    .from(sql`(SELECT 1)`)
    .leftJoin(key_encryption_keys, eq(key_encryption_keys.kek_id, parameters.kek_id)),
);

/**
 * Makes the function that stores a new version of credentials for a caller with the permission.
 *
 * The intent to purge is written before the ciphertext is, and the batch that decides withdraws or spends it (outbox.ts). So a
 * call that is interrupted anywhere leaves no ciphertext that the outbox does not name.
 *
 * @param precondition what else must hold, so that a call which will be refused leaves nothing behind; it may ask about the
 *   row of `organizations`
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
              mayAct(permission, db, parameters),
              precondition?.(db, parameters),
              isNoOtherKek(db, parameters),
              not(hasDecided(db, parameters)),
            ),
          ),
      )
      .onConflictDoNothing(),
  );

  /** Records the intent and seals the version, under a KEK that is known to be the one of its name. */
  async function begin(call: ApiCall, event: Parameters, subject_id: string, credentials: Credentials) {
    const { CREDENTIALS_KEKS, DB } = call.env;
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
    assertCallerMay(permission, call, caller);
    if (!isUsableKek(kek, begun)) throw nothingDone(undefined);
    const { ciphertext, ...wrapped } = await seal(ring, kv_key, credentials);
    const stored: StoredCredentials = { kv_key: begun?.has_intent ? kv_key : null, credentials_version, ...wrapped };
    return { ciphertext, stored };
  }

  /**
   * Each put is of a version of its own. A put that seems to have failed may have landed, or land later: its intent is spent,
   * and so stays even where the drain was faster than the put.
   *
   * @param event of the call that makes the version live, and what the precondition asks about
   * @param credentials plaintext; it goes no further than this call
   * @returns where the ciphertext is, and how it opens
   * @throws DomainError `invalid_api_key`, `permission_denied`, `temporarily_unavailable` (`not_done`)
   */
  return async function storeCredentials(
    call: ApiCall,
    event: Parameters,
    subject_id: string,
    credentials: Credentials,
  ): Promise<StoredCredentials> {
    let putFailure: DomainError | undefined;
    return retry(
      async () => {
        const { ciphertext, stored } = await begin(call, event, subject_id, credentials);
        if (stored.kv_key === null) return stored;
        try {
          await call.env.CREDENTIALS.put(stored.kv_key, ciphertext);
        } catch (cause) {
          logError('put_failed', cause, { request_id: call.request_id });
          const spent = spendIntent.bind({ ...event, now: unixNow(), kv_key: stored.kv_key });
          await beforeDecision(batch(call.env.DB, [spent]));
          throw (putFailure = nothingDone(cause));
        }
        return stored;
      },
      (error) => (putFailure && error === putFailure && !(putFailure.cause instanceof DeadlineError) ? MAX_TRIES : 1),
    );
  };
}

/** Before the batch that decides, nothing that the client asked for has happened, whatever became of the intent. */
function nothingDone(cause: unknown): DomainError {
  return new DomainError('temporarily_unavailable', { outcome: 'not_done' }, { cause });
}

/** The result of a batch that stands before the one that decides. */
async function beforeDecision<Result>(batched: Promise<Result>): Promise<Result> {
  try {
    return await batched;
  } catch (error) {
    throw error instanceof DomainError ? nothingDone(error) : error;
  }
}

/** Nothing was done and nothing refuses it: what kept the intent from being written has gone since. */
class WithoutIntent extends DomainError<'temporarily_unavailable'> {
  constructor() {
    super('temporarily_unavailable', { outcome: 'not_done' });
  }
}

/** The error of a batch that decided nothing, where no refusal tells why. For {@link beginAgain}. */
export function notDone({ kv_key }: { kv_key: string | null }): DomainError {
  return kv_key === null ? new WithoutIntent() : new DomainError('temporarily_unavailable', { outcome: 'not_done' });
}

/**
 * Carries out what stores credentials and decides. Where it decided nothing because it had no intent ({@link notDone}), it
 * begins again with a new one, a bounded number of times. All attempts are of one event, so late tries of them cannot act
 * twice.
 *
 * @throws the last attempt's error
 */
export function beginAgain<Result>(attempt: () => Promise<Result>): Promise<Result> {
  return retry(attempt, (error) => (error instanceof WithoutIntent ? MAX_TRIES : 1));
}
