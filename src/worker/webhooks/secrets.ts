/**
 * The signing secrets of endpoints, `whsec_…`: 32 random bytes in base64. A row has the bytes wrapped by a key-encryption key,
 * as it would have a data key, so the re-wrap serves them too (credentials/rewrap.ts).
 */
import { and, eq, gt, isNull, or, sql } from 'drizzle-orm';
import { encodeBase64 } from 'hono/utils/encode';
import { newId } from '../core/ids.ts';
import { unwrap, wrap } from '../credentials/envelope.ts';
import type { WrappedDataKey } from '../credentials/envelope.ts';
import { currentKek } from '../credentials/kek-check.ts';
import { KEY_BYTES, kekRing } from '../credentials/kek-ring.ts';
import { credentialsKey } from '../credentials/kv-key.ts';
import { defaultedColumns } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { key_encryption_keys, webhook_endpoints, webhook_secrets } from '../d1/schema.ts';
import type { EventParameters } from '../decision/call.ts';
import type { Bindings } from '../env.ts';
import { isEndpointAsDecided } from './endpoint.ts';

interface SecretRow extends WrappedDataKey {
  secret_id: string;
}

export interface NewSecretParameters extends SecretRow {
  endpoint_id: string;
  check_value: string;
}

/**
 * A new secret, and what is stored of it.
 *
 * @throws Error for a malformed ring
 */
export async function newSecret({ CREDENTIALS_KEKS }: Bindings, organization_id: string, endpoint_id: string) {
  const ring = await kekRing(CREDENTIALS_KEKS);
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const secret_id = newId('whkey');
  const wrapped = await wrap(ring, credentialsKey(organization_id, secret_id, endpoint_id), bytes);
  const secret = `whsec_${encodeBase64(bytes.buffer)}`;
  bytes.fill(0);
  return { secret, stored: { secret_id, ...wrapped, check_value: currentKek(ring).check_value } };
}

type Storing = EventParameters & NewSecretParameters;

const recordKek = query((db, parameters: Placeholders<Storing>) =>
  db
    .insert(key_encryption_keys)
    .select(
      db
        .select(
          defaultedColumns(key_encryption_keys, {
            kek_id: sql`${parameters.kek_id}`,
            check_value: sql`${parameters.check_value}`,
            created_at: sql`${parameters.now}`,
          }),
        )
        .from(webhook_endpoints)
        .where(isEndpointAsDecided(db, parameters)),
    )
    .onConflictDoNothing(),
);

const insertSecret = query((db, parameters: Placeholders<Storing>) =>
  db
    .insert(webhook_secrets)
    .select(
      db
        .select(
          defaultedColumns(webhook_secrets, {
            organization_id: sql`${webhook_endpoints.organization_id}`,
            secret_id: sql`${parameters.secret_id}`,
            endpoint_id: sql`${webhook_endpoints.endpoint_id}`,
            data_key: sql`${parameters.data_key}`,
            kek_id: sql`${parameters.kek_id}`,
            created_at: sql`${parameters.event_time}`,
          }),
        )
        .from(webhook_endpoints)
        .where(isEndpointAsDecided(db, parameters)),
    )
    .onConflictDoNothing(),
);

/** Store the secret of an endpoint whose event has been recorded. */
export const storeSecret = [recordKek, insertSecret];

/** Selects the secrets of an endpoint. */
export const isSecretOf = ({
  organization_id,
  endpoint_id,
}: Placeholders<{ organization_id: string; endpoint_id: string }>) =>
  and(eq(webhook_secrets.organization_id, organization_id), eq(webhook_secrets.endpoint_id, endpoint_id));

/** The secrets that sign now. */
export const findSecrets = query(
  (db, parameters: Placeholders<{ organization_id: string; endpoint_id: string; now: number }>) =>
    db
      .select({
        secret_id: webhook_secrets.secret_id,
        data_key: webhook_secrets.data_key,
        kek_id: webhook_secrets.kek_id,
      })
      .from(webhook_secrets)
      .where(
        and(isSecretOf(parameters), or(isNull(webhook_secrets.ends_at), gt(webhook_secrets.ends_at, parameters.now))),
      ),
);

/**
 * The secrets as keys that sign.
 *
 * @throws Error if there is no secret, or if the ring is malformed or does not have the KEK
 */
export async function openSecrets(
  { CREDENTIALS_KEKS }: Bindings,
  { organization_id, endpoint_id }: { organization_id: string; endpoint_id: string },
  rows: SecretRow[],
): Promise<CryptoKey[]> {
  if (rows.length === 0) throw new Error('The webhook endpoint has no secret');
  const ring = await kekRing(CREDENTIALS_KEKS);
  return Promise.all(
    rows.map(async (row) => {
      const bytes = await unwrap(ring, credentialsKey(organization_id, row.secret_id, endpoint_id), row);
      const key = await crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
      bytes.fill(0);
      return key;
    }),
  );
}
