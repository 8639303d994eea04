/** What must hold of an organization's data after any fault, interruption or race. */
import { env } from 'cloudflare:workers';
import { expect } from 'vitest';
import * as z from 'zod';
import { open, unwrap } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import { readFresh } from '../credentials-reader/reader.ts';

type Row = Record<string, unknown>;

const tables = [
  'organizations',
  'integrations',
  'phone_numbers',
  'api_keys',
  'audit_events',
  'credential_purges',
  'idempotency_keys',
  'webhook_endpoints',
  'webhook_secrets',
  'webhook_deliveries',
] as const;

/** What operators change of an organization; its counters and quotas are left out. */
const ofOperators = ({ organization_id, name, tier, status, metadata, is_offboarding, change_count }: Row) => ({
  organization_id,
  name,
  tier,
  status,
  metadata,
  is_offboarding,
  change_count,
});

/** The rows of one organization, by table. (Who was last seen when does not count.) */
export async function dataOf(organization_id: string) {
  const results = await env.DB.batch<Row>(
    tables.map((table) => env.DB.prepare(`SELECT * FROM ${table} WHERE organization_id = ?`).bind(organization_id)),
  );
  const all = results.map((result) => result.results);
  const [organizations, integrations, phone_numbers, api_keys, audit_events, credential_purges, idempotency_keys] = all;
  const [webhook_endpoints, webhook_secrets, webhook_deliveries] = all.slice(7);
  return {
    organizations: (organizations ?? []).map(ofOperators),
    integrations: integrations ?? [],
    phone_numbers: phone_numbers ?? [],
    api_keys: (api_keys ?? []).map((row): Row => ({ ...row, last_used_at: null })),
    audit_events: audit_events ?? [],
    credential_purges: credential_purges ?? [],
    idempotency_keys: idempotency_keys ?? [],
    webhook_endpoints: webhook_endpoints ?? [],
    webhook_secrets: webhook_secrets ?? [],
    webhook_deliveries: webhook_deliveries ?? [],
  };
}

export type Data = Awaited<ReturnType<typeof dataOf>>;

/** Every key of the organization's ciphertext in KV. */
export async function ciphertextsOf(organization_id: string): Promise<string[]> {
  const names: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await env.CREDENTIALS.list({ prefix: `v1/${organization_id}/`, ...(cursor && { cursor }) });
    names.push(...page.keys.map(({ name }) => name));
    cursor = page.list_complete ? undefined : page.cursor;
  } while (cursor);
  return names;
}

const kvKeyOf = (row: Row) =>
  credentialsKey(
    String(row['organization_id']),
    String(row['phone_number_id'] ?? row['integration_id']),
    String(row['credentials_version']),
  );

async function isReadable(row: Row, ring: string): Promise<boolean> {
  const kv_key = kvKeyOf(row);
  const ciphertext = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');
  if (!ciphertext) return false;
  const wrapped = { data_key: String(row['data_key']), kek_id: String(row['kek_id']) };
  await open(await parseKekRing(ring), kv_key, wrapped, new Uint8Array(ciphertext));
  return true;
}

/** What another Worker reads from the primary is what is stored now, and nothing of an integration that is gone. */
export async function assertFreshReads(organization_id: string, integration_ids: readonly string[]): Promise<void> {
  const { integrations } = await dataOf(organization_id);
  for (const integration_id of integration_ids) {
    const row = integrations.find((one) => one['integration_id'] === integration_id);
    const result = await readFresh(organization_id, integration_id);
    const { credentials_version } = row ?? {};
    expect(result, 'what another Worker reads').toMatchObject(
      row
        ? { ok: true, organization_id, integration_id, credentials_version }
        : { ok: false, code: 'integration_not_found' },
    );
  }
}

