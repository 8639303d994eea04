/** One API key, read and renamed. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import type { Role } from '../../src/worker/core/vocabulary.ts';
import { interceptedBindings } from '../bindings.ts';
import { call, changeKey, eventsOn, everythingKept, keyChanges, newClient, page, rowOf, rows } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;
let other: Client;

const colleague = (role: Role) => newClient({ organization_id: client.organization_id, role });

beforeEach(async () => {
  client = await newClient();
  other = await colleague('agent_manager');
  await call(client, 'GET', '/api/nothing');
});

const pathOf = ({ key_id }: { key_id: string }) => `/api/api-keys/${key_id}`;
const read = (of: { key_id: string } = other, by = client) => call(by, 'GET', pathOf(of));
const rename = (name: unknown = 'Billing', of: { key_id: string } = other, by = client, bindings = env) =>
  call(by, 'PUT', pathOf(of), { body: { name }, bindings });

const NO_KEY = { key_id: 'apikey_000000000000' };
const keyRow = (of = other) => rowOf('api_keys', of.key_id);

describe('an API key', () => {
  it('is read as the list shows it', async () => {
    const { status, body } = await read();

    const { data } = await page(client, '/api/api-keys');
    expect(status).toBe(200);
    expect(body).toEqual({ success: true, data: data.find(({ key_id }) => key_id === other.key_id) });
  });

  it('is read without its hash, dead or alive', async () => {
    await call(client, 'DELETE', pathOf(other));

    const { text, body } = await read();

    expect(body).toMatchObject({ data: { key_id: other.key_id, status: 'revoked' } });
    expect(text).not.toContain('hash');
    expect(text).not.toContain(String((await keyRow())['key_hash']));
  });

  it('of another organization is read as one that does not exist', async () => {
    const missing = await read(NO_KEY);
    const foreign = await read(await newClient());

    expect(missing).toMatchObject({ status: 404, body: { code: 'api_key_not_found' } });
    const told = ({ body }: typeof missing) => ({ ...Object(body), request_id: null });
    expect([foreign.status, told(foreign)]).toEqual([404, told(missing)]);
  });
});

describe('a new name', () => {
  it('is answered, read, and stored, and changes nothing else', async () => {
    const before = await keyRow();

    const { status, body } = await rename('Billing, Europe');

    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      message: 'API key updated successfully',
      data: expect.objectContaining({ key_id: other.key_id, name: 'Billing, Europe', role: 'agent_manager' }),
    });
    expect((await read()).body).toMatchObject({ data: Object(body).data });
    expect(await keyRow()).toEqual({ ...before, name: 'Billing, Europe', revision: 2 });
  });

  it('leaves an event with the state before it, who did it, and what changed', async () => {
    await rename('Billing');

    expect((await eventsOn(other.key_id)).at(-1)).toMatchObject({ state: { name: 'Test', revision: 1 } });
    const { data } = await page(client, `/api/audit-events?action=api_key.updated`);
    expect(data).toMatchObject([
      {
        target_id: other.key_id,
        actor_key_id: client.key_id,
        state: { key_id: other.key_id, name: 'Test' },
        changes: { name: { from: 'Test', to: 'Billing' } },
      },
    ]);
    expect(JSON.stringify(data)).not.toContain('hash');
  });

  it('may be that of a revoked key, of an expired one, and of one’s own', async () => {
    const expired = await colleague('user');
    await changeKey(expired, 'expires_at = unixepoch() - 60');
    await call(client, 'DELETE', pathOf(other));

    for (const key of [other, expired, client]) {
      expect((await rename('Renamed', key)).status).toBe(200);
      expect(await keyRow(key)).toMatchObject({ name: 'Renamed' });
    }
    expect(await keyRow()).toMatchObject({ status: 'revoked' });
  });

  it('is that of the actor in the events of the renamed key, at once in this isolate', async () => {
    await call(other, 'GET', '/api/nothing');
    await rename('Renamed');

    await call(other, 'POST', '/api/api-keys', { body: { name: 'Made', role: 'user' } });

    const { data } = await page(client, `/api/audit-events?actor_key_id=${other.key_id}`);
    expect(data).toMatchObject([{ action: 'api_key.created', actor: { name: 'Renamed' } }]);
    expect(await env.KEY_CACHE.get(await hashKey(other.raw_key), 'json')).toMatchObject({ name: 'Renamed' });
  });

  it('is answered again under its Idempotency-Key, whatever the name is by then', async () => {
    const headers = { 'Idempotency-Key': crypto.randomUUID() };
    const first = await call(client, 'PUT', pathOf(other), { body: { name: 'First' }, headers });
    await rename('Second');

    const again = await call(client, 'PUT', pathOf(other), { body: { name: 'First' }, headers });

    expect(again.body).toEqual(first.body);
    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
    expect(await keyRow()).toMatchObject({ name: 'Second', revision: 3 });
  });

  it('stays where a late try of the name before lands behind it', async () => {
    let land = async (): Promise<unknown> => undefined;
    const bindings = interceptedBindings((name, carryOut, { statements }) => {
      if (name === 'DB.batch' && statements.some(({ sql }) => sql.startsWith('update "api_keys" set "name"'))) {
        land = carryOut;
      }
      return carryOut();
    });
    expect((await rename('First', other, client, bindings)).status).toBe(200);
    await rename('Second');
    const before = await everythingKept();

    await land();

    expect(await everythingKept()).toEqual(before);
  });
});

describe('a new name is refused, and nothing changes,', () => {
  const stored = async () => ({
    keys: (await rows('api_keys')).map((row) => ({ ...row, last_used_at: null })),
    events: await rows('audit_events'),
  });

  /** Its answer, and what is stored before and after it. */
  async function tried(act: () => ReturnType<typeof call>) {
    const before = await stored();
    const { status, body } = await act();
    return { answer: { status, body }, before, after: await stored() };
  }

  it('for a key of a higher role than the caller’s', async () => {
    const { answer, before, after } = await tried(() => rename('Renamed', client, other));

    expect(answer).toMatchObject({
      status: 403,
      body: {
        code: 'permission_denied',
        required_permission: 'api_keys:update',
        exceeds: 'role',
        detail: 'An API key cannot create, rename, rotate or revoke a key that has a higher role than its own.',
      },
    });
    expect(after).toEqual(before);
  });

  it('for a caller of the role user', async () => {
    const user = await colleague('user');

    const { answer, before, after } = await tried(() => rename('Renamed', user, user));

    expect(answer).toMatchObject({
      status: 403,
      body: { code: 'permission_denied', required_permission: 'api_keys:update' },
    });
    expect(after).toEqual(before);
  });

  it.each(keyChanges)('by a caller whose key %s', async (_, assignment, status, code) => {
    await changeKey(client, assignment);

    const { answer, before, after } = await tried(() => rename());

    expect(answer).toMatchObject({ status, body: { code } });
    expect(after).toEqual(before);
  });

  it('for a key of another organization, as for one that does not exist', async () => {
    const stranger = await newClient();

    for (const key of [stranger, NO_KEY]) {
      const { answer, before, after } = await tried(() => rename('Renamed', key));
      expect(answer).toMatchObject({ status: 404, body: { code: 'api_key_not_found' } });
      expect(after).toEqual(before);
    }
  });

  it('where the organization has no room for its event', async () => {
    await env.DB.prepare('UPDATE organizations SET max_audit_events = audit_event_count WHERE organization_id = ?')
      .bind(client.organization_id)
      .run();

    const { answer, before, after } = await tried(() => rename());

    expect(answer).toMatchObject({ status: 409, body: { code: 'quota_exceeded', quota: 'audit_events' } });
    expect(after).toEqual(before);
  });

  it.each([
    ['without a name', {}, 'name'],
    ['with null', { name: null }, 'name'],
    ['with an empty name', { name: '' }, 'name'],
    ['with a name that cannot be seen', { name: '\u2800' }, 'name'],
    ['with another field', { name: 'Billing', role: 'admin' }, 'role'],
  ])('%s', async (_, body, path) => {
    const { answer, before, after } = await tried(() => call(client, 'PUT', pathOf(other), { body }));

    expect(answer).toMatchObject({ status: 422, body: { code: 'validation_failed', errors: [{ path }] } });
    expect(after).toEqual(before);
  });
});
