/** What the tests in the Workers pool share: callers, calls, and looks at everything that is stored. */
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import * as z from 'zod';
import { createKeyByCommand } from '../src/operator/api-keys/create.ts';
import { createOperatorKey } from '../src/operator/operator-keys/create.ts';
import { operatorPermissions } from '../src/worker/core/permissions.ts';
import type { OperatorPermission } from '../src/worker/core/permissions.ts';
import type { Role, Tier } from '../src/worker/core/vocabulary.ts';
import { open } from '../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../src/worker/credentials/kv-key.ts';
import type { Bindings } from '../src/worker/env.ts';
import worker from '../src/worker/index.ts';
import { assertDocumented } from './documented.ts';

/** An API key of an organization. */
export interface Client {
  organization_id: string;
  key_id: string;
  raw_key: string;
}

let organizations = 0;

/** A key of the role, of a new organization unless one is named. */
export async function newClient({
  role = 'admin',
  tier = 'enterprise',
  organization_id = `org_test_${(organizations += 1)}`,
  expires_at = null,
}: {
  role?: Role;
  tier?: Tier;
  organization_id?: string;
  expires_at?: number | null;
} = {}): Promise<Client> {
  const { raw_key, key } = await createKeyByCommand(env.DB, { organization_id, role, tier, name: 'Test', expires_at });
  return { organization_id, raw_key, key_id: key.key_id };
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** Undefined if there is none. */
  body: unknown;
  /** Lets what runs after the answer finish. */
  settle(): Promise<void>;
}

export interface Operator {
  operator_key_id: string;
  raw_key: string;
}

/** An operator key, with all permissions unless some are named. */
export async function newOperator({
  permissions = operatorPermissions,
  expires_at = Math.floor(Date.now() / 1000) + 3600,
}: { permissions?: readonly OperatorPermission[]; expires_at?: number } = {}): Promise<Operator> {
  const { raw_key, key } = await createOperatorKey(env.DB, { name: 'Signup service', permissions, expires_at });
  return { raw_key, operator_key_id: key.operator_key_id };
}

interface CallOptions {
  /** Text and bytes are sent as they are, anything else as JSON. */
  body?: unknown;
  /** Sent instead of the caller's own; null leaves a header out. */
  headers?: Record<string, string | null>;
  /** Instead of the pool's own: counted, or made to fail. */
  bindings?: Bindings;
  /** Aborts when the client goes. */
  signal?: AbortSignal | null;
  /** The Worker in another isolate. */
  isolate?: Pick<typeof worker, 'fetch'>;
}

const callers: string[] = [];

function addressOf(id: string): string {
  if (!callers.includes(id)) callers.push(id);
  return `2001:db8:${callers.indexOf(id).toString(16)}::1`;
}

const isRaw = (body: unknown): body is string | Uint8Array<ArrayBuffer> =>
  typeof body === 'string' || body instanceof Uint8Array;

/** Who calls is told by headers. Each calls from a network of its own, lest the tests share the limit on unknown keys. */
function credentialsOf(caller: Client | Operator): Record<string, string> {
  return 'organization_id' in caller
    ? {
        'X-API-Key': caller.raw_key,
        'X-Organization-Id': caller.organization_id,
        'CF-Connecting-IP': addressOf(caller.organization_id),
      }
    : { Authorization: `Bearer ${caller.raw_key}`, 'CF-Connecting-IP': addressOf(caller.operator_key_id) };
}

/** Calls the Worker. The answer is there before what runs after it: `settle` waits for that. */
export async function start(
  caller: Client | Operator,
  method: string,
  path: string,
  { body, headers = {}, bindings = env, signal = null, isolate = worker }: CallOptions = {},
): Promise<Answer> {
  const context = createExecutionContext();
  const sent: Record<string, string | null> = {
    ...credentialsOf(caller),
    ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
    ...headers,
  };
  const request = new Request<unknown, IncomingRequestCfProperties>(`https://patchbay.test${path}`, {
    method,
    headers: Object.entries(sent).flatMap(([name, value]) => (value === null ? [] : [[name, value]])),
    body: body === undefined ? null : isRaw(body) ? body : JSON.stringify(body),
    signal,
  });
  const response = await isolate.fetch(request, bindings, context);
  const text = await response.text();
  const answer = {
    status: response.status,
    headers: response.headers,
    text,
    body: text === '' ? undefined : JSON.parse(text),
  };
  assertDocumented(method, path, answer);
  return { ...answer, settle: () => waitOnExecutionContext(context) };
}

