/** Audit events as operators read them. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { interceptedBindings } from '../bindings.ts';
import {
  call,
  createIntegration,
  emptyStorage,
  everythingKept,
  newClient,
  newOperator,
  page,
  rows,
} from '../fixtures.ts';
import type { Operator } from '../fixtures.ts';
import { createCustomer, customer } from '../operations.ts';

const PATH = '/operator/audit-events';

let operator: Operator;
let client: Awaited<ReturnType<typeof customer>>;
let of: string;

beforeEach(async () => {
  await emptyStorage();
  operator = await newOperator();
  client = await customer();
  of = `${PATH}?organization_id=${client.organization_id}`;
  await call(operator, 'GET', '/operator/nothing');
});

const iso = (seconds: number) => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');

describe('the events of an organization', () => {
  it('are those that its admin sees, the newest first', async () => {
    await call(operator, 'POST', `${client.path}/api-keys`, { body: { name: 'Support', role: 'user' } });
    await newClient();

    const ours = await page(operator, of);
    const theirs = await page(client, '/api/audit-events');

    expect(ours.data).toEqual(theirs.data.toReversed());
    expect(ours.total_count).toBe(theirs.total_count);
    expect(ours.data.length).toBeGreaterThan(3);
  });

  it('show organizations with their id, status and metadata, which their clients do not see', async () => {
    const { organization_id } = await createCustomer(operator, { metadata: { crm: '4711' } });

    const { data } = await page(operator, `${PATH}?organization_id=${organization_id}&order=asc`);

    expect(data[0]).toEqual({
      event_id: expect.any(String),
      client_id: organization_id,
      action: 'organization.created',
      outcome: 'succeeded',
      target_id: organization_id,
      actor: { type: 'operator', id: operator.operator_key_id, name: 'Signup service' },
      actor_key_id: null,
      request_id: expect.any(String),
      state: {
        organization_id,
        name: 'Acme',
        tier: 'starter',
        status: 'active',
        metadata: { crm: '4711' },
        created_at: expect.any(String),
      },
      changes: null,
      reason: null,
      created_at: expect.any(String),
    });
  });

  it('are there when it is offboarded', async () => {
    const { organization_id } = client;
    await call(operator, 'POST', `${client.path}/suspend`);
    await call(operator, 'POST', `${client.path}/offboard`, { body: { organization_id } });

    const { data } = await page(operator, of);

    expect(data.map(({ action }) => action)).toEqual(
      expect.arrayContaining(['organization.offboarded', 'phone_number.deleted', 'api_key.revoked']),
    );
  });

  it('come by pages that make the whole, in either order', async () => {
    for (const _ of [1, 2, 3]) await createIntegration(client, undefined, '?verify=false');
    const whole = await page(operator, of);

    for (const order of ['asc', 'desc']) {
      const parts: unknown[] = [];
      let cursor = '';
      do {
        const part = await page(operator, `${of}&order=${order}&page_size=2${cursor}`);
        parts.push(...part.data);
        cursor = part.next_cursor === null ? '' : `&cursor=${part.next_cursor}`;
      } while (cursor !== '');
      expect(parts).toEqual(order === 'desc' ? whole.data : whole.data.toReversed());
    }
  });

  it('are those from since to before until', async () => {
    await env.DB.prepare('UPDATE audit_events SET created_at = 1700000000 + sequence').run();

    const { data } = await page(operator, `${of}&since=${iso(1_700_000_002)}&until=${iso(1_700_000_003)}`);

    expect(data.map(({ created_at }) => created_at)).toEqual([iso(1_700_000_002)]);
  });

  it('are a 404 of no organization, whatever else is asked', async () => {
    for (const more of ['', '&order=asc', `&since=${iso(0)}`]) {
      expect(await call(operator, 'GET', `${PATH}?organization_id=org_nobody${more}`)).toMatchObject({
        status: 404,
        body: { code: 'organization_not_found' },
      });
    }
  });
});

describe('what operators did', () => {
  beforeEach(async () => {
    await call(operator, 'POST', `${client.path}/suspend`);
    const second = await newOperator();
    const other = await createCustomer(second, { name: 'Other' });
    await createIntegration(other, undefined, '?verify=false');
    await call(operator, 'POST', `${client.path}/resume`);
    await createKeyByCommand(env.DB, {
      organization_id: other.organization_id,
      role: 'user',
      name: 'By command',
      expires_at: null,
    });
  });

  it('is listed of all organizations, by keys and by commands, the newest first', async () => {
    const stored = (await rows('audit_events')).filter(({ actor_type }) => actor_type === 'operator');

    const { data, total_count } = await page(operator, `${PATH}?actor_type=operator&page_size=100`);

    expect(total_count).toBe(stored.length);
    expect(new Set(data.map(({ event_id }) => event_id))).toEqual(new Set(stored.map(({ event_id }) => event_id)));
    expect(new Set(data.map(({ client_id }) => client_id)).size).toBe(2);
    expect(data.map(({ actor }) => Object(actor).type)).toEqual(data.map(() => 'operator'));
    const times = data.map(({ created_at }) => String(created_at));
    expect(times).toEqual(times.toSorted().toReversed());
  });

  it('is in an order of its own, which its pages keep', async () => {
    await env.DB.prepare('UPDATE audit_events SET created_at = 1700000000 + sequence / 2').run();
    const expected = (await rows('audit_events'))
      .filter(({ actor_type }) => actor_type === 'operator')
      .map((row) => ({
        place: [row['created_at'], row['organization_id'], String(row['sequence']).padStart(6, '0')].join(' '),
        event_id: row['event_id'],
      }))
      .toSorted((one, other) => (one.place < other.place ? -1 : 1))
      .map(({ event_id }) => event_id);

    for (const order of ['asc', 'desc']) {
      const ids: unknown[] = [];
      let cursor = '';
      do {
        const part = await page(operator, `${PATH}?actor_type=operator&order=${order}&page_size=2${cursor}`);
        ids.push(...part.data.map(({ event_id }) => event_id));
        cursor = part.next_cursor === null ? '' : `&cursor=${part.next_cursor}`;
      } while (cursor !== '');
      expect(ids).toEqual(order === 'asc' ? expected : expected.toReversed());
    }
  });

  it('is that from since to before until', async () => {
    await env.DB.prepare('UPDATE audit_events SET created_at = 1700000000').run();
    const count = async (query: string) =>
      (await page(operator, `${PATH}?actor_type=operator&page_size=100${query}`)).total_count;
    const all = await count('');

    expect(await count(`&since=${iso(1_700_000_000)}&until=${iso(1_700_000_001)}`)).toBe(all);
    expect(await count(`&since=${iso(1_700_000_001)}`)).toBe(0);
    expect(await count(`&until=${iso(1_700_000_000)}`)).toBe(0);
  });
});

describe('the events that operators read', () => {
  it('change nothing that is stored', async () => {
    const before = await everythingKept();

    await page(operator, of);
    await page(operator, `${PATH}?actor_type=operator`);

    expect(await everythingKept()).toEqual(before);
  });

  it('never have what leads to credentials or to a key', async () => {
    await createCustomer(operator);
    const pages = [await page(operator, of), await page(operator, `${PATH}?actor_type=operator`)];

    expect(JSON.stringify(pages)).not.toMatch(
      /data_key|kek_id|credentials_version|key_hash|raw_key|plaintext|account_salt|bk_operator_/,
    );
  });

  const either = 'must have either organization_id, or actor_type=operator for what operators did in all organizations';

  it.each([
    ['', '', either],
    ['order=asc', '', either],
    ['organization_id=org_a&actor_type=operator', '', either],
    ['actor_type=api_key', 'actor_type', 'must be one of operator'],
    ['actor_type=', 'actor_type', 'must be one of operator'],
    ['organization_id=acme', 'organization_id', 'must be org_ followed by 1 to 40 of A–Z, a–z, 0–9, _ and -'],
    ['organization_id=', 'organization_id', 'must be org_ followed by 1 to 40 of A–Z, a–z, 0–9, _ and -'],
    ['organization_id=org_a&organization_id=org_b', 'organization_id', 'must be given once'],
    ['organization_id=org_a&action=api_key.created', 'action', '`action` is not a known parameter'],
    ['actor_type=operator&order=newest', 'order', 'must be one of asc, desc'],
  ])('are a 422 by %j, which says what to mend', async (query, path, message) => {
    const { status, body } = await call(operator, 'GET', `${PATH}?${query}`);

    expect(status).toBe(422);
    expect(Object(body).errors).toContainEqual({ path, message });
  });

  it.each([
    ['another organization', (other: string) => `${PATH}?organization_id=${other}`, () => of],
    ['what operators did', () => `${PATH}?actor_type=operator`, () => of],
    ['another order', () => `${of}&order=asc`, () => of],
  ] as const)('are not paged by a cursor of %s', async (_, one, other) => {
    const stranger = await createCustomer(operator);
    const { next_cursor } = await page(operator, `${one(stranger.organization_id)}&page_size=1`);
    expect(next_cursor).not.toBeNull();

    expect(await call(operator, 'GET', `${other()}&page_size=1&cursor=${next_cursor}`)).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'cursor' }] },
    });
  });

  it('are as many rows to read as a page has, among many events of others', async () => {
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < 3000)
       INSERT INTO audit_events (organization_id, event_id, action, target_id, request_id, state, created_at, sequence, actor_type)
       SELECT ?, printf('018d0cab-c440-7abc-9def-%012x', i), 'organization.resumed', 'org_x', 'r',
         '{"organization_id":"org_x","tier":"pro","status":"active","created_at":0}', 1700000000 + i, 1000 + i,
         iif(i % 100 = 0, 'operator', 'system') FROM n`,
    )
      .bind(client.organization_id)
      .run();
    const counted = async (path: string) => {
      let rowsRead = 0;
      const bindings = interceptedBindings(async (name, carryOut) => {
        const result = await carryOut();
        if (name === 'DB.batch' && Array.isArray(result)) for (const { meta } of result) rowsRead += meta.rows_read;
        return result;
      });
      return { ...(await page(operator, path, { bindings })), rowsRead };
    };

    for (const list of [`${PATH}?actor_type=operator`, of]) {
      for (const order of ['asc', 'desc']) {
        const first = await counted(`${list}&order=${order}&page_size=5`);
        expect(first.rowsRead).toBeLessThanOrEqual(25 + Math.min(first.total_count + 1, 1001));
        const next = await counted(`${list}&order=${order}&page_size=5&cursor=${first.next_cursor}`);
        expect(next.rowsRead).toBeLessThanOrEqual(25);
      }
    }
  });
});