/** Asserts the invariants, each by its name. */
export async function assertInvariants(organization_id: string, ring = env.CREDENTIALS_KEKS): Promise<void> {
  const data = await dataOf(organization_id);
  const { integrations, phone_numbers, audit_events, credential_purges } = data;

  const here = new Set(integrations.map(({ integration_id }) => integration_id));
  const dangling = phone_numbers.filter(({ integration_id }) => integration_id !== null && !here.has(integration_id));
  expect(dangling, 'phone numbers that point to no integration of their organization').toEqual([]);

  const live = [
    ...integrations.filter(({ status }) => status === 'active'),
    ...phone_numbers.filter(({ credentials_version }) => credentials_version !== null),
  ];
  const readable = await Promise.all(live.map((row) => isReadable(row, ring)));
  expect(
    live.filter((_, index) => !readable[index]),
    'credentials that cannot be read',
  ).toEqual([]);

  const named = new Set([...live.map(kvKeyOf), ...credential_purges.map(({ kv_key }) => kv_key)]);
  const orphans = (await ciphertextsOf(organization_id)).filter((kv_key) => !named.has(kv_key));
  expect(orphans, 'ciphertext that neither a live row nor the outbox names').toEqual([]);
  const purgedWhileLive = credential_purges.filter(({ kv_key }) => live.map(kvKeyOf).includes(String(kv_key)));
  expect(purgedWhileLive, 'live credentials in the outbox').toEqual([]);

  const eventsOf = (action: string) => audit_events.filter((event) => event['action'] === action);
  const deletions = eventsOf('integration.deleted').map(({ target_id }) => target_id);
  expect(new Set(deletions).size, 'integrations that were deleted twice').toBe(deletions.length);
  const gone = eventsOf('integration.created').filter(({ target_id }) => !here.has(target_id));
  expect(new Set(deletions), 'integrations that are gone, and those on record as deleted').toEqual(
    new Set(gone.map(({ target_id }) => target_id)),
  );

  await assertWebhookSecrets(organization_id, data, ring);

  expect(JSON.stringify(data), 'secrets in D1').not.toMatch(/plaintext-|bk_live_\w{50}|whsec_/);
}

/** Each endpoint that was made by a call has one secret without an end, and at most one more; all of them can be opened. */
async function assertWebhookSecrets(organization_id: string, data: Data, ring: string): Promise<void> {
  const { webhook_endpoints, webhook_secrets, audit_events } = data;
  const created = audit_events.filter(({ action }) => action === 'webhook_endpoint.created');
  for (const { endpoint_id } of webhook_endpoints) {
    if (!created.some(({ target_id }) => target_id === endpoint_id)) continue;
    const own = webhook_secrets.filter((secret) => secret['endpoint_id'] === endpoint_id);
    expect(
      own.filter(({ ends_at }) => ends_at === null),
      'secrets of an endpoint without an end',
    ).toHaveLength(1);
    expect(own.length, 'secrets of an endpoint').toBeLessThanOrEqual(2);
  }
  for (const { endpoint_id, secret_id, data_key, kek_id } of webhook_secrets) {
    const place = credentialsKey(organization_id, String(secret_id), String(endpoint_id));
    const bytes = await unwrap(await parseKekRing(ring), place, { data_key: String(data_key), kek_id: String(kek_id) });
    expect(bytes, 'a secret').toHaveLength(32);
  }
}

const trailEvent = z.object({
  action: z.string(),
  target_id: z.string(),
  sequence: z.number(),
  state: z.string(),
  changes: z.string().nullable(),
});
const object = z.record(z.string(), z.unknown());

/** The trail, read from its beginning, tells which numbers there are, and how they are. Only where nobody wrote to D1 itself. */
export async function assertTrailTells(organization_id: string): Promise<void> {
  const { phone_numbers, audit_events } = await dataOf(organization_id);
  const trail = z
    .array(trailEvent)
    .parse(audit_events)
    .toSorted((one, other) => one.sequence - other.sequence);
  expect(
    trail.map(({ sequence }) => sequence),
    'the sequences of the trail',
  ).toEqual(trail.map((_, index) => index + 1));

  const told = new Map<string, Row>();
  for (const { action, target_id, state, changes } of trail) {
    if (!action.startsWith('phone_number.') || action.endsWith('_refused')) continue;
    const before = object.parse(JSON.parse(state));
    const known = told.get(target_id);
    if (known) expect(visible(before), `${target_id} before ${action}`).toEqual(visible(known));
    if (action === 'phone_number.deleted' || action === 'phone_number.released') told.delete(target_id);
    else told.set(target_id, { ...before, ...object.parse(JSON.parse(changes ?? '{}')) });
  }
  const there = phone_numbers.map((row) => [row['phone_number_id'], visible(row)]);
  const fromTrail = [...told].map(([id, row]) => [id, visible(row)]);
  expect(Object.fromEntries(there), 'the numbers, and what the trail tells of them').toEqual(
    Object.fromEntries(fromTrail),
  );
}

const visible = ({ phone_number, integration_id, assigned_agent_id, status, ownership }: Row) => ({
  phone_number,
  integration_id,
  assigned_agent_id,
  status,
  ownership,
});
