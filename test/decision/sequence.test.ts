/** The order of audit events is that of their commits, whatever clocks and ids say. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { reconcile } from '../../src/operator/recovery/reconcile.ts';
import { forgetOldEvents } from '../../src/worker/audit/retention.ts';
import { interceptedBindings, stallingBindings } from '../bindings.ts';
import {
  call,
  createIntegration,
  importNumber,
  newClient,
  page,
  rowOf,
  rows,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const HOUR = 3600;
const all = '/api/audit-events';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

afterEach(() => vi.useRealTimers());

const clockAhead = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });
const iso = (seconds: number) => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');

const trail = async ({ organization_id } = client) =>
  (await rows('audit_events'))
    .filter((event) => event['organization_id'] === organization_id)
    .toSorted((one, next) => Number(one['sequence']) - Number(next['sequence']));

/** A creation that begins now, and whose put ends only when it is let go. */
function stalledCreation() {
  const { bindings, stalls, letGo } = stallingBindings('CREDENTIALS.put');
  const answer = call(client, 'POST', '/api/integrations', { body: { name: 'Late', credentials: twilio }, bindings });
  return { stalls, finish: () => (letGo(), answer) };
}

describe('the sequence', () => {
  it('counts an organization’s events from 1, in the order of their commits, callers’ and operators’ alike', async () => {
    const integration_id = await createIntegration(client);
    await call(client, 'POST', `/api/api-keys/${client.key_id}/rotate`, { body: { overlap_seconds: 60 } });
    await env.CREDENTIALS.delete(
      (await env.CREDENTIALS.list({ prefix: `v1/${client.organization_id}/` })).keys[0]?.name ?? '',
    );
    await reconcile(env);
    await createKeyByCommand(env.DB, {
      organization_id: client.organization_id,
      role: 'user',
      name: 'Another',
      tier: 'pro',
      expires_at: null,
    });
    await call(client, 'DELETE', `/api/integrations/${integration_id}`);

    expect((await trail()).map(({ sequence, action }) => [sequence, action])).toEqual([
      [1, 'api_key.created'],
      [2, 'integration.created'],
      [3, 'api_key.rotated'],
      [4, 'api_key.created'],
      [5, 'integration.credentials_missing'],
      [6, 'organization.updated'],
      [7, 'api_key.created'],
      [8, 'integration.deleted'],
    ]);
  });

  it('is an organization’s own', async () => {
    const stranger = await newClient();
    await createIntegration(stranger);

    expect((await trail(stranger)).map(({ sequence }) => sequence)).toEqual([1, 2]);
    expect((await trail()).map(({ sequence }) => sequence)).toEqual([1]);
  });

  it('goes on where it was when all events have been forgotten', async () => {
    clockAhead(401 * 24 * HOUR);
    await forgetOldEvents(env);
    vi.useRealTimers();
    expect(await trail()).toEqual([]);

    await createIntegration(client);

    expect((await trail()).map(({ sequence }) => sequence)).toEqual([2]);
  });

  it('is given once where the answer of the commit is lost', async () => {
    let lost = false;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const answer = await carryOut();
      if (name !== 'DB.batch' || lost) return answer;
      lost = true;
      throw new Error('D1_ERROR: Network connection lost.');
    });
    const key = { name: 'Once', role: 'user' };
    expect((await call(client, 'POST', '/api/api-keys', { body: key, bindings })).status).toBe(201);

    await createIntegration(client);

    expect(lost).toBe(true);
    expect((await trail()).map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
  });
});

describe('an event that the Worker of before sequences has recorded', () => {
  it('has the next sequence, and no earlier time than the one before', async () => {
    const { organization_id } = client;
    for (const target_id of ['intg_00000000000a', 'intg_00000000000b']) {
      await env.DB.prepare(
        `INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id, state, created_at)
         VALUES (?, ?, 'integration.deleted', ?, NULL, 'request', '{}', 1)`,
      )
        .bind(organization_id, crypto.randomUUID(), target_id)
        .run();
    }
    await createIntegration(client);

    const [first, ...others] = await trail();
    expect(others.map(({ sequence }) => sequence)).toEqual([2, 3, 4]);
    for (const event of others) expect(event['created_at']).toBeGreaterThanOrEqual(Number(first?.['created_at']));
    const organization = (await rows('organizations')).find((row) => row['organization_id'] === organization_id);
    expect(organization).toMatchObject({ last_sequence: 4, audit_event_count: 4 });
  });
});

describe('a creation that stalls while others commit', () => {
  it('is behind them in the list: a reader that has passed them finds it', async () => {
    const creation = stalledCreation();
    await creation.stalls;
    const others = [await createIntegration(client), await createIntegration(client)];
    const before = await page(client, `${all}?page_size=2`);

    await creation.finish();

    const { data } = await page(client, `${all}?page_size=100&cursor=${before.next_cursor}`);
    expect(data.map(({ target_id }) => target_id)).toEqual([others[1], expect.stringMatching(/^intg_/)]);
    expect(data.at(-1)).toMatchObject({ state: { name: 'Late' } });
  });

  it('has no earlier time than they have: a reader that asks for what is since the last finds it', async () => {
    clockAhead(-2);
    const creation = stalledCreation();
    await creation.stalls;
    vi.useRealTimers();
    await createIntegration(client);
    const { data: seen } = await page(client, all);
    const last = String(seen.at(-1)?.['created_at']);

    await creation.finish();

    const { data } = await page(client, `${all}?since=${last}`);
    expect(data.at(-1)).toMatchObject({ state: { name: 'Late' } });
    expect(String(data.at(-1)?.['created_at']) >= last).toBe(true);
  });
});

describe('clocks that differ', () => {
  it('change no order and no window: times rise with the sequence, and none is after D1’s own', async () => {
    const integration_id = await createIntegration(client);
    const path = `/api/integrations/${integration_id}`;
    for (const seconds of [HOUR, 0, -HOUR, 0]) {
      if (seconds !== 0) clockAhead(seconds);
      expect((await call(client, 'PUT', path, { body: { name: `Clock ${seconds}` } })).status).toBe(200);
      vi.useRealTimers();
    }
    const now = Math.floor(Date.now() / 1000);

    const times = (await trail()).map(({ created_at }) => Number(created_at));

    expect(times).toHaveLength(6);
    expect(times).toEqual(times.toSorted((one, next) => one - next));
    expect(times.at(-1)).toBeLessThanOrEqual(now + 1);
    const windows = [`since=${iso(now - 60)}`, `until=${iso(now - 60)}`];
    const counts = await Promise.all(
      windows.map(async (window) => (await page(client, `${all}?${window}`)).total_count),
    );
    expect(counts).toEqual([6, 0]);
  });

  it.each(['an integration', 'a phone number'])('never take the time of an update of %s back', async (what) => {
    const integration_id = await createIntegration(client);
    const isNumber = what === 'a phone number';
    const id = isNumber ? await importNumber(client, integration_id, unusedNumber()) : integration_id;
    const path = isNumber ? `/api/phone-numbers/${id}` : `/api/integrations/${id}`;
    const update = async () => {
      const body = isNumber ? { supports_inbound: true } : { name: 'Another' };
      const { text } = await call(client, 'PUT', path, { body });
      return String(JSON.parse(text).data.updated_at);
    };
    const first = await update();
    clockAhead(-HOUR);
    const second = await update();
    vi.useRealTimers();

    const { updated_at } = await rowOf(isNumber ? 'phone_numbers' : 'integrations', id);
    expect(second >= first).toBe(true);
    expect(iso(Number(updated_at))).toBe(second);
  });
});
