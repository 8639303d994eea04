import { env } from 'cloudflare:workers';
import { getTableColumns, getTableName } from 'drizzle-orm';
import type { SQLiteTable } from 'drizzle-orm/sqlite-core';
import { describe, expect, it } from 'vitest';
import {
  api_keys,
  audit_events,
  credential_purges,
  heartbeats,
  idempotency_keys,
  integrations,
  key_encryption_keys,
  operator_idempotency_keys,
  operator_keys,
  organizations,
  phone_numbers,
  webhook_deliveries,
  webhook_endpoints,
  webhook_secrets,
} from '../../src/worker/d1/schema.ts';
import { createIntegration, importNumber, newClient, unusedNumber } from '../fixtures.ts';
import { deadDelivery } from '../mutations.ts';

const tables: SQLiteTable[] = [
  organizations,
  api_keys,
  integrations,
  phone_numbers,
  audit_events,
  credential_purges,
  key_encryption_keys,
  idempotency_keys,
  operator_keys,
  operator_idempotency_keys,
  heartbeats,
  webhook_endpoints,
  webhook_secrets,
  webhook_deliveries,
];
const named = tables.map((table) => [getTableName(table), table] as const);

describe('the migrations', () => {
  it('make the tables of the schema and no other', async () => {
    const { results } = await env.DB.prepare(
      `SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
         AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\' AND name <> 'd1_migrations'`,
    ).all();

    expect(new Set(results.map(({ name }) => name))).toEqual(new Set(named.map(([name]) => name)));
  });

  it.each(named)(
    'make %s STRICT and WITHOUT ROWID, with the columns of the schema in their order',
    async (name, table) => {
      const list = await env.DB.prepare('SELECT strict, wr FROM pragma_table_list WHERE name = ?').bind(name).first();
      const { results } = await env.DB.prepare('SELECT name, type, "notnull" FROM pragma_table_info(?)')
        .bind(name)
        .all();

      expect(list).toEqual({ strict: 1, wr: 1 });
      expect(results).toEqual(
        Object.values(getTableColumns(table)).map((column) => ({
          name: column.name,
          type: column.getSQLType().toUpperCase(),
          notnull: Number(column.notNull),
        })),
      );
    },
  );

  it('restrict every deletion of a referenced row, and cascade none', async () => {
    const actions = await Promise.all(
      named.map(([name]) => env.DB.prepare('SELECT on_delete FROM pragma_foreign_key_list(?)').bind(name).all()),
    );

    const all = actions.flatMap(({ results }) => results.map(({ on_delete }) => on_delete));
    expect(all.length).toBeGreaterThan(0);
    expect(new Set(all)).toEqual(new Set(['RESTRICT']));
  });

  it('never switch foreign keys off, and never cascade', () => {
    const text = env.MIGRATIONS.flatMap(({ queries }) => queries).join('\n');

    expect(text).not.toMatch(/foreign_keys\s*=\s*(off|0|false)|on delete cascade/i);
  });
});

describe('the database itself', () => {
  const run = (sql: string, ...values: unknown[]) =>
    env.DB.prepare(sql)
      .bind(...values)
      .run();

  it('refuses a phone number that points into another organization', async () => {
    const [owner, stranger] = [await newClient(), await newClient()];
    const phone_number_id = await importNumber(owner, await createIntegration(owner), unusedNumber());

    await expect(
      run(
        'UPDATE phone_numbers SET organization_id = ? WHERE phone_number_id = ?',
        stranger.organization_id,
        phone_number_id,
      ),
    ).rejects.toThrow('FOREIGN KEY constraint failed');
  });

  it('refuses to delete an integration that a phone number references', async () => {
    const client = await newClient();
    const integration_id = await createIntegration(client);
    await importNumber(client, integration_id, unusedNumber());

    await expect(run('DELETE FROM integrations WHERE integration_id = ?', integration_id)).rejects.toThrow(
      'FOREIGN KEY constraint failed',
    );
  });

  it('deletes what belongs to a webhook endpoint with it, and nothing of another', async () => {
    const client = await newClient();
    const [gone, kept] = [await deadDelivery(client), await deadDelivery(client)].map((path) => path.split('/')[3]);

    await run('DELETE FROM webhook_endpoints WHERE endpoint_id = ?', gone);

    for (const table of ['webhook_endpoints', 'webhook_secrets', 'webhook_deliveries']) {
      const { results } = await env.DB.prepare(`SELECT endpoint_id FROM ${table} WHERE organization_id = ?`)
        .bind(client.organization_id)
        .all();
      expect(results).toEqual([{ endpoint_id: kept }]);
    }
  });

  it.each(['webhook_secrets', 'webhook_deliveries'])(
    'refuses a row of %s that points into another organization',
    async (table) => {
      const stranger = await newClient();
      const [, , , endpoint_id] = (await deadDelivery(await newClient())).split('/');

      await expect(
        run(`UPDATE ${table} SET organization_id = ? WHERE endpoint_id = ?`, stranger.organization_id, endpoint_id),
      ).rejects.toThrow('FOREIGN KEY constraint failed');
    },
  );

  it.each([
    ['phone_number', '14155550100'],
    ['phone_number', '+04155550100'],
    ['phone_number', '+141555'],
    ['phone_number', '+1415555010012345'],
    ['phone_number', '+1415555O100'],
    ['status', 'assigned'],
    ['media_encryption', 'never'],
    ['integration_id', null],
    ['data_key', 'without a version'],
  ])('refuses a phone number whose %s is %j', async (column, value) => {
    const client = await newClient();
    const phone_number_id = await importNumber(client, await createIntegration(client), unusedNumber());

    await expect(
      run(`UPDATE phone_numbers SET ${column} = ? WHERE phone_number_id = ?`, value, phone_number_id),
    ).rejects.toThrow('CHECK constraint failed');
  });

  it.each(['org', 'org_', 'acme', 'org_a b', `org_${'a'.repeat(41)}`])('refuses an organization id %j', async (id) => {
    await expect(
      run(`INSERT INTO organizations (organization_id, tier, created_at) VALUES (?, 'starter', 0)`, id),
    ).rejects.toThrow('CHECK constraint failed');
  });
});
