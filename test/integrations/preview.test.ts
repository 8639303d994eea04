/** The dry run of a delete: what it tells is what the delete does, and it does nothing itself. */
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { newAccount } from '../accounts.ts';
import { countedBindings, interceptedBindings } from '../bindings.ts';
import {
  call,
  createIntegration,
  emptyStorage,
  everythingKept,
  fillNumbers,
  importNumber,
  newClient,
  rows,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const agent = 'agent_a1b2c3d4e5f6';

let client: Client;
let source: string;

beforeEach(async () => {
  await emptyStorage();
  for (const method of ['warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
  client = await newClient();
  source = await createIntegration(client);
});

afterEach(() => vi.restoreAllMocks());

const remove = (query: string, { by = client, bindings = env, key = '' } = {}) =>
  call(by, 'DELETE', `/api/integrations/${source}?${query}`, {
    bindings,
    ...(key && { headers: { 'Idempotency-Key': key } }),
  });

const preview = (query = '', options = {}) => remove(`dry_run=true&${query}`, options);

const assign = (phone_number_id: string) =>
  call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, { body: { assigned_agent_id: agent } });

const previewed = z.object({
  message: z.string(),
  data: z.object({
    would_delete: z.boolean(),
    reference_count: z.number(),
    would_reassign: z.number(),
    would_remove: z.number(),
    blocked_by: z.array(z.object({ code: z.string(), phone_number: z.string().nullable() })),
  }),
});

describe('the preview of a delete', () => {
  it('shows the integration as it is, and that it would go', async () => {
    const { body } = await call(client, 'GET', `/api/integrations/${source}`);
    const { data: integration } = z.object({ data: z.unknown() }).parse(body);

    const { status, text } = await preview();

    expect(status).toBe(200);
    expect(text).toBe(
      JSON.stringify({
        success: true,
        message: 'Integration would be deleted',
        data: {
          would_delete: true,
          integration,
          reference_count: 0,
          reference_count_exact: true,
          references: [],
          would_reassign: 0,
          would_remove: 0,
          blocked_by: [],
        },
      }),
    );
  });

  it('names what uses the integration, and that this is what blocks', async () => {
    const [first, second] = [unusedNumber(), unusedNumber()];
    const ids = [await importNumber(client, source, first), await importNumber(client, source, second)];
    await assign(ids[1] ?? '');

    expect(await preview()).toMatchObject({
      status: 200,
      body: {
        message: 'Integration would not be deleted',
        data: {
          would_delete: false,
          reference_count: 2,
          reference_count_exact: true,
          references: [
            { type: 'phone_number', phone_number_id: ids[0], phone_number: first, status: 'free' },
            { phone_number_id: ids[1], phone_number: second, status: 'assigned', assigned_agent_id: agent },
          ],
          would_reassign: 0,
          would_remove: 0,
          blocked_by: [
            { code: 'integration_in_use', phone_number_id: ids[0], phone_number: first, assigned_agent_id: null },
            { code: 'integration_in_use', phone_number_id: ids[1], phone_number: second, assigned_agent_id: null },
          ],
        },
      },
    });
  });

  it('counts up to 1,000, and names 100', async () => {
    await fillNumbers(client, source, 1_001);

    const { body } = await preview('remove_phone_numbers=true');

    expect(body).toMatchObject({
      data: { would_delete: true, reference_count: 1000, reference_count_exact: false, would_remove: 1000 },
    });
    const { references } = z.object({ references: z.array(z.unknown()) }).parse(Object(body).data);
    expect(references).toHaveLength(100);
  });

  it('names the agents that hold numbers which would be removed', async () => {
    const free = unusedNumber();
    await importNumber(client, source, free);
    const held = unusedNumber();
    const id = await importNumber(client, source, held);
    await assign(id);

    expect(await preview('remove_phone_numbers=true')).toMatchObject({
      body: {
        data: {
          would_delete: false,
          would_remove: 0,
          blocked_by: [
            { code: 'phone_number_assigned', phone_number_id: id, phone_number: held, assigned_agent_id: agent },
          ],
        },
      },
    });
  });

  it('asks the account that would get the numbers, and names those that it does not hold', async () => {
    const [held, missing] = [unusedNumber(), unusedNumber()];
    await importNumber(client, source, held);
    await importNumber(client, source, missing);
    const { integration_id: target } = await newAccount(client, [held]);
    const { integration_id: holding } = await newAccount(client, [held, missing]);

    expect(await preview(`reassign_to=${target}`)).toMatchObject({
      body: {
        data: {
          would_delete: false,
          would_reassign: 0,
          blocked_by: [
            { code: 'invalid_reassign_target', reason: 'phone_number_not_in_account', phone_number: missing },
          ],
        },
      },
    });
    expect(await preview(`reassign_to=${holding}`)).toMatchObject({
      body: { data: { would_delete: true, would_reassign: 2, blocked_by: [] } },
    });
  });

  it('tells that the provider refuses the credentials of that account', async () => {
    await importNumber(client, source, unusedNumber());
    const { integration_id: target } = await newAccount(client, [], { answers: ['refused'] });

    expect(await preview(`reassign_to=${target}`)).toMatchObject({
      status: 200,
      body: { data: { would_delete: false, blocked_by: [{ code: 'credentials_refused', phone_number: null }] } },
    });
  });

  it.each([
    ['expect_references=1', 'precondition_failed'],
    ['reassign_to=intg_000000000000', 'invalid_reassign_target'],
  ])('tells that %s stands against it', async (query, code) => {
    expect(await preview(query)).toMatchObject({
      status: 200,
      body: { data: { would_delete: false, blocked_by: [{ code }] } },
    });
  });

  it('is a 404 where there is no integration, and where it is another organization’s', async () => {
    const stranger = await newClient();
    expect(await preview('', { by: stranger })).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
  });

  it('is refused to a key without the permission, also to one that has lost it', async () => {
    const reader = await newClient({ organization_id: client.organization_id, role: 'user' });
    const manager = await newClient({ organization_id: client.organization_id, role: 'agent_manager' });
    await call(manager, 'GET', '/api/integrations');
    await env.DB.prepare(`UPDATE api_keys SET role = 'user' WHERE key_id = ?`).bind(manager.key_id).run();

    for (const by of [reader, manager]) {
      expect(await preview('', { by })).toMatchObject({
        status: 403,
        body: { code: 'permission_denied', required_permission: 'integrations:delete' },
      });
    }
  });

  it('writes nothing, and an Idempotency-Key on it means nothing', async () => {
    const ids = [
      await importNumber(client, source, unusedNumber()),
      await importNumber(client, source, unusedNumber()),
    ];
    await assign(ids[0] ?? '');
    const target = await createIntegration(client);
    const before = await everythingKept();

    for (const query of ['', `reassign_to=${target}`, 'remove_phone_numbers=true', 'expect_references=7']) {
      const first = await preview(query, { key: 'once' });
      const again = await preview(query, { key: 'once' });
      expect(first.status).toBe(200);
      expect(again.headers.get('Idempotency-Replayed')).toBeNull();
    }
    expect(await everythingKept()).toEqual(before);

    const { status, headers } = await remove(`reassign_to=${target}`, { key: 'once' });
    expect(status).toBe(200);
    expect(headers.get('Idempotency-Replayed')).toBeNull();
  });

  it('asks the primary, in one call', async () => {
    const asked: unknown[] = [];
    const { bindings, calls } = countedBindings();
    const DB = new Proxy(bindings.DB, {
      get(database, name) {
        const member: unknown = Reflect.get(database, name);
        if (name !== 'withSession' || typeof member !== 'function') return member;
        return (constraint: string): unknown => {
          asked.push(constraint);
          return Reflect.apply(member, database, [constraint]);
        };
      },
    });
    await importNumber(client, source, unusedNumber());
    await preview();
    calls.length = 0;

    await preview('remove_phone_numbers=true', { bindings: { ...bindings, DB } });

    expect(calls).toEqual(['DB.batch']);
    expect(asked).toEqual(['first-primary']);
  });
});

/** What a random integration is like, and what is asked of its delete. */
const states = fc.record({
  numbers: fc.array(fc.record({ held: fc.boolean(), confirmed: fc.boolean(), inAccount: fc.boolean() }), {
    maxLength: 4,
  }),
  target: fc.constantFrom('none', 'same account', 'other account', 'other provider', 'itself', 'missing', 'refused'),
  removes: fc.boolean(),
  verify: fc.boolean(),
  expected: fc.option(fc.nat({ max: 4 }), { freq: 3 }),
  room: fc.option(fc.nat({ max: 5 }), { freq: 3 }),
  unconfirmedRoom: fc.option(fc.nat({ max: 3 }), { freq: 3 }),
});

type State = typeof states extends fc.Arbitrary<infer Value> ? Value : never;

/** Makes the state, and the query of the delete. */
async function made({ numbers, target, removes, verify, expected, room, unconfirmedRoom }: State): Promise<string> {
  await emptyStorage();
  client = await newClient();
  source = await createIntegration(client);
  const held: string[] = [];
  for (const number of numbers) {
    const phone_number = unusedNumber();
    const id = await importNumber(client, source, phone_number);
    if (number.held) await assign(id);
    if (number.inAccount) held.push(phone_number);
    if (number.confirmed) {
      await env.DB.prepare(`UPDATE phone_numbers SET ownership = 'confirmed' WHERE phone_number_id = ?`).bind(id).run();
    }
  }
  const targets: Record<State['target'], () => Promise<string>> = {
    none: async () => '',
    'same account': () => createIntegration(client),
    'other account': async () => (await newAccount(client, held)).integration_id,
    'other provider': async () => (await newAccount(client, [], { provider: 'telnyx' })).integration_id,
    itself: async () => source,
    missing: async () => 'intg_000000000000',
    refused: async () => (await newAccount(client, held, { answers: ['refused'] })).integration_id,
  };
  const id = await targets[target]();
  await env.DB.prepare(
    `UPDATE organizations SET max_audit_events = audit_event_count + ?1, max_unconfirmed_numbers = unconfirmed_number_count + ?2
     WHERE organization_id = ?3`,
  )
    // A refusal of the credentials, which a preview stores, is an event too.
    .bind(target === 'refused' ? null : room, unconfirmedRoom, client.organization_id)
    .run();
  const query = new URLSearchParams(
    id === '' ? { remove_phone_numbers: String(removes) } : { reassign_to: id, verify: String(verify) },
  );
  if (expected !== null) query.set('expect_references', String(expected));
  return query.toString();
}

describe('what a preview tells', () => {
  it('is what the delete then does, whatever the state', async () => {
    await fc.assert(
      fc.asyncProperty(states, async (state) => {
        const query = await made(state);

        const told = previewed.parse((await preview(query)).body).data;
        const { status, body, headers } = await remove(query);

        expect(status === 200, `${query}: ${JSON.stringify([told, body])}`).toBe(told.would_delete);
        const counts = ['X-Reassigned-Count', 'X-Removed-Count'].map((name) => Number(headers.get(name) ?? 0));
        expect(counts).toEqual([told.would_reassign, told.would_remove]);
        const codes = new Set(told.blocked_by.map(({ code }) => code));
        expect([...codes]).toEqual(status === 200 ? [] : [Object(body).code]);
        const there = (await rows('integrations')).some(({ integration_id }) => integration_id === source);
        expect(there).toBe(status !== 200);
      }),
      { numRuns: 60, seed: 20_261_128 },
    );
  });

  it('follows the rule of the delete, because there is one: without its condition in SQL both are wrong', async () => {
    const id = await importNumber(client, source, unusedNumber());
    await assign(id);
    const isAssigned = /"phone_numbers"\."status" = \?/g;
    const mutated = interceptedBindings(
      (_, carryOut) => carryOut(),
      (sql) =>
        sql.includes('from "integrations"') ? sql.replaceAll(isAssigned, '"phone_numbers"."status" = ? || 1') : sql,
    );

    const told = previewed.parse((await preview('remove_phone_numbers=true', { bindings: mutated })).body).data;
    const { status } = await remove('remove_phone_numbers=true', { bindings: mutated });

    expect(told.would_delete).toBe(true);
    expect(status).toBe(200);
  });
});