/** Calls the Worker and waits for what runs after the answer. */
export async function call(...parameters: Parameters<typeof start>): Promise<Answer> {
  const answer = await start(...parameters);
  await answer.settle();
  return answer;
}

const createdIntegration = z.object({ data: z.object({ integration_id: z.string() }) });
const importedNumber = z.object({ data: z.object({ phone_number_id: z.string() }) });

export const twilio = {
  provider: 'twilio',
  account_sid: 'AC0123456789abcdef0123456789abcdef',
  auth_token: 'plaintext-auth-token',
  region: 'us1',
};

/** @param query `?verify=false`, so that no provider is asked */
export async function createIntegration(client: Client, credentials: object = twilio, query = ''): Promise<string> {
  const { body } = await call(client, 'POST', `/api/integrations${query}`, {
    body: { name: 'Twilio Production', credentials },
  });
  return createdIntegration.parse(body).data.integration_id;
}

/** No account is asked, so the number is unconfirmed. */
export async function importNumber(client: Client, integration_id: string, phone_number: string): Promise<string> {
  const { body } = await call(client, 'POST', '/api/phone-numbers?verify=false', {
    body: { phone_number, provider: 'twilio', integration_id },
  });
  return importedNumber.parse(body).data.phone_number_id;
}

const listed = z.strictObject({
  success: z.literal(true),
  data: z.array(z.record(z.string(), z.unknown())),
  pagination: z.strictObject({
    next_cursor: z.string().nullable(),
    has_more: z.boolean(),
    page_size: z.number(),
    total_count: z.number(),
    total_count_exact: z.boolean(),
  }),
});

/** One page of a list, by its path and query. */
export async function page(...[caller, path, options]: [Client | Operator, string, CallOptions?]) {
  const { status, text } = await call(caller, 'GET', path, options);
  if (status !== 200) throw new Error(`${status} ${text}`);
  const { data, pagination } = listed.parse(JSON.parse(text));
  return { data, ...pagination };
}

/** Ways for a key to change in D1 while the caches know it as it was, and what its mutations answer from then on. */
export const keyChanges = [
  ['was revoked', `status = 'revoked'`, 401, 'invalid_api_key'],
  ['has expired', 'expires_at = unixepoch() - 60', 401, 'invalid_api_key'],
  ['lost the permission', `role = 'user'`, 403, 'permission_denied'],
] as const;

export const changeKey = ({ key_id }: Client, assignment: string) =>
  env.DB.prepare(`UPDATE api_keys SET ${assignment} WHERE key_id = ?`).bind(key_id).run();

/** The one row of a table with this id of its own. */
export async function rowOf(table: 'integrations' | 'phone_numbers' | 'api_keys', id: string) {
  const isOf = (found: Record<string, unknown>) =>
    Object.entries(found).some(([name, value]) => value === id && name !== 'created_by');
  const row = (await rows(table)).find(isOf);
  if (!row) throw new Error('no row');
  return row;
}

/** The credentials of an integration or a SIP number, as the data key of its row opens them. */
export async function openCredentials(id: string, ring = env.CREDENTIALS_KEKS): Promise<unknown> {
  const row = await rowOf(id.startsWith('phon_') ? 'phone_numbers' : 'integrations', id);
  const text = (column: string) => String(row[column]);
  const kv_key = credentialsKey(text('organization_id'), id, text('credentials_version'));
  const ciphertext = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');
  if (!ciphertext) throw new Error('no ciphertext');
  const wrapped = { data_key: text('data_key'), kek_id: text('kek_id') };
  return open(await parseKekRing(ring), kv_key, wrapped, new Uint8Array(ciphertext));
}

let lastNumber = 10_000_000;

/** A number that no test has used yet. */
export function unusedNumber(): string {
  return `+1415${(lastNumber += 1)}`;
}

