import { batch } from '../../worker/d1/batch.ts';
import { carryOut } from '../../worker/decision/event.ts';
import { commandParameters } from '../../worker/decision/operator.ts';
import { beginning, continueOffboarding } from '../../worker/organizations/offboarding.ts';
import type { OffboardingStep } from '../../worker/organizations/offboarding.ts';
import { findStatus } from '../../worker/organizations/organization.ts';
import { operatorCall } from '../call.ts';

/**
 * Offboards an organization, for good, to the end. If this is interrupted, a second call finishes it, and so does the cron.
 *
 * @param onProgress called after each batch of a step
 * @returns how much this call deleted and revoked; undefined if there is no such organization
 * @throws DomainError `temporarily_unavailable`
 */
export async function offboardOrganization(
  database: D1Database,
  organization_id: string,
  onProgress: (step: OffboardingStep, done: number, total: number) => void = () => {},
): Promise<Record<OffboardingStep | 'keys', number> | undefined> {
  const call = operatorCall(organization_id);
  const { event: begun } = await carryOut(database, beginning, commandParameters(call));
  // Offboarded already, or no organization. A try that is in doubt changes neither.
  if (!begun) {
    const [[organization]] = await batch(database, [findStatus.bind({ organization_id })]);
    if (!organization) return undefined;
  }
  return continueOffboarding(database, call, { batches: Infinity }, onProgress);
}
