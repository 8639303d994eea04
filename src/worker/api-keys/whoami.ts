import { eq, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { holderOf } from '../callers/key-cache.ts';
import { DomainError } from '../core/errors.ts';
import { permissionsOf } from '../core/permissions.ts';
import { toIso } from '../core/time.ts';
import { quotas } from '../core/vocabulary.ts';
import { jsonObject } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { nearest, readOnPrimary } from '../d1/replica-session.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { organizationColumns, presentOrganization } from '../organizations/organization.ts';
import { limitOf } from '../organizations/quotas.ts';

const limitsOfQuotas = z.record(z.enum(quotas), z.int());

const findOrganization = query(
  (db, { organization_id, key_hash }: Placeholders<{ organization_id: string | null; key_hash: string }>) => {
    const ofKey = db
      .select({ organization_id: api_keys.organization_id })
      .from(api_keys)
      .where(eq(api_keys.key_hash, key_hash));
    return db
      .select({
        ...organizationColumns(),
        limits: jsonObject(Object.fromEntries(quotas.map((quota) => [quota, limitOf(quota)]))).as('limits'),
      })
      .from(organizations)
      .where(eq(organizations.organization_id, sql`coalesce(${organization_id}, ${ofKey})`));
  },
);

/**
 * The caller's organization, with the limits of its tier or its own, and the caller's key as it was when D1 was last asked
 * about it, at most 60 s ago (docs/contract.md, GET /api/whoami).
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function whoAmI(call: ApiCall) {
  const { key_hash, holder } = call.key;
  const reads = { found: findOrganization.bind({ organization_id: holder?.organization_id ?? null, key_hash }) };
  let {
    found: [found],
  } = await nearest(call, reads);
  // A replica may not know an organization yet that has just been created.
  if (!found) [found] = (await readOnPrimary(call, reads)).found;
  if (!found) throw new DomainError('internal_error', {});
  const limits = limitsOfQuotas.parse(JSON.parse(found.limits));
  const { key_id, name, role, user_id, expires_at } = holderOf(call);
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