/** Puts many numbers on an integration at once, ascending from the first; no call of the API would be quick enough. */
export async function fillNumbers(client: Client, integration_id: string | null, count: number): Promise<string[]> {
  const first = lastNumber + 1;
  lastNumber += count;
  await env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT CAST(?4 AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?4 + ?3)
     INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
       supports_inbound, supports_outbound, media_encryption, created_at, updated_at)
     SELECT 'phon_' || printf('%012x', i), ?1, ?2, '+1415' || i, iif(?2 IS NULL, 'sip', 'twilio'), 'free',
       0, 0, iif(?2 IS NULL, 'allow', NULL), 0, 0 FROM n`,
  )
    .bind(client.organization_id, integration_id, count, first)
    .run();
  return Array.from({ length: count }, (_, index) => `+1415${first + index}`);
}

/** Gives an organization many keys at once, every other one expired; nobody knows them raw. */
export async function fillKeys({ organization_id }: Client, count: number): Promise<void> {
  await env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
     INSERT INTO api_keys (key_id, organization_id, user_id, name, role, key_hash, prefix, status, created_at,
       last_used_at, expires_at)
     SELECT 'apikey_' || lower(hex(randomblob(6))), ?1, 'user_filled', 'Filled', 'user',
       lower(hex(randomblob(32))), 'bk_live_fill', 'active', 0, NULL, iif(i % 2, 1, NULL) FROM n`,
  )
    .bind(organization_id, count)
    .run();
}

export async function rows(table: Table): Promise<Record<string, unknown>[]> {
  const { results } = await env.DB.prepare(`SELECT * FROM ${table}`).all();
  return results;
}

/** In the order of their foreign keys. */
export const tables = [
  'organizations',
  'api_keys',
  'integrations',
  'phone_numbers',
  'webhook_endpoints',
  'webhook_secrets',
  'webhook_deliveries',
  'audit_events',
  'credential_purges',
  'idempotency_keys',
  'key_encryption_keys',
  'operator_keys',
  'operator_idempotency_keys',
] as const;
type Table = (typeof tables)[number];

async function namesIn(namespace: KVNamespace): Promise<string[]> {
  const names: string[] = [];
  let cursor: string | undefined;
  do {
    const found = await namespace.list({ ...(cursor && { cursor }) });
    names.push(...found.keys.map(({ name }) => name));
    cursor = found.list_complete ? undefined : found.cursor;
  } while (cursor);
  return names;
}

async function namespaceContent(namespace: KVNamespace): Promise<Record<string, string>> {
  const entries = (await namesIn(namespace)).map(async (name) => {
    const value = await namespace.get(name, 'arrayBuffer');
    return [name, value ? Array.from(new Uint8Array(value), (byte) => String.fromCharCode(byte)).join('') : ''];
  });
  return Object.fromEntries(await Promise.all(entries));
}

/**
 * Forgets what the tests before have stored: looks at everything stay quick. (The keys that wrap data keys stay, and so
 * does what the isolate remembers.)
 */
export async function emptyStorage(): Promise<void> {
  const inOrderOfReferences = tables.filter((table) => table !== 'key_encryption_keys').toReversed();
  await env.DB.batch(inOrderOfReferences.map((table) => env.DB.prepare(`DELETE FROM ${table}`)));
  for (const namespace of [env.KEY_CACHE, env.CREDENTIALS]) {
    await Promise.all((await namesIn(namespace)).map((name) => namespace.delete(name)));
  }
}

/** Everything that is stored, in D1 and in both KV namespaces. */
export async function everythingStored() {
  return {
    d1: Object.fromEntries(await Promise.all(tables.map(async (table) => [table, await rows(table)] as const))),
    KEY_CACHE: await namespaceContent(env.KEY_CACHE),
    CREDENTIALS: await namespaceContent(env.CREDENTIALS),
  };
}

/** Everything but the key cache, whose entries end by themselves after a minute. */
export async function everythingKept() {
  const { d1, CREDENTIALS } = await everythingStored();
  return { d1, CREDENTIALS };
}

/**
 * What a refusal must leave as it was: the resources in D1, their ciphertext, and the outbox. (A caller's `last_used_at`,
 * the key cache and audit events may change.)
 */
export async function resources() {
  return {
    integrations: await rows('integrations'),
    phone_numbers: await rows('phone_numbers'),
    credential_purges: await rows('credential_purges'),
    CREDENTIALS: await namespaceContent(env.CREDENTIALS),
  };
}

/** The audit events of a target, oldest first: their actions. */
export async function actionsOn(target_id: string): Promise<unknown[]> {
  const { results } = await env.DB.prepare('SELECT action FROM audit_events WHERE target_id = ? ORDER BY sequence')
    .bind(target_id)
    .all();
  return results.map(({ action }) => action);
}

/** The audit events of a target, oldest first, their states as objects. */
export async function eventsOn(target_id: string): Promise<{ action: unknown; state: unknown }[]> {
  const { results } = await env.DB.prepare('SELECT * FROM audit_events WHERE target_id = ? ORDER BY sequence')
    .bind(target_id)
    .all();
  return results.map((event) => ({ ...event, action: event['action'], state: JSON.parse(String(event['state'])) }));
}
