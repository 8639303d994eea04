/**
 * What could be done at best: the same authentication, the same batch and the same answer, written by hand for these two
 * calls alone, in raw SQL and without validation, errors and logs.
 */
import { Hono } from 'hono';
import * as z from 'zod';
import { hashKey } from '../../../src/worker/callers/raw-key.ts';
import type { Bindings } from '../../../src/worker/env.ts';
import { modelled } from './model.ts';

const IS_ALIVE = `api_keys.status = 'active' AND (api_keys.expires_at IS NULL OR api_keys.expires_at > ?3)
  AND EXISTS (SELECT 1 FROM organizations WHERE organization_id = api_keys.organization_id AND status = 'active')`;

const FIND_KEY = `SELECT key_id, organization_id FROM api_keys WHERE key_hash = ?1 AND ?2 IS NULL AND ${IS_ALIVE}`;

const RECORD_DECISION = `INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id, state, created_at, sequence)
  SELECT ?1, ?4, iif(EXISTS (SELECT 1 FROM phone_numbers WHERE organization_id = ?1 AND integration_id = ?5),
      'integration.delete_refused', 'integration.deleted'), integration_id, ?2, ?6,
    json_object('organization_id', organization_id, 'integration_id', integration_id, 'name', name, 'provider', provider,
      'category', category, 'status', status, 'credentials_version', credentials_version, 'created_at', created_at,
      'updated_at', updated_at, 'revision', revision), max(?3, newest_at), newest_sequence + 1
  FROM integrations CROSS JOIN (SELECT last_sequence AS newest_sequence, last_event_at AS newest_at FROM organizations
    WHERE organization_id = ?1)
  WHERE organization_id = ?1 AND integration_id = ?5 AND EXISTS (SELECT 1 FROM api_keys
    WHERE key_id = ?2 AND organization_id = ?1 AND role IN ('admin', 'agent_manager') AND ${IS_ALIVE})
  ON CONFLICT DO NOTHING`;
const ENQUEUE_PURGE = `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at)
  SELECT 'v1/' || organization_id || '/' || target_id || '/' || json_extract(state, '$.credentials_version'),
    organization_id, ?3, 0, ?3
  FROM audit_events WHERE organization_id = ?1 AND event_id = ?2 AND action = 'integration.deleted' ON CONFLICT DO NOTHING`;
const REMOVE = `DELETE FROM integrations WHERE organization_id = ?1 AND integration_id = ?2 AND EXISTS
  (SELECT 1 FROM audit_events WHERE organization_id = ?1 AND event_id = ?3 AND action = 'integration.deleted')`;
const REFERENCES = `SELECT phone_number_id, phone_number, (SELECT count(*) FROM
    (SELECT 1 FROM phone_numbers WHERE organization_id = ?1 AND integration_id = ?2 LIMIT 1001)) AS reference_count
  FROM phone_numbers WHERE organization_id = ?1 AND integration_id = ?2 ORDER BY phone_number LIMIT 100`;
const CALLER = `SELECT role, expires_at FROM api_keys WHERE key_id = ?2 AND organization_id = ?1 AND ${IS_ALIVE}`;
const EVENT = 'SELECT action, state, created_at FROM audit_events WHERE organization_id = ?1 AND event_id = ?2';
const FORGET_PURGE = 'DELETE FROM credential_purges WHERE kv_key = ?1 AND attempts = 0';

const GET = `SELECT integration_id, organization_id, name, provider, category, status, created_at, updated_at
  FROM integrations WHERE organization_id = ?1 AND integration_id = ?2`;

const foundKey = z.object({ key_id: z.string(), organization_id: z.string() });

const callers = new Map<string, z.output<typeof foundKey>>();

const headers = {
  'Content-Type': 'application/json',
  'Cache-Control': 'no-store',
  'Strict-Transport-Security': 'max-age=15552000; includeSubDomains',
  'X-Content-Type-Options': 'nosniff',
};

async function authenticate(env: Bindings, request: Request) {
  const key_hash = await hashKey(request.headers.get('X-API-Key') ?? '');
  let caller = callers.get(key_hash);
  if (!caller) {
    const now = Math.floor(Date.now() / 1000);
    caller = foundKey.parse(await env.DB.prepare(FIND_KEY).bind(key_hash, null, now).first());
    callers.set(key_hash, caller);
  }
  const { success } = await env.ENTERPRISE_LIMIT.limit({ key: caller.organization_id });
  if (!success || request.headers.get('X-Organization-Id') !== caller.organization_id) throw new Error('refused');
  return caller;
}

const present = ({ organization_id, created_at, updated_at, ...row }: Record<string, unknown>) => ({
  integration_id: row['integration_id'],
  client_id: organization_id,
  name: row['name'],
  provider: row['provider'],
  category: row['category'],
  status: row['status'],
  created_at: new Date(Number(created_at) * 1000).toISOString().replace('.000Z', 'Z'),
  updated_at: new Date(Number(updated_at) * 1000).toISOString().replace('.000Z', 'Z'),
});

async function purge(env: Bindings, kv_key: string): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
  await env.CREDENTIALS.delete(kv_key);
  await env.DB.batch([env.DB.prepare(FORGET_PURGE).bind(kv_key)]);
}

const app = new Hono<{ Bindings: Bindings }>()
  .get('/api/integrations/:id', async (c) => {
    const { organization_id } = await authenticate(c.env, c.req.raw);
    const [found] = await c.env.DB.batch<Record<string, unknown>>([
      c.env.DB.prepare(GET).bind(organization_id, c.req.param('id')),
    ]);
    const [row] = found?.results ?? [];
    if (!row) return c.notFound();
    return new Response(JSON.stringify({ success: true, data: present(row) }), {
      headers: { ...headers, 'X-Request-Id': crypto.randomUUID() },
    });
  })
  .delete('/api/integrations/:id', async (c) => {
    const { DB } = c.env;
    const { organization_id, key_id } = await authenticate(c.env, c.req.raw);
    const id = c.req.param('id');
    const now = Math.floor(Date.now() / 1000);
    const event_id = crypto.randomUUID();
    const request_id = crypto.randomUUID();
    const results = await DB.batch<Record<string, unknown>>([
      DB.prepare(RECORD_DECISION).bind(organization_id, key_id, now, event_id, id, request_id),
      DB.prepare(ENQUEUE_PURGE).bind(organization_id, event_id, now),
      DB.prepare(REMOVE).bind(organization_id, id, event_id),
      DB.prepare(REFERENCES).bind(organization_id, id),
      DB.prepare(CALLER).bind(organization_id, key_id, now),
      DB.prepare(EVENT).bind(organization_id, event_id),
    ]);
    const [event] = results[5]?.results ?? [];
    if (event?.['action'] !== 'integration.deleted') return c.notFound();
    const state: Record<string, unknown> = JSON.parse(String(event['state']));
    c.executionCtx.waitUntil(purge(c.env, `v1/${organization_id}/${id}/${String(state['credentials_version'])}`));
    const body = { success: true, message: 'Integration deleted successfully', data: present(state) };
    return new Response(JSON.stringify(body), { headers: { ...headers, 'X-Request-Id': request_id } });
  });

export default modelled(app.fetch);
