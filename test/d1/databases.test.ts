import { env } from 'cloudflare:workers';
import { applyD1Migrations } from 'cloudflare:test';
import { beforeEach, describe, expect, it } from 'vitest';
import { createOperatorKey } from '../../src/operator/api-keys/create.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { forgetKey } from '../../src/worker/callers/key-cache.ts';
import { databaseOf, databases } from '../../src/worker/d1/databases.ts';
import type { Bindings } from '../../src/worker/env.ts';
import worker from '../../src/worker/index.ts';
import { call } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const ORGANIZATIONS = Array.from({ length: 4000 }, (_, index) => `org_${index}`);

const spreadOver = (...names: string[]): Bindings => ({
  ...env,
  // What is placed is told by the object alone.
  ...Object.fromEntries(names.map((name) => [name, name === 'DB' ? env.DB : { name, withSession: null }])),
  DATABASES: names.join(', '),
});

describe('the database of an organization', () => {
  it('is DB, unless more are configured', () => {
    expect(env.DATABASES).toBe('DB');
    expect(databaseOf(env, 'org_a')).toBe(env.DB);
    expect(databases(env)).toEqual([env.DB]);
  });

  it('is the same one each time, whatever the order in which they are configured', () => {
    const [one, other] = [spreadOver('DB', 'DB_1', 'DB_2'), spreadOver('DB_2', 'DB', 'DB_1')];

    for (const organization_id of ORGANIZATIONS.slice(0, 100)) {
      expect(databaseOf(one, organization_id)).toEqual(databaseOf(other, organization_id));
    }
  });

  it('is each one for its share of the organizations', () => {
    const bindings = spreadOver('DB', 'DB_1', 'DB_2', 'DB_3');
    const counts = databases(bindings).map(
      (database) => ORGANIZATIONS.filter((id) => databaseOf(bindings, id) === database).length,
    );

    expect(Math.min(...counts)).toBeGreaterThan(900);
    expect(Math.max(...counts)).toBeLessThan(1100);
  });

  it('changes to a database that is added or not at all', () => {
    const before = spreadOver('DB', 'DB_1', 'DB_2');
    const after = { ...before, ...spreadOver('DB', 'DB_1', 'DB_2', 'DB_3'), DB_1: Reflect.get(before, 'DB_1') };
    const moved = ORGANIZATIONS.filter(
      (id) => JSON.stringify(databaseOf(before, id)) !== JSON.stringify(databaseOf(after, id)),
    );

    expect(moved.length).toBeGreaterThan(900);
    expect(moved.length).toBeLessThan(1100);
    expect(moved.map((id) => databaseOf(after, id))).toEqual(moved.map(() => ({ name: 'DB_3', withSession: null })));
  });

  it('is an error where it is no database that is bound', () => {
    expect(() => databases({ ...env, DATABASES: 'KEY_CACHE' })).toThrow(/which is no D1 binding$/);
    expect(() => databases({ ...env, DATABASES: 'DB,DB_9' })).toThrow('DATABASES names DB_9, which is no D1 binding');
  });
});

describe('an organization in a database of its own', () => {
  let bindings: Bindings;
  let second: D1Database;
  let client: Client;
  let neighbour: Client;

  /** An organization that is placed there, and its key. */
  async function clientIn(database: D1Database): Promise<Client> {
    const organization_id =
      ORGANIZATIONS.map((id) => `${id}_${crypto.randomUUID().slice(0, 8)}`).find(
        (id) => databaseOf(bindings, id) === database,
      ) ?? '';
    const made = { organization_id, role: 'admin', tier: 'pro', name: 'Test', expires_at: null } as const;
    const { raw_key, key } = await createOperatorKey(database, made);
    return { organization_id, raw_key, key_id: key.key_id };
  }

  beforeEach(async () => {
    second = env.DB_1;
    await applyD1Migrations(second, env.MIGRATIONS);
    bindings = { ...env, DATABASES: 'DB,DB_1' };
    client = await clientIn(second);
    neighbour = await clientIn(env.DB);
  });

  const countIn = (database: D1Database, table: string) =>
    database
      .prepare(`SELECT count(*) AS count FROM ${table} WHERE organization_id = ?`)
      .bind(client.organization_id)
      .first('count');

  it('has all its rows there, and none in another', async () => {
    const body = { name: 'x', credentials: { provider: 'telnyx', api_key: 'k' } };
    const { status } = await call(client, 'POST', '/api/integrations', { body, bindings });

    expect(status).toBe(201);
    for (const [table, count] of Object.entries({ integrations: 1, audit_events: 2, api_keys: 1 })) {
      expect(await countIn(second, table)).toBe(count);
      expect(await countIn(env.DB, table)).toBe(0);
    }
    const listed = await call(client, 'GET', '/api/integrations', { bindings });
    expect(listed.body).toMatchObject({ data: [{ name: 'x' }] });
  });

  it('is found by its key in that database, and by another’s header in whichever it is', async () => {
    const asked: string[] = [];
    const observed = (name: 'DB' | 'DB_1') =>
      new Proxy(env[name], {
        get(database, method) {
          if (method === 'batch') asked.push(name);
          return Reflect.get(database, method).bind(database);
        },
      });
    const watched = { ...bindings, DB: observed('DB'), DB_1: observed('DB_1') };
    expect((await call(client, 'GET', '/api/integrations', { bindings: watched })).status).toBe(200);
    // Asked for the key, and after the answer told of its use.
    expect(asked).toEqual(['DB_1', 'DB_1']);

    for (const organization of [neighbour.organization_id, 'none', null]) {
      forgetKey(hashKey(client.raw_key));
      await env.KEY_CACHE.delete(hashKey(client.raw_key));
      const { body } = await call(client, 'GET', '/api/integrations', {
        headers: { 'X-Organization-Id': organization },
        bindings,
      });
      expect(body).toMatchObject({
        code: organization?.startsWith('org_') ? 'organization_mismatch' : 'missing_organization_id',
      });
    }
  });

  it('is not taken for what another database has of it', async () => {
    const name = 'Copy';
    const { organization_id } = client;
    const { raw_key } = await createOperatorKey(env.DB, {
      organization_id,
      role: 'admin',
      tier: 'pro',
      name,
      expires_at: null,
    });

    const { status } = await call({ ...client, raw_key }, 'GET', '/api/integrations', { bindings });

    expect(status).toBe(401);
  });

  it('is served by the cron as the others are', async () => {
    const garbage = [second, env.DB].map((database) =>
      database
        .prepare(
          `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at) VALUES (?, ?, 0, 0, 0)`,
        )
        .bind(`v1/${client.organization_id}/x/y`, client.organization_id)
        .run(),
    );
    await Promise.all(garbage);

    await worker.scheduled({ scheduledTime: 0, cron: '', noRetry() {} }, bindings);

    expect(await countIn(second, 'credential_purges')).toBe(0);
    expect(await countIn(env.DB, 'credential_purges')).toBe(0);
  });
});
