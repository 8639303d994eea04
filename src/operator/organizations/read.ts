import { batch } from '../../worker/d1/batch.ts';
import { findCounted, presentCounted } from '../../worker/organizations/read.ts';
import type { CountedOrganization } from '../../worker/organizations/read.ts';

/** An organization with its counts, for the preview of a command; undefined if there is none. */
export async function readOrganization(
  database: D1Database,
  organization_id: string,
): Promise<CountedOrganization | undefined> {
  const [found] = await batch(database, [findCounted.bind({ organization_id })]);
  return found.length > 0 ? presentCounted(found) : undefined;
}
