import { batch } from '../../worker/d1/batch.ts';
import { assertNothingInDoubt, carryOut } from '../../worker/decision/event.ts';
import { beginning, continueOffboarding } from '../../worker/organizations/offboarding.ts';
import type { OffboardingStep } from '../../worker/organizations/offboarding.ts';
import { findStatus } from '../../worker/organizations/organization.ts';
import { commandCall, commandParameters } from '../call.ts';

/**
 * Offboards an organization, for good, to the end. If this is interrupted, a second call finishes it, and so does the cron.
 *
 * @param onProgress called after each batch of a step
 * @returns how much this call deleted and revoked; undefined if there is no such organization, or it was changed meanwhile
 * @throws DomainError `temporarily_unavailable`
 */
export async function offboardOrganization(
  database: D1Database,
  organization_id: string,
  onProgress: (step: OffboardingStep, done: number, total: number) => void = () => {},
): Promise<Record<OffboardingStep | 'keys', number> | undefined> {
  const call = commandCall(organization_id);
  const find = async () => (await batch(database, [findStatus.bind({ organization_id })]))[0][0];
  const seen = await find();
  if (!seen) return undefined;
  const parameters = { ...commandParameters(call), change_count: seen.change_count };
  const { event: begun, inDoubt } = await carryOut(database, beginning, parameters);
  if (!begun && (await find())?.status !== 'offboarded') {
    assertNothingInDoubt(inDoubt);
    return undefined;
  }
  return continueOffboarding(database, call, { batches: Infinity }, onProgress);
}
