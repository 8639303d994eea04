/**
 * The KV key of one version of a subject's credentials: `v1/{organization_id}/{subject_id}/{version}`. A subject is an
 * integration or a SIP number. The key also binds the ciphertext to its place (envelope.ts).
 */
import { sql } from 'drizzle-orm';
import type { SQLWrapper } from 'drizzle-orm';

export function credentialsKey(organization_id: string, subject_id: string, version: string): string {
  return `v1/${organization_id}/${subject_id}/${version}`;
}

/** {@link credentialsKey} in SQL. */
export const credentialsKeyOf = (organization_id: SQLWrapper, subject_id: SQLWrapper, version: SQLWrapper) =>
  sql<string>`'v1/' || ${organization_id} || '/' || ${subject_id} || '/' || ${version}`;

/** The parts of a KV key; undefined if it has another form. */
export function partsOf(kv_key: string) {
  const [, organization_id, subject_id, version] = /^v1\/([^/]+)\/([^/]+)\/([^/]+)$/.exec(kv_key) ?? [];
  return organization_id === undefined ? undefined : { kv_key, organization_id, subject_id, version };
}
