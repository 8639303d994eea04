import { and, asc, sql } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import type { ProblemCode } from '../core/errors.ts';
import { unixNow } from '../core/time.ts';
import { beginAgain, notDone } from '../credentials/store.ts';
import { boundedCount, toldCount } from '../d1/bounded-count.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, organizations, phone_numbers } from '../d1/schema.ts';
import { withoutKey } from '../decision/call.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead } from '../decision/caller.ts';
import { isOrganization } from '../organizations/organization.ts';
import {
  askTarget,
  assertMay,
  deletionParameters,
  MAX_NAMED,
  reasons,
  rules,
  wayOf,
  whyRefused,
  whyUndecided,
} from './deletion.ts';
import type { DeletionParameters, DeletionRequest, Reasons, Way } from './deletion.ts';
import { presentIntegration } from './integration.ts';
import type { Integration } from './integration.ts';
import { isReference, presentReference, referenceColumns } from './references.ts';
import type { IntegrationReference } from './references.ts';

type Parameters = Placeholders<DeletionParameters>;

/** The rule of the delete; no row if the delete would not be decided. */
const judge = (way: Way) =>
  query((db, parameters: Parameters) =>
    db
      .select({ is_refused: sql<number>`${rules[way].isRefused(db, parameters)}`.as('is_refused') })
      .from(integrations)
      .crossJoin(organizations)
      .where(and(rules[way].isDecided(db, parameters), isOrganization(parameters))),
  );

const judges = { refuse: judge('refuse'), reassign: judge('reassign'), remove: judge('remove') };

const listReferences = query((db, parameters: Parameters) =>
  db
    .select(referenceColumns())
    .from(phone_numbers)
    .where(isReference(parameters))
    .orderBy(asc(phone_numbers.phone_number))
    .limit(MAX_NAMED),
);

const countReferences = query((db, parameters: Parameters) => boundedCount(db, phone_numbers, isReference(parameters)));

/** What may stand against a delete; anything else is an error of the preview itself. */
export const blockerCodes = [
  'integration_in_use',
  'phone_number_assigned',
  'precondition_failed',
  'invalid_reassign_target',
  'too_many_references',
  'too_many_to_verify',
  'quota_exceeded',
  'credentials_missing',
  'credentials_refused',
] as const satisfies ProblemCode[];
type BlockerCode = (typeof blockerCodes)[number];
export type Blocker = DomainError<BlockerCode>;

const isBlocker = (error: unknown): error is Blocker =>
  error instanceof DomainError && blockerCodes.some((code) => code === error.code);

/** @throws the error if it is none */
function asBlocker(error: unknown): Blocker {
  if (!isBlocker(error)) throw error;
  return error;
}

export interface Preview {
  /** What stands against the delete; undefined if it would be done. */
  blocker: Blocker | undefined;
  integration: Integration;
  reference_count: number;
  reference_count_exact: boolean;
  /** The first 100. */
  references: IntegrationReference[];
}

/**
 * What a delete of an integration would do now (docs/contract.md, DELETE /api/integrations/{integration_id}), by the same
 * rule and on the primary. It writes nothing; only if the provider refuses the credentials of the integration that would get
 * the numbers, that is kept, as whenever it is asked.
 *
 * @throws DomainError `integration_not_found`, `permission_denied`, `invalid_api_key`, `verification_limited`, `rate_limited`,
 *   `temporarily_unavailable`
 */
export async function previewDeletion(
  keyedCall: ApiCall,
  integration_id: string,
  request: DeletionRequest,
): Promise<Preview> {
  const call = withoutKey(keyedCall);
  const way = wayOf(request);
  if (call.key.holder) assertMay(way, call.key.holder);
  const parameters = deletionParameters(call, integration_id, request);
  return beginAgain(() => attempt(call, way, parameters));
}

async function attempt(call: ApiCall, way: Way, parameters: DeletionParameters): Promise<Preview> {
  const first = await look(call, way, parameters);
  if (first.isDecided || first.blocker) return first;
  try {
    const asked = await askTarget(call, first.found);
    const second = await look(call, way, { ...parameters, ...asked, now: unixNow() });
    if (second.isDecided || second.blocker) return second;
    throw notDone({ kv_key: null });
  } catch (error) {
    return { ...first, blocker: asBlocker(error) };
  }
}

/** What explains the judgement, by the way of the numbers. */
const reasonsOf = {
  refuse: (parameters: DeletionParameters) => ({ references: reasons.refuse.references.bind(parameters) }),
  reassign: (parameters: DeletionParameters) => ({
    target: reasons.reassign.target.bind(parameters),
    unasked: reasons.reassign.unasked.bind(parameters),
    full: reasons.reassign.full.bind(parameters),
  }),
  remove: (parameters: DeletionParameters) => ({ assigned: reasons.remove.assigned.bind(parameters) }),
};

interface Look extends Preview {
  /** Nothing more need be asked. */
  isDecided: boolean;
  found: Reasons;
}

async function look(call: ApiCall, way: Way, parameters: DeletionParameters): Promise<Look> {
  const read = await confirmAndRead('integrations:delete', call, parameters, {
    judged: judges[way].bind(parameters),
    source: reasons.remove.source.bind(parameters),
    unmatched: reasons.remove.unmatched.bind(parameters),
    listed: listReferences.bind(parameters),
    counted: countReferences.bind(parameters),
    ...reasonsOf[way](parameters),
  });
  assertMay(way, read.caller);
  const [source] = read.source;
  if (!source) throw new DomainError('integration_not_found', {});
  const [judged] = read.judged;
  const error = judged
    ? whyRefused(parameters.integration_id, judged.is_refused ? read : {})
    : whyUndecided(way, parameters, read);
  const { count, exact } = toldCount(read.counted[0]?.count ?? 0);
  return {
    isDecided: judged !== undefined,
    found: read,
    blocker: error && asBlocker(error),
    integration: presentIntegration(source),
    reference_count: count,
    reference_count_exact: exact,
    references: read.listed.map(presentReference),
  };
}
