import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  emptyStorage,
  everythingKept,
  eventsOn,
  newClient,
  newOperator,
  page,
  rows,
} from '../fixtures.ts';
import type { Operator } from '../fixtures.ts';
import { createCustomer, createOrganization, setStatus } from '../operations.ts';

const LOST = 'D1_ERROR: Network connection lost.';

let operator: Operator;
let organization_id: string;

beforeEach(async () => {
  await emptyStorage();
  operator = await newOperator();
  organization_id = await createOrganization(operator, { name: 'Acme', metadata: { crm: '4711', plan: 'gold' } });
});

const update = (body: unknown, bindings = env, id = organization_id) =>
  call(operator, 'PUT', `/operator/organizations/${id}`, { body, bindings });

const found = async () => (await rows('organizations')).find((row) => row['organization_id'] === organization_id);

describe('a change of an organization', () => {
  it('is answered as the organization is from then on, to the character', async () => {
    const { status, text } = await update({ name: 'Straße', tier: 'pro', metadata: { crm: '4712' } });

    expect(status).toBe(200);
    const { created_at } = JSON.parse(text).data;
    expect(text).toBe(
      `{"success":true,"message":"Organization updated successfully","data":{"organization_id":"${organization_id}",` +
        `"name":"Straße","tier":"pro","status":"active","metadata":{"crm":"4712"},"created_at":"${created_at}"}}`,
    );
    expect(await found()).toMatchObject({
      name: 'Straße',
      name_folded: 'strasse',
      tier: 'pro',
      metadata: '{"crm":"4712"}',
      change_count: 1,
    });
  });

  it.each([
    [{ name: 'Renamed' }, { name: 'Renamed', tier: 'starter', metadata: { crm: '4711', plan: 'gold' } }],
    [{ tier: 'enterprise' }, { name: 'Acme', tier: 'enterprise', metadata: { crm: '4711', plan: 'gold' } }],
    [{ metadata: { plan: 'silver' } }, { name: 'Acme', tier: 'starter', metadata: { plan: 'silver' } }],
    [{ metadata: {} }, { name: 'Acme', tier: 'starter', metadata: {} }],
  ])('leaves alone what it does not name, and replaces metadata as a whole: %j', async (change, expected) => {
    const { status, body } = await update(change);

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: expected });
    const { body: now } = await call(operator, 'GET', `/operator/organizations/${organization_id}`);
    expect(now).toMatchObject({ data: expected });
    expect(JSON.stringify(now)).toContain(`"metadata":${JSON.stringify(expected.metadata)}`);
  });

  it('is one event with what changed: its own clients see no metadata, operators do', async () => {
    const client = await createCustomer(operator, { metadata: { crm: '4711' } });
    await update({ name: 'Renamed', tier: 'pro', metadata: { crm: '4712' } }, env, client.organization_id);

    const theirs = await page(client, `/api/audit-events?target_id=${client.organization_id}`);
    const ours = await page(operator, `/operator/audit-events?organization_id=${client.organization_id}`);

    const changes = { name: { from: 'Acme', to: 'Renamed' }, tier: { from: 'starter', to: 'pro' } };
    expect(theirs.data.at(-1)).toMatchObject({
      action: 'organization.updated',
      actor: { type: 'operator', id: operator.operator_key_id, name: 'Signup service' },
      changes,
    });
    expect(Object.keys(Object(theirs.data.at(-1)?.['changes']))).toEqual(['name', 'tier']);
    expect(JSON.stringify(theirs.data)).not.toMatch(/metadata|4711|4712/);
    expect(ours.data[0]).toMatchObject({
      action: 'organization.updated',
      changes: { ...changes, metadata: { from: { crm: '4711' }, to: { crm: '4712' } } },
    });
  });

  it('of the tier reaches its keys once the caches have forgotten them, and its limits at once', async () => {
    const client = await createCustomer(operator);

    await update({ tier: 'pro' }, env, client.organization_id);

    const { body } = await call(client, 'GET', '/api/whoami');
    expect(body).toMatchObject({ data: { organization: { tier: 'pro' } } });
  });

  it.each([{ name: 'Acme' }, { name: 'Acme', tier: 'starter', metadata: { crm: '4711', plan: 'gold' } }])(
    'leaves no event where it changes nothing: %j',
    async (same) => {
      const before = await everythingKept();

      const { status, body } = await update(same);

      expect(status).toBe(200);
      expect(body).toMatchObject({ data: { organization_id, name: 'Acme', tier: 'starter' } });
      expect(await everythingKept()).toEqual(before);
    },
  );

  it('is possible while it is suspended', async () => {
    await setStatus(organization_id, 'suspended');

    expect(await update({ name: 'Renamed' })).toMatchObject({ status: 200, body: { data: { status: 'suspended' } } });
  });

  it('names an organization that a command has made without a name', async () => {
    const { organization_id: unnamed } = await newClient();
    await update({ name: 'Émile' }, env, unnamed);

    const { data } = await page(operator, '/operator/organizations?name_prefix=%C3%89MI');

    expect(data).toMatchObject([{ organization_id: unnamed, name: 'Émile' }]);
  });
});

