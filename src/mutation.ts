/**
 * What every mutation has in common: one batch that asks, decides, acts and reads the decision back, and how its results are
 * judged, on the first try, on a repeat of the batch, and on a repeat of the request under its Idempotency-Key.
 */
import { and, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import * as z from 'zod';
import { assertNothingInDoubt, eventExists, readEvent } from './audit/record.ts';
import type { EventParameters } from './audit/record.ts';
import { assertCallerMay, callerKey, isCallerWith } from './auth/authorize.ts';
import type { Permission } from './auth/permissions.ts';
import type { Operation } from './env.ts';
import { assertSameRequest, recallAnswer } from './idempotency.ts';
import { batchOfGroups, bindEach, mapEach, query } from './query.ts';
import type { Builder, CompiledQuery, CompiledSelect, Placeholders } from './query.ts';
import { api_keys, idempotency_keys } from './schema.ts';
import { onPrimary } from './session.ts';

type Selects<Parameters> = Readonly<Record<string, CompiledSelect<Parameters, unknown>>>;
type Statements<Parameters> = Readonly<Record<string, CompiledQuery<Parameters, unknown>>>;

/** For a mutation whose answers are made from its event alone. */
export type NothingElse = Readonly<Record<string, never>>;

interface Definition<Parameters, Explained extends Selects<Parameters>> {
  /** What an answer is made from beside its event, read as the batch leaves it: what a refusal is explained from. */
  explain: Explained;
  /** The statements that decide and act, each on the conditions that it states itself. */
  act: Statements<Parameters>;
  /** Follows what acts, whatever it came to. */
  settle?: Statements<Parameters>;
  /** Whether a refusal is the last word; one that is not is answered 503, and not remembered. */
  isFinal?: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined;
}

const rowsByName = z.record(z.string(), z.array(z.record(z.string(), z.unknown())));

/**
 * Makes the function that carries a mutation out for a caller with the permission: in one batch, with what an
 * Idempotency-Key needs of it.
 */
export function mutation<Parameters extends EventParameters, Explained extends Selects<Parameters>>(
  permission: Permission,
  definition: Definition<Parameters, Explained>,
) {
  const { explain, act, settle = {}, isFinal } = definition;
  const remembered = { ...explain, caller: callerKey, event: readEvent };

  const remember = query((db, parameters: Placeholders<Parameters & { fingerprint: string }>) => {
    const members = Object.entries<CompiledSelect<Parameters, unknown>>(remembered).map(
      ([name, compiled]) => sql`${sql.raw(`'${name}'`)}, json(${compiled.json(db, parameters)})`,
    );
    return db
      .insert(idempotency_keys)
      .select(
        db
          .select({
            organization_id: sql<string>`${parameters.organization_id}`.as('organization_id'),
            actor_key_id: sql<string>`${parameters.actor_key_id}`.as('actor_key_id'),
            idempotency_key: sql<string>`${parameters.idempotency_key}`.as('idempotency_key'),
            method: sql<string>`${parameters.method}`.as('method'),
            path: sql<string>`${parameters.path}`.as('path'),
            event_id: sql<string>`${parameters.event_id}`.as('event_id'),
            fingerprint: sql<string>`${parameters.fingerprint}`.as('fingerprint'),
            findings: sql<string>`json_object(${sql.join(members, sql`, `)})`.as('findings'),
            created_at: sql<number>`${parameters.event_time}`.as('created_at'),
          })
          .from(api_keys)
          .where(
            and(
              isCallerWith(permission, db, parameters),
              isFinal && or(eventExists(db, parameters), isFinal(db, parameters)),
            ),
          ),
      )
      .onConflictDoNothing();
  });

  /**
   * @returns the event that says it was done (or refused, where the action says so), or else none: then the caller, who is
   *   not the reason, and in either case what was found, which explains a refusal
   * @throws DomainError `invalid_api_key`, `permission_denied`, `idempotency_key_reused`, `temporarily_unavailable`
   */
  return async function decide(operation: Operation, parameters: Parameters) {
    const { idempotency } = operation;
    const explaining = bindEach(explain, parameters);
    const deciding = { caller: callerKey.bind(parameters), event: readEvent.bind(parameters) };
    const { results, inDoubt } = await onPrimary(operation, (database) =>
      batchOfGroups(database, [
        bindEach(act, parameters),
        idempotency ? { remember: remember.bind({ ...parameters, fingerprint: idempotency.fingerprint }) } : {},
        bindEach(settle, parameters),
        explaining,
        deciding,
        idempotency ? { answers: recallAnswer.bind(parameters) } : {},
      ]),
    );
    const [, , , explained, { caller, event }, recalled] = results;

    const [answer] = 'answers' in recalled ? recalled.answers : [];
    const replayed = answer !== undefined && answer.event_id !== parameters.event_id;
    if (replayed) {
      assertCallerMay(permission, operation, caller);
      assertSameRequest(operation, answer);
      operation.markReplayed();
    }
    const findings = answer && rowsByName.parse(JSON.parse(answer.findings));
    const rowsOf = (name: string) => findings?.[name] ?? [];
    const found = findings ? mapEach(explaining, rowsOf) : explained;
    const first = findings ? mapEach(deciding, rowsOf) : { caller, event };

    const [decision] = first.event;
    if (decision) return { event: decision, found, replayed };
    if (!answer) assertNothingInDoubt(inDoubt);
    return { event: undefined, found, caller: assertCallerMay(permission, operation, first.caller) };
  };
}
