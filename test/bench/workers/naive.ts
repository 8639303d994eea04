/**
 * The delete and the get as they are usually written: each question a call of its own, one after the other, built by
 * Drizzle for every request, and all of it before the answer. (Two such deletes and an import can interleave: it is slower
 * and keeps the rule less well.)
 */
import { and, eq } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/d1';
import { Hono } from 'hono';
import { createMiddleware } from 'hono/factory';
import { hashKey } from '../../../src/worker/callers/raw-key.ts';
import { api_keys, audit_events, integrations, organizations, phone_numbers } from '../../../src/worker/d1/schema.ts';
import type { Bindings } from '../../../src/worker/env.ts';
import { presentIntegration } from '../../../src/worker/integrations/integration.ts';
import { modelled } from './model.ts';

type NaiveEnv = { Bindings: Bindings; Variables: { key_id: string; organization_id: string } };

const authenticate = createMiddleware<NaiveEnv>(async (c, next) => {
  const db = drizzle(c.env.DB);
  const key_hash = await hashKey(c.req.header('X-API-Key') ?? '');
  const key = await db.select().from(api_keys).where(eq(api_keys.key_hash, key_hash)).get();
  if (key?.status !== 'active') return c.json({ detail: 'Invalid API key' }, 401);
  const organization = await db
    .select()
    .from(organizations)
    .where(eq(organizations.organization_id, key.organization_id))
    .get();
  if (organization?.status !== 'active' || c.req.header('X-Organization-Id') !== organization.organization_id) {
    return c.json({ detail: 'Organization mismatch' }, 403);
  }
  const { success } = await c.env.ENTERPRISE_LIMIT.limit({ key: organization.organization_id });
  if (!success) return c.json({ detail: 'Too many requests' }, 429);
  c.set('key_id', key.key_id);
  c.set('organization_id', organization.organization_id);
  await next();
});

const isIntegration = (organization_id: string, integration_id: string) =>
  and(eq(integrations.organization_id, organization_id), eq(integrations.integration_id, integration_id));

const app = new Hono<NaiveEnv>()
  .use(authenticate)
  .get('/api/integrations/:integration_id', async (c) => {
    const found = await drizzle(c.env.DB)
      .select()
      .from(integrations)
      .where(isIntegration(c.get('organization_id'), c.req.param('integration_id')))
      .get();
    if (!found) return c.json({ detail: 'Integration not found' }, 404);
    return c.json({ success: true, data: presentIntegration(found) });
  })
  .delete('/api/integrations/:integration_id', async (c) => {
    const db = drizzle(c.env.DB);
    const { organization_id, key_id } = c.var;
    const integration_id = c.req.param('integration_id');

    const found = await db.select().from(integrations).where(isIntegration(organization_id, integration_id)).get();
    if (!found) return c.json({ detail: 'Integration not found' }, 404);
    const references = await db
      .select({ phone_number: phone_numbers.phone_number })
      .from(phone_numbers)
      .where(and(eq(phone_numbers.organization_id, organization_id), eq(phone_numbers.integration_id, integration_id)))
      .limit(100);
    if (references.length > 0) return c.json({ detail: 'Integration is still referenced', references }, 409);
    await db.delete(integrations).where(isIntegration(organization_id, integration_id));
    await db.insert(audit_events).values({
      organization_id,
      event_id: crypto.randomUUID(),
      action: 'integration.deleted',
      target_id: integration_id,
      actor_key_id: key_id,
      request_id: crypto.randomUUID(),
      state: JSON.stringify(found),
      created_at: Math.floor(Date.now() / 1000),
    });
    await c.env.CREDENTIALS.delete(`v1/${organization_id}/${integration_id}/${found.credentials_version}`);
    return c.json({ success: true, message: 'Integration deleted successfully', data: presentIntegration(found) });
  });

export default modelled(app.fetch);