describe('a change that cannot be', () => {
  it('is a 404 of no organization, and makes none', async () => {
    const before = await everythingKept();

    expect(await update({ name: 'A' }, env, 'org_nobody')).toMatchObject({
      status: 404,
      body: { code: 'organization_not_found' },
    });

    expect(await everythingKept()).toEqual(before);
  });

  it.each([0, 1])('is a 409 of an organization that is offboarded (is_offboarding %i)', async (isOffboarding) => {
    await setStatus(organization_id, 'offboarded', isOffboarding);
    const before = await everythingKept();

    expect(await update({ tier: 'pro' })).toMatchObject({ status: 409, body: { code: 'organization_offboarded' } });

    expect(await everythingKept()).toEqual(before);
  });

  it.each<[string, object, string, string]>([
    ['of nothing', {}, '', 'must have at least one of name, tier, metadata'],
    ['to no name', { name: null }, 'name', 'must not be null'],
    ['to no tier', { tier: null }, 'tier', 'must not be null'],
    ['to null for metadata', { metadata: null }, 'metadata', 'must not be null'],
    ['to null for a pair', { metadata: { plan: null } }, 'metadata.plan', 'must not be null'],
    [
      'to 17 pairs',
      { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`k${index}`, ''])) },
      'metadata',
      'must have at most 16 pairs',
    ],
    [
      'to a name of 101 characters',
      { name: 'n'.repeat(101) },
      'name',
      'must be 1 to 100 characters long, without control characters',
    ],
    ['of the status', { status: 'suspended' }, 'status', '`status` is not a known field'],
    ['of the id', { organization_id: 'org_a' }, 'organization_id', '`organization_id` is not a known field'],
    ['of a key', { first_key: { name: 'K', role: 'admin' } }, 'first_key', '`first_key` is not a known field'],
  ])('is a 422 %s, and everything stays', async (_, body, path, message) => {
    const before = await everythingKept();

    const answer = await update(body);

    expect(answer).toMatchObject({ status: 422, body: { code: 'validation_failed' } });
    expect(Object(answer.body).errors).toContainEqual({ path, message });
    expect(await everythingKept()).toEqual(before);
  });

  it('is a 422 with an id of another form', async () => {
    expect(await update({ name: 'A' }, env, 'acme')).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'organization_id', message: expect.stringContaining('must be org_ followed by') }] },
    });
  });
});

describe('changes at the same time', () => {
  it('are done one after the other or not at all, and none is told wrongly', async () => {
    const names = ['One', 'Two', 'Three'];

    const answers = await Promise.all(names.map((name) => update({ name })));

    const done = answers.filter(({ status }) => status === 200);
    const others = answers.filter(({ status }) => status !== 200);
    expect(done.length).toBeGreaterThan(0);
    for (const answer of others) expect(answer).toMatchObject({ status: 503, body: { outcome: 'not_done' } });
    expect(await actionsOn(organization_id)).toHaveLength(1 + done.length);
    expect(names).toContain((await found())?.['name']);
  });

  it('do not undo each other, however late the first lands', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings(async (name, carryOut, { statements }) => {
      if (name !== 'DB.batch' || !statements.some(({ sql }) => sql.startsWith('insert'))) return carryOut();
      late = carryOut;
      throw new Error(LOST);
    });
    const lost = await update({ name: 'Late' }, bindings);
    await update({ name: 'Newer' });
    const before = await everythingKept();

    await late?.();

    expect(lost).toMatchObject({ status: 503, body: { outcome: 'unknown' } });
    expect(late).toBeDefined();
    expect(await everythingKept()).toEqual(before);
    expect(await found()).toMatchObject({ name: 'Newer' });
  });

  it('do not undo each other where the answer of the first was lost after its commit', async () => {
    const batches: (() => Promise<unknown>)[] = [];
    const bindings = interceptedBindings(async (name, carryOut, { statements }) => {
      if (name === 'DB.batch' && statements.some(({ sql }) => sql.startsWith('insert'))) batches.push(carryOut);
      return carryOut();
    });
    await update({ name: 'First' }, bindings);
    await update({ name: 'Newer' });
    const before = await everythingKept();

    for (const again of batches) await again();

    expect(batches).toHaveLength(1);
    expect(await everythingKept()).toEqual(before);
  });

  it('are on record once where an answer is lost', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    expect(await update({ name: 'Renamed' }, bindings)).toMatchObject({
      status: 200,
      body: { data: { name: 'Renamed' } },
    });

    expect(await eventsOn(organization_id)).toHaveLength(2);
    expect(await found()).toMatchObject({ change_count: 1 });
  });
});
