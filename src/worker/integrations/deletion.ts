/**
 * What a delete of an integration goes by. Its phone numbers have one of three ways: they refuse the delete, or the batch
 * that deletes the integration reassigns or removes them. Each way has one rule, which the delete (delete.ts) and its preview
 * (preview.ts) both evaluate.
 */
import { and, asc, eq, not, or, sql } from 'drizzle-orm';
import type { SQL, SQLWrapper } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import type { AssignedReference, Reference, TargetFault } from '../core/errors.ts';
import { integer, onceTheRestIsRight } from '../core/fields.ts';
import { idSchema } from '../core/ids.ts';
import { holds } from '../core/permissions.ts';
import type { Permission } from '../core/permissions.ts';
import { unixNow } from '../core/time.ts';
import type { Ownership, Quota, Role } from '../core/vocabulary.ts';
import { notDone } from '../credentials/store.ts';
import { boundedCount, toldCount } from '../d1/bounded-count.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, CompiledQuery, Placeholders } from '../d1/query.ts';
import { api_keys, integrations, phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { isCallerWith, mayDecide } from '../decision/caller.ts';
import { mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isAsMatched, unmatchedTarget, whyUnmatched } from '../decision/precondition.ts';
import { hasRoomForCount, quotaWithout } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { isStillTrue } from '../phone-numbers/ownership.ts';
import type { AskedParameters } from '../phone-numbers/ownership.ts';
import { askForNumbers, findAccount } from './account.ts';
import type { AccountRow } from './account.ts';
import { isIntegration, listedIntegrationColumns } from './integration.ts';
import type { ListedIntegrationState } from './integration.ts';
import { isReference, MAX_REFERENCES } from './references.ts';

/** The most phone numbers that an answer names. */
export const MAX_NAMED = 100;

const trueOrFalse = () => z.exactOptional(z.enum(['true', 'false']));

export const deletionQuery = z.lazy(() =>
  z
    .strictObject({
      dry_run: trueOrFalse(),
      reassign_to: z.exactOptional(idSchema('intg')),
      remove_phone_numbers: trueOrFalse(),
      expect_references: z.exactOptional(
        z.pipe(
          z.transform((text: string) => (/^\d{1,9}$/.test(text) ? Number(text) : text)),
          integer(0, 999_999_999, 'must be a whole number of phone numbers, 0 or more, given once'),
        ),
      ),
      verify: trueOrFalse(),
    })
    .check(
      z.refine(
        ({ reassign_to, remove_phone_numbers }) => reassign_to === undefined || remove_phone_numbers !== 'true',
        {
          path: ['remove_phone_numbers'],
          error: 'only one of reassign_to, remove_phone_numbers=true may be given',
          ...onceTheRestIsRight,
        },
      ),
      z.refine(({ reassign_to, verify }) => reassign_to !== undefined || verify === undefined, {
        path: ['verify'],
        error: 'goes only with reassign_to',
        ...onceTheRestIsRight,
      }),
    ),
);

export type DeletionRequest = z.output<typeof deletionQuery>;

export type Way = 'refuse' | 'reassign' | 'remove';

export function wayOf({ reassign_to, remove_phone_numbers }: DeletionRequest): Way {
  if (reassign_to !== undefined) return 'reassign';
  return remove_phone_numbers === 'true' ? 'remove' : 'refuse';
}

/** What was asked of the account of the integration that gets the numbers. */
interface Asked extends AskedParameters {
  /** JSON arrays of the ids of the numbers that it was asked about, and of those that it holds. */
  answered: string;
  held: string;
}

export interface DeletionParameters extends MutationParameters, Asked {
  integration_id: string;
  /** How many phone numbers must reference it; null: any number. */
  expected_count: number | null;
  /** The integration that gets the numbers; empty if none does. */
  target_id: string;
  /** Whether the account of that integration must be asked, unless it is known to be the same: 0 or 1. */
  asks: number;
}

const nobodyAsked: Asked = { asked_version: null, asked_at: null, answered: '[]', held: '[]' };

export function deletionParameters(
  call: ApiCall,
  integration_id: string,
  request: DeletionRequest,
): DeletionParameters {
  return {
    ...mutationParameters(call),
    integration_id,
    expected_count: request.expect_references ?? null,
    target_id: request.reassign_to ?? '',
    asks: Number(request.reassign_to !== undefined && request.verify !== 'false'),
    ...nobodyAsked,
  };
}

type Parameters = Placeholders<DeletionParameters>;

const isIn = (id: SQLWrapper, ids: SQLWrapper) => sql`${id} IN (SELECT value FROM json_each(${ids}))`;

const isExpected = ({ expected_count }: Parameters) =>
  sql`(${expected_count} IS NULL OR ${integrations.phone_number_count} = ${expected_count})`;

const isWithinBound = sql`${integrations.phone_number_count} <= ${sql.raw(String(MAX_REFERENCES))}`;

const isTarget = ({ organization_id, target_id }: Parameters) =>
  and(eq(integrations.organization_id, organization_id), eq(integrations.integration_id, target_id));

/** Predicate: both integrations are known to be of one account. */
export const isSameAccount = (db: Builder, { organization_id, integration_id, target_id }: Parameters) => {
  const [source, target] = [alias(integrations, 'source'), alias(integrations, 'target')];
  const pair = db
    .select({ one: sql`1` })
    .from(source)
    .innerJoin(target, eq(target.account_fingerprint, source.account_fingerprint))
    .where(
      and(
        eq(source.organization_id, organization_id),
        eq(source.integration_id, integration_id),
        eq(target.organization_id, organization_id),
        eq(target.integration_id, target_id),
      ),
    );
  return sql`EXISTS ${pair}`;
};

/** What the number that a statement selects becomes if it is reassigned. */
export const newOwnership = (db: Builder, parameters: Parameters) =>
  sql<Ownership>`CASE WHEN ${isSameAccount(db, parameters)} THEN ${phone_numbers.ownership}
    WHEN ${isIn(phone_numbers.phone_number_id, parameters.held)} THEN 'confirmed' ELSE 'unconfirmed' END`;

/** By how many the unconfirmed numbers become more if the integration's numbers are reassigned. */
function moreUnconfirmed(db: Builder, parameters: Parameters) {
  const bounded = db
    .select({
      difference:
        sql<number>`(${newOwnership(db, parameters)} = 'unconfirmed') - (${phone_numbers.ownership} = 'unconfirmed')`.as(
          'difference',
        ),
    })
    .from(phone_numbers)
    .where(isReference(parameters))
    .limit(MAX_REFERENCES + 1)
    .as('bounded');
  return sql<number>`coalesce(${db.select({ sum: sql<number>`sum(${bounded.difference})`.as('sum') }).from(bounded)}, 0)`;
}

/** Predicate: a phone number that nobody was asked about. */
const isUnasked = (parameters: Parameters) =>
  and(isReference(parameters), not(isIn(phone_numbers.phone_number_id, parameters.answered)));

/** Predicate: nobody need be asked, or the target's account was asked about every number. */
const isAnswered = (db: Builder, parameters: Parameters) =>
  or(
    sql`NOT ${parameters.asks}`,
    isSameAccount(db, parameters),
    and(
      existsIn(db, integrations, and(isTarget(parameters), isStillTrue(parameters))),
      not(existsIn(db, phone_numbers, isUnasked(parameters))),
    ),
  );

/** Predicate: the integration that gets the numbers is another one of the same provider. */
const isSuitable = (db: Builder, parameters: Parameters) => {
  const target = alias(integrations, 'target');
  return and(
    sql`${integrations.integration_id} <> ${parameters.target_id}`,
    existsIn(
      db,
      target,
      and(
        eq(target.organization_id, parameters.organization_id),
        eq(target.integration_id, parameters.target_id),
        eq(target.provider, integrations.provider),
      ),
    ),
  );
};

const isRequested = (db: Builder, parameters: Parameters) =>
  and(
    isIntegration(parameters),
    isAsMatched(integrations.revision, parameters),
    isExpected(parameters),
    mayDecide('integrations:delete', db, parameters),
  );

const alsoMay = (permission: Permission, db: Builder, parameters: Parameters) =>
  existsIn(db, api_keys, isCallerWith(permission, parameters));

const quotas = ['audit_events', 'unconfirmed_numbers'] as const satisfies Quota[];

/** What a reassignment adds to what the quotas count. */
const addedTo: Record<(typeof quotas)[number], (db: Builder, parameters: Parameters) => SQL<number>> = {
  audit_events: (db, parameters) =>
    sql<number>`${db.select({ count: integrations.phone_number_count }).from(integrations).where(isIntegration(parameters))}`,
  unconfirmed_numbers: moreUnconfirmed,
};

interface Rule {
  /** What the caller must hold too. */
  permission: Permission;
  /** Selects the integration, joined with its organization, if the call is to be decided. */
  isDecided: (db: Builder, parameters: Parameters) => SQL | undefined;
  /** Predicate of it: the decision is a refusal, which is recorded. Else it is the deletion. */
  isRefused: (db: Builder, parameters: Parameters) => SQL;
}

export const rules: Record<Way, Rule> = {
  refuse: {
    permission: 'integrations:delete',
    isDecided: isRequested,
    isRefused: (db, parameters) => existsIn(db, phone_numbers, isReference(parameters)),
  },
  reassign: {
    permission: 'phone_numbers:update',
    isDecided: (db, parameters) =>
      and(
        isRequested(db, parameters),
        alsoMay('phone_numbers:update', db, parameters),
        isWithinBound,
        isSuitable(db, parameters),
        isAnswered(db, parameters),
        ...quotas.map((quota) => hasRoomForCount(quota, addedTo[quota](db, parameters))),
      ),
    isRefused: () => sql`0`,
  },
  remove: {
    permission: 'phone_numbers:delete',
    isDecided: (db, parameters) =>
      and(isRequested(db, parameters), alsoMay('phone_numbers:delete', db, parameters), isWithinBound),
    isRefused: (db, parameters) =>
      existsIn(db, phone_numbers, and(isReference(parameters), eq(phone_numbers.status, 'assigned'))),
  },
};

const findSource = query((db, parameters: Parameters) =>
  db.select(listedIntegrationColumns()).from(integrations).where(isIntegration(parameters)),
);

const findNamed = query((db, parameters: Parameters) => {
  const count = boundedCount(db, phone_numbers, isReference(parameters));
  return db
    .select({
      phone_number_id: phone_numbers.phone_number_id,
      phone_number: phone_numbers.phone_number,
      reference_count: sql<number>`${count}`.as('reference_count'),
    })
    .from(phone_numbers)
    .where(isReference(parameters))
    .orderBy(asc(phone_numbers.phone_number))
    .limit(MAX_NAMED);
});

const findAssigned = query((db, parameters: Parameters) =>
  db
    .select({
      phone_number_id: phone_numbers.phone_number_id,
      phone_number: phone_numbers.phone_number,
      assigned_agent_id: sql<string>`${phone_numbers.assigned_agent_id}`.as('assigned_agent_id'),
    })
    .from(phone_numbers)
    .where(and(isReference(parameters), eq(phone_numbers.status, 'assigned')))
    .orderBy(asc(phone_numbers.phone_number))
    .limit(MAX_NAMED),
);

const findTarget: CompiledQuery<DeletionParameters, AccountRow[]> = {
  bind: (parameters) => findAccount.bind({ ...parameters, integration_id: parameters.target_id }),
};

/** The numbers that the target's account must be asked about. */
const findUnasked = query((db, parameters: Parameters) =>
  db
    .select({ phone_number_id: phone_numbers.phone_number_id, phone_number: phone_numbers.phone_number })
    .from(phone_numbers)
    .where(and(isUnasked(parameters), not(isAnswered(db, parameters) ?? sql`0`)))
    .orderBy(asc(phone_numbers.phone_number))
    .limit(MAX_REFERENCES),
);

/** As long as the account is not asked, nobody knows how many numbers will be unconfirmed. */
const isKnown = (quota: (typeof quotas)[number], db: Builder, parameters: Parameters) =>
  quota === 'unconfirmed_numbers' ? isAnswered(db, parameters) : sql`1`;

const findFull = quotaWithout<DeletionParameters>((db, parameters) =>
  quotas.map((quota) => [
    quota,
    sql`(${isKnown(quota, db, parameters)} AND NOT (${hasRoomForCount(quota, addedTo[quota](db, parameters))}))`,
  ]),
);

const findUnmatched = unmatchedTarget<DeletionParameters>(integrations, isIntegration);

/**
 * What explains why a call was not decided, or was refused, and was not because of the caller. A delete that demands nothing
 * of the integration and its numbers is decided wherever there is one.
 */
export const reasons = {
  refuse: { references: findNamed },
  refuseOrFail: { references: findNamed, source: findSource, unmatched: findUnmatched },
  reassign: { source: findSource, unmatched: findUnmatched, target: findTarget, unasked: findUnasked, full: findFull },
  remove: { source: findSource, unmatched: findUnmatched, assigned: findAssigned },
};

/** Whether a call demands something of the integration and its numbers. */
export const isConditional = ({ if_match, expected_count }: DeletionParameters) =>
  if_match !== null || expected_count !== null;

type NamedReference = Reference & { reference_count: number };

export interface Reasons {
  source?: ListedIntegrationState[];
  unmatched?: unknown[];
  references?: NamedReference[];
  assigned?: AssignedReference[];
  target?: AccountRow[];
  unasked?: Reference[];
  full?: FullQuota[];
}

/**
 * Why a call was not decided, if not because of the caller. Undefined if nothing stands against it: what it went by is out of
 * date, or the target's account must be asked.
 */
export function whyUndecided(
  way: Way,
  { integration_id, expected_count, target_id }: DeletionParameters,
  { source: [source] = [], unmatched = [], target: [target] = [], full = [] }: Reasons,
): DomainError | undefined {
  if (!source) return new DomainError('integration_not_found', {});
  const mismatch = whyUnmatched(unmatched);
  if (mismatch) return mismatch;
  if (expected_count !== null && expected_count !== source.phone_number_count) {
    return new DomainError('precondition_failed', { precondition: 'expect_references' });
  }
  if (way === 'reassign') {
    const reason = faultOf(target, source, target_id === integration_id);
    if (reason) return new DomainError('invalid_reassign_target', { reason, phone_numbers: [] });
  }
  if (way !== 'refuse' && source.phone_number_count > MAX_REFERENCES) {
    return new DomainError('too_many_references', { limit: MAX_REFERENCES });
  }
  const [quota] = full;
  return quota && new DomainError('quota_exceeded', quota);
}

function faultOf(
  target: AccountRow | undefined,
  source: ListedIntegrationState,
  isSame: boolean,
): TargetFault | undefined {
  if (isSame) return 'same_integration';
  if (!target) return 'integration_not_found';
  return target.provider === source.provider ? undefined : 'other_provider';
}

/** Why the decision was a refusal; undefined if the phone numbers that it was for have gone since. */
export function whyRefused(
  integration_id: string,
  { references = [], assigned = [] }: Reasons,
): DomainError | undefined {
  const [first] = assigned;
  if (first) {
    const { assigned_agent_id } = first;
    return new DomainError('phone_number_assigned', { assigned_agent_id, phone_numbers: assigned });
  }
  return references.length > 0 ? inUse(integration_id, references) : undefined;
}

export function inUse(integration_id: string, references: NamedReference[]): DomainError {
  const { count, exact } = toldCount(references[0]?.reference_count ?? 0);
  return new DomainError('integration_in_use', {
    references: references.map(({ phone_number_id, phone_number }) => ({ phone_number_id, phone_number })),
    reference_count: count,
    reference_count_exact: exact,
    references_url: `/api/integrations/${integration_id}/references`,
  });
}

/**
 * Asks the account of the integration that is to get the phone numbers whether it holds them.
 *
 * @returns what the next attempt goes by
 * @throws DomainError `invalid_reassign_target`, `too_many_to_verify`, and the errors of {@link askForNumbers}; if there is
 *   nothing to ask, what the attempt went by is out of date
 */
export async function askTarget(call: ApiCall, { target: [target] = [], unasked = [] }: Reasons): Promise<Asked> {
  if (!target || unasked.length === 0) throw notDone({ kv_key: null });
  const numbers = unasked.map(({ phone_number }) => phone_number);
  const { held, absent, isCut } = await askForNumbers(call, target, numbers);
  if (absent.size > 0) {
    const unheld = unasked.filter(({ phone_number }) => absent.has(phone_number));
    throw new DomainError('invalid_reassign_target', {
      reason: 'phone_number_not_in_account',
      phone_numbers: unheld.slice(0, MAX_NAMED),
    });
  }
  if (isCut) throw new DomainError('too_many_to_verify', {});
  return {
    asked_version: target.credentials_version,
    asked_at: unixNow(),
    answered: idsOf(unasked),
    held: idsOf(unasked.filter(({ phone_number }) => held.has(phone_number))),
  };
}

const idsOf = (numbers: Reference[]) => JSON.stringify(numbers.map(({ phone_number_id }) => phone_number_id));

/** @throws DomainError `permission_denied` */
export function assertMay(way: Way, { role }: { role: Role }): void {
  const { permission } = rules[way];
  if (!holds(role, permission)) throw new DomainError('permission_denied', { required_permission: permission });
}
