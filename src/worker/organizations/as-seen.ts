/**
 * An organization as it was seen before it is changed. `change_count` tells it. If the organization has changed since, even a
 * first try that is late does nothing.
 */
import { and, eq } from 'drizzle-orm';
import type { SQLWrapper } from 'drizzle-orm';
import type { Placeholders } from '../d1/query.ts';
import { readOnPrimary } from '../d1/replica-session.ts';
import { organizations } from '../d1/schema.ts';
import type { OperatorCall } from '../decision/call.ts';
import { operatorParameters } from '../decision/operator.ts';
import type { OperatorParameters } from '../decision/operator.ts';
import { findStatus, isOrganization } from './organization.ts';

export interface AsSeenParameters extends OperatorParameters {
  /** The organization's count before the first try. */
  change_count: number;
}

/** Looks at the organization, and makes what a change of it is bound to. */
export async function parametersAsSeen(call: OperatorCall, organization_id: string): Promise<AsSeenParameters> {
  const {
    seen: [seen],
  } = await readOnPrimary(call, { seen: findStatus.bind({ organization_id }) });
  // Without an organization, the batch still finds out who may ask, and what is remembered.
  return { ...operatorParameters(call, organization_id), change_count: seen?.change_count ?? 0 };
}

/** Selects the organization, if it is as it was seen. */
export const isAsSeen = (
  parameters: Placeholders<{ organization_id: string }> & Readonly<Record<'change_count', SQLWrapper>>,
) => and(isOrganization(parameters), eq(organizations.change_count, parameters.change_count));
