import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { permissionsOf } from '../core/permissions.ts';
import { toIso } from '../core/time.ts';
import { quotas } from '../core/vocabulary.ts';
import { batch } from '../d1/batch.ts';
import type { Database } from '../d1/batch.ts';
import { jsonObject } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { nearest, onPrimary } from '../d1/replica-session.ts';
import { organizations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { isOrganization, organizationColumns, presentOrganization } from '../organizations/organization.ts';
import { limitOf } from '../organizations/quotas.ts';

const limitsOfQuotas = z.record(z.enum(quotas), z.int());

const findOrganization = query((db, parameters: Placeholders<{ organization_id: string }>) =>
  db
    .select({
      ...organizationColumns(),
      limits: jsonObject(Object.fromEntries(quotas.map((quota) => [quota, limitOf(quota)]))).as('limits'),
    })
    .from(organizations)
    .where(isOrganization(parameters)),
);

/**
 * The caller's organization, with the limits of its tier or its own, and the caller's key as it was when D1 was last asked
 * about it, at most 60 s ago (docs/contract.md, GET /api/whoami).
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function whoAmI(call: ApiCall) {
  const { organization_id, caller } = call;
  const find = async (database: Database) =>
    (await batch(database, [findOrganization.bind({ organization_id })]))[0][0];
  // A replica may not know an organization yet that has just been created.
  const found = (await nearest(call, find)) ?? (await onPrimary(call, find));
  if (!found) throw new DomainError('internal_error', {});
  const limits = limitsOfQuotas.parse(JSON.parse(found.limits));
  const { key_id, name, role, user_id, expires_at } = caller;
  return {
    organization: { ...presentOrganization(found), limits },
    key: {
      key_id,
      name,
      role,
      permissions: permissionsOf(role),
      user_id,
      expires_at: expires_at === null ? null : toIso(expires_at),
    },
  };
}
