import { env } from 'cloudflare:workers';
import { eq, sql } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import { DomainError } from '../../src/worker/core/errors.ts';
import { batch, isForeignKeyViolation } from '../../src/worker/d1/batch.ts';
import { query } from '../../src/worker/d1/query.ts';
import type { Placeholders } from '../../src/worker/d1/query.ts';
import { organizations, phone_numbers } from '../../src/worker/d1/schema.ts';
import { failingBindings } from '../bindings.ts';
import { createIntegration, importNumber, newClient, unusedNumber } from '../fixtures.ts';

const insertOrganization = query(
  (db, { organization_id, tier, created_at }: Placeholders<typeof organizations.$inferInsert>) =>
    db.insert(organizations).values({ organization_id, tier, created_at }),
);
const readOrganization = query((db, { organization_id }: Placeholders<{ organization_id: string }>) =>
  db.select().from(organizations).where(eq(organizations.organization_id, organization_id)),
);

describe('a compiled query', () => {
  it('is built once, however often it is bound', () => {
    let builds = 0;
    const counted = query((db, { organization_id }: Placeholders<{ organization_id: string }>) => {
      builds += 1;
      return db.select().from(organizations).where(eq(organizations.organization_id, organization_id));
    });

    expect(counted.bind({ organization_id: 'org_a' }).parameters).toEqual(['org_a']);
    expect(counted.bind({ organization_id: 'org_b' }).parameters).toEqual(['org_b']);
    expect(builds).toBe(1);
  });

  it('gives back what the builder’s types promise: nulls, numbers, flags as 0 and 1', async () => {
    const client = await newClient();
    const phone_number_id = await importNumber(client, await createIntegration(client), unusedNumber());
    const read = query((db, parameters: Placeholders<{ id: string }>) =>
      db.select().from(phone_numbers).where(eq(phone_numbers.phone_number_id, parameters.id)),
    );

    const [[row]] = await batch(env.DB, [read.bind({ id: phone_number_id })]);

    expect(row).toMatchObject({
      supports_inbound: 0,
      supports_outbound: 0,
      sip_username: null,
      created_at: expect.any(Number),
    });
  });

  it('takes a list as one parameter', async () => {
    const listed = query((db, { ids }: Placeholders<{ ids: string }>) =>
      db
        .select({ organization_id: organizations.organization_id })
        .from(organizations)
        .where(sql`${organizations.organization_id} IN (SELECT value FROM json_each(${ids}))`),
    );
    const [one, two] = [await newClient(), await newClient()];
    const ids = [one.organization_id, two.organization_id];

    const [rows] = await batch(env.DB, [listed.bind({ ids: JSON.stringify(ids) })]);

    expect(rows.map(({ organization_id }) => organization_id).toSorted()).toEqual(ids.toSorted());
  });
});

describe('a batch', () => {
  const organization = { organization_id: 'org_batch', tier: 'pro', created_at: 1, status: 'active' } as const;

  it('is one transaction: where a statement fails, none of it happened, and the error comes as it is', async () => {
    const violating = batch(env.DB, [insertOrganization.bind(organization), insertOrganization.bind(organization)]);

    await expect(violating).rejects.toThrow(/UNIQUE constraint failed.*SQLITE_CONSTRAINT/);
    const [rows] = await batch(env.DB, [readOrganization.bind(organization)]);
    expect(rows).toEqual([]);
  });

  it('tells a violated foreign key from other errors', async () => {
    const orphan = env.DB.prepare(
      `INSERT INTO api_keys (key_id, organization_id, user_id, name, role, key_hash, prefix, status, created_at)
       VALUES ('apikey_0', 'org_nobody', 'user_0', 'n', 'admin', 'h', 'p', 'active', 0)`,
    );

    const error: unknown = await env.DB.batch([orphan]).catch((thrown: unknown) => thrown);

    expect(isForeignKeyViolation(error)).toBe(true);
    expect(isForeignKeyViolation(new Error('UNIQUE constraint failed'))).toBe(false);
  });

  it.each([
    ['D1_ERROR: Network connection lost.', 3, 'unknown'],
    ['D1_ERROR: D1 DB reset because its code was updated.', 3, 'unknown'],
    ['an error that nobody has seen yet', 3, 'unknown'],
    ['D1_ERROR: D1 DB is overloaded. Too many requests queued.', 2, 'not_done'],
    ['D1_ERROR: Cannot resolve D1 DB due to transient issue on remote node.', 3, 'not_done'],
    ['D1_ERROR: database is locked: SQLITE_BUSY', 3, 'not_done'],
  ])('that writes, failing with “%s”, is tried %i times and its outcome is %s', async (message, tries, outcome) => {
    const { bindings, calls } = failingBindings('DB.batch', { when: 'before', message });

    const error: unknown = await batch(bindings.DB, [insertOrganization.bind(organization)]).catch(
      (thrown: unknown) => thrown,
    );

    expect(error).toBeInstanceOf(DomainError);
    expect(error).toMatchObject({ code: 'temporarily_unavailable', members: { outcome }, cause: { message } });
    expect(calls).toHaveLength(tries);
  });

  it('that only reads has done nothing, whatever became of it', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: 'D1_ERROR: Network connection lost.' });

    await expect(batch(bindings.DB, [readOrganization.bind(organization)])).rejects.toMatchObject({
      members: { outcome: 'not_done' },
    });
  });
});
