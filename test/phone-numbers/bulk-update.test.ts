/** `POST /api/phone-numbers/bulk-update`: all of the numbers are changed, or none. */
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { newAccount } from '../accounts.ts';
import { countedBindings, failingBindings, interceptedBindings, stallingBindings } from '../bindings.ts';
import {
  call,
  changeKey,
  createIntegration,
  emptyStorage,
  fillNumbers,
  importNumber,
  keyChanges,
  newClient,
  resources,
  rowOf,
  rows,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip } from '../mutations.ts';
import { callsWith, secretHolding } from '../simulation.ts';
import {
  AGENT,
  assign,
  bulkUpdate,
  codesOf,
  idsOf,
  kept,
  meteredBindings,
  NO_INTEGRATION,
  NO_NUMBER,
  resultsOf,
  trail,
} from './selections.ts';

let client: Client;
let integration_id: string;

beforeEach(async () => {
  await emptyStorage();
  for (const method of ['warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
  client = await newClient();
  integration_id = await createIntegration(client);
});

afterEach(() => {
  vi.restoreAllMocks();
});

const unused = (count: number) => Array.from({ length: count }, unusedNumber);

/** Imports numbers, through the integration unless another is named; they are unconfirmed. */
async function imported(phone_numbers: readonly string[], through = integration_id): Promise<string[]> {
  const ids: string[] = [];
  for (const phone_number of phone_numbers) ids.push(await importNumber(client, through, phone_number));
  return ids;
}

const shown = z.object({ data: z.record(z.string(), z.unknown()) });

async function read(phone_number_id: string) {
  const { body } = await call(client, 'GET', `/api/phone-numbers/${phone_number_id}`);
  return shown.parse(body).data;
}

const readAll = (ids: readonly string[]) => Promise.all(ids.map(read));

const valuesOf = async (ids: readonly string[], member: string) => (await readAll(ids)).map((data) => data[member]);

const limit = (column: string, value: number) =>
  env.DB.prepare(`UPDATE organizations SET ${column} = ? WHERE organization_id = ?`)
    .bind(value, client.organization_id)
    .run();

const counted = async (column: string) =>
  Number((await rows('organizations')).find((row) => row['organization_id'] === client.organization_id)?.[column]);

describe('an update of many numbers', () => {
  it('changes those with the ids, and answers in the order of the request', async () => {
    const numbers = unused(3);
    const [first = '', second = '', third = ''] = await imported(numbers);

    const set = { assigned_agent_id: AGENT, supports_inbound: true, supports_outbound: true };
    const answer = await bulkUpdate({ phone_number_ids: [third, first], set }, { by: client });

    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({
      success: true,
      message: '2 phone numbers updated successfully',
      data: {
        results: [
          { phone_number_id: third, phone_number: numbers[2], status: 'updated', code: null, detail: null },
          { phone_number_id: first, phone_number: numbers[0], status: 'updated', code: null, detail: null },
        ],
      },
    });
    expect(await readAll([first, third])).toMatchObject([
      { ...set, status: 'assigned' },
      { ...set, status: 'assigned' },
    ]);
    expect(await read(second)).toMatchObject({ assigned_agent_id: null, status: 'free', supports_inbound: false });
  });

  it('changes all of an integration, and answers in the order of the numbers', async () => {
    const ids = await imported(unused(3));
    const other = await importSip(client);

    const answer = await bulkUpdate({ integration_id, set: { supports_inbound: true } }, { by: client });

    expect(resultsOf(answer).map(({ phone_number_id }) => phone_number_id)).toEqual(ids);
    expect(await valuesOf(ids, 'supports_inbound')).toEqual([true, true, true]);
    expect(await read(other)).toMatchObject({ supports_inbound: false });
  });

  it('of one number says so in the singular', async () => {
    const phone_number_ids = await imported(unused(1));

    expect(await bulkUpdate({ phone_number_ids, set: { supports_inbound: true } }, { by: client })).toMatchObject({
      body: { message: '1 phone number updated successfully' },
    });
  });

  it('of an integration without numbers is done, and leaves no event', async () => {
    const before = await kept();

    for (const query of ['', '?dry_run=true']) {
      const answer = await bulkUpdate({ integration_id, set: { supports_inbound: true } }, { by: client, query });
      expect(answer.status).toBe(200);
      expect(resultsOf(answer)).toEqual([]);
    }
    expect(await kept()).toEqual(before);
  });

  it('takes numbers from their agents with null', async () => {
    const ids = await imported(unused(2));
    await assign(client, ids[0] ?? '');

    await bulkUpdate({ phone_number_ids: ids, set: { assigned_agent_id: null } }, { by: client });

    expect(await valuesOf(ids, 'status')).toEqual(['free', 'free']);
  });

  it('leaves an event of each number in the order of the numbers, with what changed', async () => {
    const ids = await imported(unused(3));

    const { headers } = await bulkUpdate(
      { phone_number_ids: ids.toReversed(), set: { assigned_agent_id: AGENT } },
      { by: client },
    );

    expect(await trail(client)).toEqual(ids.map((target_id) => ({ action: 'phone_number.updated', target_id })));
    const { body } = await call(client, 'GET', '/api/audit-events?action=phone_number.updated');
    expect(body).toMatchObject({
      data: ids.map((target_id) => ({
        target_id,
        actor_key_id: client.key_id,
        request_id: headers.get('X-Request-Id'),
        state: { phone_number_id: target_id, status: 'free' },
        changes: { assigned_agent_id: { from: null, to: AGENT }, status: { from: 'free', to: 'assigned' } },
      })),
    });
  });

  it('leaves each number as a single update of it would', async () => {
    const [one = '', other = ''] = await imported(unused(2));
    const target = await createIntegration(client);
    const set = { integration_id: target, assigned_agent_id: AGENT, supports_outbound: true };

    await call(client, 'PUT', `/api/phone-numbers/${one}`, { body: set });
    await bulkUpdate({ phone_number_ids: [other], set }, { by: client });

    const [single, bulk] = [await rowOf('phone_numbers', one), await rowOf('phone_numbers', other)];
    const own = { phone_number_id: '', phone_number: '', created_at: 0, updated_at: 0 };
    expect({ ...bulk, ...own }).toEqual({ ...single, ...own });
  });
});

describe('a move to another account', () => {
  it('asks the account once, and the numbers that it holds are confirmed', async () => {
    const numbers = unused(3);
    const ids = await imported(numbers);
    const target = await newAccount(client, numbers);
    const { bindings, calls } = countedBindings();

    const answer = await bulkUpdate(
      { phone_number_ids: ids, set: { integration_id: target.integration_id } },
      { by: client, bindings },
    );

    expect(answer.status).toBe(200);
    expect(calls).toEqual(['DB.batch', 'CREDENTIALS.get', 'provider.fetch', 'DB.batch']);
    expect(await readAll(ids)).toMatchObject(
      ids.map(() => ({ integration_id: target.integration_id, ownership: 'confirmed' })),
    );
    expect((await rows('phone_numbers')).map((row) => row['ownership_due_at'])).toEqual([null, null, null]);
  });

  it('moves none if the account lacks one of them', async () => {
    const numbers = unused(3);
    const ids = await imported(numbers);
    const target = await newAccount(client, numbers.slice(1));
    const before = await kept();

    const body = { phone_number_ids: ids, set: { integration_id: target.integration_id } };
    const answer = await bulkUpdate(body, { by: client });

    expect(answer).toMatchObject({ status: 422, body: { code: 'phone_numbers_not_updated' } });
    expect(codesOf(answer)).toEqual(['phone_number_not_in_account', 'not_done', 'not_done']);
    expect(await kept()).toEqual(before);
    const single = await call(client, 'PUT', `/api/phone-numbers/${ids[0]}`, { body: body.set });
    expect(single.body).toMatchObject({ detail: resultsOf(answer)[0]?.detail });
  });

  it('leaves numbers unconfirmed of which the account says nothing', async () => {
    const numbers = unused(2);
    const ids = await imported(numbers);
    const target = await newAccount(client, numbers, { answers: ['restricted'] });

    const answer = await bulkUpdate({ integration_id, set: { integration_id: target.integration_id } }, { by: client });

    expect(answer.status).toBe(200);
    expect(await valuesOf(ids, 'ownership')).toEqual(['unconfirmed', 'unconfirmed']);
  });

  it('asks nobody with ?verify=false, and the numbers are unconfirmed', async () => {
    const numbers = unused(2);
    const home = await newAccount(client, numbers);
    for (const phone_number of numbers) {
      await call(client, 'POST', '/api/phone-numbers', {
        body: { phone_number, provider: 'twilio', integration_id: home.integration_id },
      });
    }
    const ids = await idsOf(client);
    expect(await valuesOf(ids, 'ownership')).toEqual(['confirmed', 'confirmed']);
    const target = await newAccount(client, []);

    const answer = await bulkUpdate(
      { phone_number_ids: ids, set: { integration_id: target.integration_id } },
      { by: client, query: '?verify=false' },
    );

    expect(answer.status).toBe(200);
    expect(await valuesOf(ids, 'ownership')).toEqual(['unconfirmed', 'unconfirmed']);
    expect(await callsWith(target.secret)).toEqual([]);
  });

  it('asks nobody about numbers that stay with the same account', async () => {
    const ids = await imported(unused(2));
    const target = await createIntegration(client);
    const { bindings, calls } = countedBindings();

    const answer = await bulkUpdate({ integration_id, set: { integration_id: target } }, { by: client, bindings });

    expect(answer.status).toBe(200);
    expect(calls).toEqual(['DB.batch', 'DB.batch']);
    expect(await valuesOf(ids, 'integration_id')).toEqual([target, target]);
  });

  it('asks only about the numbers that change their account', async () => {
    const [stays, moves] = [unused(1), unused(1)];
    const target = await newAccount(client, moves);
    const ids = [...(await imported(stays, target.integration_id)), ...(await imported(moves))];

    const answer = await bulkUpdate(
      { phone_number_ids: ids, set: { integration_id: target.integration_id } },
      { by: client },
    );

    // The account lacks the number that it has here already.
    expect(answer.status).toBe(200);
    expect(await valuesOf(ids, 'ownership')).toEqual(['unconfirmed', 'confirmed']);
  });

  it('asks nobody if something else stands against it', async () => {
    const numbers = unused(2);
    const ids = await imported(numbers);
    const target = await newAccount(client, numbers);

    const answer = await bulkUpdate(
      { phone_number_ids: [...ids, await importSip(client)], set: { integration_id: target.integration_id } },
      { by: client },
    );

    expect(codesOf(answer)).toEqual(['not_done', 'not_done', 'validation_failed']);
    expect(await callsWith(target.secret)).toEqual([]);
  });

  it('is refused if the credentials of the target are', async () => {
    const numbers = unused(2);
    await imported(numbers);
    const target = await newAccount(client, numbers, { answers: ['refused'] });
    const before = await rows('phone_numbers');

    for (const query of ['?dry_run=true', '']) {
      expect(
        await bulkUpdate({ integration_id, set: { integration_id: target.integration_id } }, { by: client, query }),
      ).toMatchObject({ status: 422, body: { code: 'credentials_refused' } });
    }
    expect(await rows('phone_numbers')).toEqual(before);
    expect(await trail(client)).toEqual([]);
  });

  describe('that would take too many calls to the provider', () => {
    async function prepared() {
      const many = Array.from({ length: 1100 }, (_, index) => `+${14_155_900_000 + index}`);
      const home = await newAccount(client, [], { provider: 'plivo' });
      await env.DB.prepare(
        `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
         INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
           supports_inbound, supports_outbound, created_at, updated_at)
         SELECT 'phon_' || printf('%012x', i), ?, ?, '+' || (14155901000 + i), 'plivo', 'free', 0, 0, 0, 0 FROM n`,
      )
        .bind(client.organization_id, home.integration_id)
        .run();
      const target = await newAccount(client, many, { provider: 'plivo' });
      return {
        home,
        target,
        body: { integration_id: home.integration_id, set: { integration_id: target.integration_id } },
      };
    }

    it.each(['', '?dry_run=true'])('is refused as a whole: %s', async (query) => {
      const { body, target } = await prepared();
      const before = await kept();

      expect(await bulkUpdate(body, { by: client, query })).toMatchObject({
        status: 422,
        body: { code: 'too_many_to_verify' },
      });
      expect((await callsWith(target.secret)).length).toBe(50);
      expect(await kept()).toEqual(before);
    });

    it('is done with ?verify=false', async () => {
      const { body } = await prepared();

      expect(await bulkUpdate(body, { by: client, query: '?verify=false' })).toMatchObject({
        status: 200,
        body: { message: '100 phone numbers updated successfully' },
      });
    });
  });

  it('is refused as a whole if the budget of provider calls ends the questions', async () => {
    const numbers = unused(30);
    const home = await newAccount(client, [], { provider: 'plivo' });
    await call(client, 'POST', '/api/phone-numbers/bulk?verify=false', {
      body: { integration_id: home.integration_id, phone_numbers: numbers },
    });
    const target = await newAccount(client, [...unused(2000), ...numbers], { provider: 'plivo' });
    let left = 10;
    const bindings = { ...env, ENTERPRISE_PROVIDER_LIMIT: { limit: async () => ({ success: (left -= 1) >= 0 }) } };
    const before = await rows('phone_numbers');

    const answer = await bulkUpdate(
      { integration_id: home.integration_id, set: { integration_id: target.integration_id } },
      { by: client, bindings },
    );

    expect(answer).toMatchObject({ status: 422, body: { code: 'too_many_to_verify' } });
    expect(await rows('phone_numbers')).toEqual(before);
  });
});

describe('a refused update of many numbers changes none', () => {
  it('if one of them is not there, or another organization’s: the answer is the same', async () => {
    const ids = await imported(unused(1));
    const theirs = await importSip(await newClient());
    const before = await kept();

    const answers = [];
    for (const absent of [NO_NUMBER, theirs]) {
      const body = { phone_number_ids: [absent, ...ids], set: { supports_inbound: true } };
      const answer = await bulkUpdate(body, { by: client });
      expect(answer).toMatchObject({ status: 422, body: { code: 'phone_numbers_not_updated' } });
      expect(resultsOf(answer)[0]).toMatchObject({ phone_number: null, code: 'phone_number_not_found' });
      answers.push(answer.text.replaceAll(absent, 'phon').replace(/"request_id":"[^"]+"/, ''));
    }

    expect(answers[0]).toBe(answers[1]);
    expect(await kept()).toEqual(before);
  });

  it('if the integration is not there, or another organization’s: as the source and as the target', async () => {
    const other = await newClient();
    const theirs = await createIntegration(other);
    await importNumber(other, theirs, unusedNumber());
    const phone_number_ids = await imported(unused(1));
    const before = await kept();

    for (const absent of [NO_INTEGRATION, theirs]) {
      for (const query of ['', '?dry_run=true', '?verify=false']) {
        for (const body of [
          { integration_id: absent, set: { supports_inbound: true } },
          { phone_number_ids, set: { integration_id: absent } },
        ]) {
          expect(await bulkUpdate(body, { by: client, query })).toMatchObject({
            status: 404,
            body: { code: 'integration_not_found' },
          });
        }
      }
    }
    expect(await kept()).toEqual(before);
  });

  it('if the target is of another provider, or a number has none', async () => {
    const target = await newAccount(client, [], { provider: 'telnyx' });
    const ids = [...(await imported(unused(1))), await importSip(client)];
    const before = await kept();

    const set = { integration_id: target.integration_id };
    const answer = await bulkUpdate({ phone_number_ids: ids, set }, { by: client });

    expect(codesOf(answer)).toEqual(['validation_failed', 'validation_failed']);
    for (const [index, id] of ids.entries()) {
      const single = await call(client, 'PUT', `/api/phone-numbers/${id}`, { body: set });
      expect(single.body).toMatchObject({ detail: resultsOf(answer)[index]?.detail });
    }
    expect(await kept()).toEqual(before);
  });

  it('if a SIP number without a server would support outbound', async () => {
    const id = await importSip(client);
    const ids = [id, ...(await imported(unused(1)))];
    const before = await kept();

    const set = { supports_outbound: true };
    const answer = await bulkUpdate({ phone_number_ids: ids, set }, { by: client });

    expect(codesOf(answer)).toEqual(['validation_failed', 'not_done']);
    const single = await call(client, 'PUT', `/api/phone-numbers/${id}`, { body: set });
    expect(single.body).toMatchObject({ detail: resultsOf(answer)[0]?.detail });
    expect(await kept()).toEqual(before);
    await call(client, 'PUT', `/api/phone-numbers/${id}`, { body: { sip_server_address: 'sip.example.com' } });
    expect(await bulkUpdate({ phone_number_ids: ids, set }, { by: client })).toMatchObject({ status: 200 });
  });

  it('if the integration has more than 10,000', async () => {
    await fillNumbers(client, integration_id, 10_001);
    const body = { integration_id, set: { supports_inbound: true } };

    for (const query of ['', '?dry_run=true']) {
      expect(await bulkUpdate(body, { by: client, query })).toMatchObject({
        status: 422,
        body: { code: 'too_many_references', limit: 10_000 },
      });
    }
    expect(await trail(client)).toEqual([]);
  });

  it.each(['', '?dry_run=true'])('if the audit events have room for fewer: %s', async (query) => {
    const ids = await imported(unused(3));
    await limit('max_audit_events', (await counted('audit_event_count')) + 2);
    const before = await kept();
    const set = { supports_inbound: true };

    const answer = await bulkUpdate({ phone_number_ids: ids, set }, { by: client, query });

    expect(answer).toMatchObject({ status: 409, body: { code: 'quota_exceeded', quota: 'audit_events' } });
    expect(await kept()).toEqual(before);
    expect(await bulkUpdate({ phone_number_ids: ids.slice(1), set }, { by: client })).toMatchObject({ status: 200 });
  });

  it.each(['', '&dry_run=true'])('if too many would become unconfirmed: %s', async (query) => {
    const ids = await imported(unused(3));
    await env.DB.prepare(`UPDATE phone_numbers SET ownership = 'confirmed', ownership_due_at = NULL`).run();
    const target = await newAccount(client, []);
    await limit('max_unconfirmed_numbers', 2);
    const before = await kept();
    const set = { integration_id: target.integration_id };
    const by = { by: client, query: `?verify=false${query}` };

    const answer = await bulkUpdate({ phone_number_ids: ids, set }, by);

    expect(answer).toMatchObject({
      status: 409,
      body: { code: 'quota_exceeded', quota: 'unconfirmed_numbers', limit: 2 },
    });
    expect(await kept()).toEqual(before);
    expect(await bulkUpdate({ phone_number_ids: ids.slice(1), set }, by)).toMatchObject({ status: 200 });
  });

  it('but one that makes none unconfirmed works beyond that quota', async () => {
    const ids = await imported(unused(2));
    await limit('max_unconfirmed_numbers', 0);

    expect(
      await bulkUpdate({ phone_number_ids: ids, set: { assigned_agent_id: AGENT } }, { by: client }),
    ).toMatchObject({ status: 200 });
  });

  it.each(keyChanges)('if the key %s', async (_, assignment, status, code) => {
    const ids = await imported(unused(2));
    const other = await newClient({ organization_id: client.organization_id });
    await call(other, 'GET', '/api/phone-numbers');
    await changeKey(other, assignment);
    const before = await resources();

    for (const query of ['', '?dry_run=true']) {
      const body = { phone_number_ids: ids, set: { supports_inbound: true } };
      expect(await bulkUpdate(body, { by: other, query })).toMatchObject({ status, body: { code } });
    }
    expect(await resources()).toEqual(before);
  });
});

describe('a body', () => {
  const phone_number_ids = [NO_NUMBER];

  it.each([
    [{ phone_number_ids }, 'set', 'is required'],
    [{ phone_number_ids, set: null }, 'set', 'must not be null'],
    [{ phone_number_ids, set: {} }, 'set', 'must change at least one field'],
    [{ phone_number_ids, set: [] }, 'set', 'must be an object'],
    [{ phone_number_ids, set: { integration_id: null } }, 'set.integration_id', 'must not be null'],
    [{ phone_number_ids, set: { supports_inbound: null } }, 'set.supports_inbound', 'must not be null'],
    [{ phone_number_ids, set: { supports_inbound: 1 } }, 'set.supports_inbound', 'must be true or false'],
    [{ phone_number_ids, set: { sip_password: 'plaintext' } }, 'set.sip_password', 'is not a known field'],
    [
      { phone_number_ids, set: { assigned_agent_id: 'agent_' } },
      'set.assigned_agent_id',
      'must be agent_ followed by 1 to 64 of A–Z, a–z, 0–9, _ and -',
    ],
    [{ set: { supports_inbound: true } }, '', 'must have either phone_number_ids or integration_id'],
    [
      { phone_number_ids, integration_id: NO_INTEGRATION, set: { supports_inbound: true } },
      '',
      'must have either phone_number_ids or integration_id',
    ],
    [
      { phone_number_ids: [NO_NUMBER, NO_NUMBER], set: { supports_inbound: true } },
      'phone_number_ids',
      'must not have an id twice',
    ],
  ])('%# is refused, and says what must be mended', async (body, path, message) => {
    const before = await kept();

    expect(await bulkUpdate(body, { by: client })).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path, message: expect.stringContaining(message) }] },
    });
    expect(await kept()).toEqual(before);
  });
});

describe('a repeat under the same Idempotency-Key', () => {
  it.each(['phone_number_ids', 'integration_id'] as const)('gives the first answer again, by %s', async (by) => {
    const numbers = unused(3);
    const ids = await imported(numbers);
    const target = await newAccount(client, numbers);
    const set = { integration_id: target.integration_id };
    const body = by === 'integration_id' ? { integration_id, set } : { phone_number_ids: ids.toReversed(), set };
    const first = await bulkUpdate(body, { by: client, key: 'one' });
    await imported(unused(1));
    await assign(client, ids[0] ?? '');
    const before = await kept();

    const repeat = await bulkUpdate(body, { by: client, key: 'one' });

    expect(first.status).toBe(200);
    expect(repeat.body).toEqual(first.body);
    expect(repeat.headers.get('Idempotency-Replayed')).toBe('true');
    expect(await kept()).toEqual(before);
    expect(await callsWith(target.secret)).toHaveLength(1);
  });

  it('of two at the same time, one acts and the other gets its answer', async () => {
    const ids = await imported(unused(3));
    const body = { phone_number_ids: ids, set: { supports_inbound: true } };

    const answers = await Promise.all([1, 2].map(() => bulkUpdate(body, { by: client, key: 'one' })));

    expect(answers[0]?.body).toEqual(answers[1]?.body);
    expect(await trail(client)).toHaveLength(3);
  });
});

/** What another call does between the account’s answer and the batch. */
const races: [string, (ids: string[], target: string) => Promise<unknown>, string[]][] = [
  [
    'a number is deleted',
    ([first = '']) => call(client, 'DELETE', `/api/phone-numbers/${first}`),
    ['phone_number_not_found', 'not_done', 'not_done'],
  ],
  [
    'a number moves to the target',
    ([first = ''], target) =>
      call(client, 'PUT', `/api/phone-numbers/${first}?verify=false`, { body: { integration_id: target } }),
    ['updated', 'updated', 'updated'],
  ],
  ['a number is assigned', ([first = '']) => assign(client, first), ['updated', 'updated', 'updated']],
];

describe('between the account’s answer and the batch', () => {
  it.each(races)('%s: all or none', async (_, act, codes) => {
    const numbers = unused(3);
    const ids = await imported(numbers);
    const target = await newAccount(client, numbers);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const slowly = bulkUpdate(
      { phone_number_ids: ids, set: { integration_id: target.integration_id } },
      { by: client, bindings },
    );
    await stalls;
    await act(ids, target.integration_id);
    const before = await kept();
    letGo();

    const answer = await slowly;

    expect(codesOf(answer)).toEqual(codes);
    const moved = (await rows('phone_numbers')).map((row) => row['integration_id'] === target.integration_id);
    expect(new Set(moved)).toEqual(new Set([answer.status === 200]));
    expect(answer.status === 200 || (await kept())).toEqual(answer.status === 200 || before);
  });

  it('numbers are imported through the integration: the account is asked about them too', async () => {
    const numbers = unused(3);
    await imported(numbers.slice(0, 2));
    const target = await newAccount(client, numbers);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const slowly = bulkUpdate(
      { integration_id, set: { integration_id: target.integration_id } },
      { by: client, bindings },
    );
    await stalls;
    await imported(numbers.slice(2));
    letGo();

    expect(codesOf(await slowly)).toEqual(['updated', 'updated', 'updated']);
    expect(await valuesOf(await idsOf(client), 'ownership')).toEqual(['confirmed', 'confirmed', 'confirmed']);
    expect(await callsWith(target.secret)).toHaveLength(2);
  });

  it('the credentials of the target are replaced: the new account is asked', async () => {
    const numbers = unused(2);
    const ids = await imported(numbers);
    const target = await newAccount(client, numbers);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const slowly = bulkUpdate(
      { phone_number_ids: ids, set: { integration_id: target.integration_id } },
      { by: client, bindings },
    );
    await stalls;
    const { account_sid, auth_token } = {
      account_sid: `AC${crypto.randomUUID().replaceAll('-', '')}`,
      auth_token: await secretHolding(numbers.slice(0, 1)),
    };
    await call(client, 'PUT', `/api/integrations/${target.integration_id}?verify=false`, {
      body: { credentials: { provider: 'twilio', account_sid, auth_token } },
    });
    const before = await kept();
    letGo();

    expect(codesOf(await slowly)).toEqual(['not_done', 'phone_number_not_in_account']);
    expect(await kept()).toEqual(before);
  });
});

describe('a late try', () => {
  /** Carries an update out, and returns its batch to be sent again. */
  async function updated(body: object, query = '') {
    let late = async (): Promise<unknown> => undefined;
    const bindings = interceptedBindings((name, carryOut, { statements }) => {
      if (name === 'DB.batch' && statements.some(({ sql }) => sql.startsWith('update'))) late = carryOut;
      return carryOut();
    });
    expect(await bulkUpdate(body, { by: client, bindings, query })).toMatchObject({ status: 200 });
    return () => late();
  }

  it('does not change a number back that was changed since', async () => {
    const ids = await imported(unused(3));
    const late = await updated({ phone_number_ids: ids, set: { assigned_agent_id: AGENT } });
    for (const id of ids) await assign(client, id, null);
    const before = await kept();

    await late();

    expect(await kept()).toEqual(before);
  });

  it('changes none of the others if one was deleted since', async () => {
    const ids = await imported(unused(3));
    const late = await updated({ phone_number_ids: ids, set: { supports_inbound: true } });
    await call(client, 'DELETE', `/api/phone-numbers/${ids[0]}`);
    const before = await kept();

    await late();

    expect(await kept()).toEqual(before);
  });

  it('spares numbers that came to the integration since', async () => {
    await imported(unused(2));
    const late = await updated({ integration_id, set: { supports_inbound: true } });
    await imported(unused(1));
    const before = await kept();

    await late();

    expect(await kept()).toEqual(before);
  });

  it('spares numbers that came back to the integration since', async () => {
    const ids = await imported(unused(2));
    const target = await createIntegration(client);
    const late = await updated({ integration_id, set: { integration_id: target } });
    for (const id of ids) await call(client, 'PUT', `/api/phone-numbers/${id}`, { body: { integration_id } });
    const before = await kept();

    await late();

    expect(await kept()).toEqual(before);
  });

  it('answers what an earlier try did', async () => {
    const ids = await imported(unused(3));
    const lost = { when: 'after', message: 'Network connection lost', times: 1 } as const;
    const { bindings } = failingBindings('DB.batch', lost);

    const answer = await bulkUpdate(
      { phone_number_ids: ids, set: { supports_inbound: true } },
      { by: client, bindings },
    );

    expect(codesOf(answer)).toEqual(['updated', 'updated', 'updated']);
    expect(await trail(client)).toHaveLength(3);
    expect((await rows('phone_numbers')).map((row) => row['revision'])).toEqual([2, 2, 2]);
  });
});

describe('its cost', () => {
  it.each([1, 1000])('is one batch for %d numbers', async (count) => {
    await fillNumbers(client, integration_id, count);
    const body = { phone_number_ids: await idsOf(client), set: { supports_inbound: true } };
    const { bindings, calls } = countedBindings();

    expect(await bulkUpdate(body, { by: client, bindings })).toMatchObject({ status: 200 });
    expect(calls.filter((name) => name.startsWith('DB'))).toEqual(['DB.batch']);
  });

  it('is in proportion to the numbers, for 10,000 that move to another account', async () => {
    const moved = async (count: number) => {
      const home = await createIntegration(client);
      const numbers = await fillNumbers(client, home, count);
      const target = await newAccount(client, numbers, { provider: 'twilio' });
      const { bindings, meter } = meteredBindings();
      const body = { integration_id: home, set: { integration_id: target.integration_id } };
      const answer = await bulkUpdate(body, { by: client, bindings });
      expect(answer).toMatchObject({ status: 200 });
      expect(resultsOf(answer)).toHaveLength(count);
      return meter;
    };
    await fillNumbers(await newClient(), null, 2000);

    const few = await moved(500);
    const many = await moved(10_000);

    expect(few.batches).toBe(2);
    expect(many.batches).toBe(2);
    expect(many.rowsRead).toBeLessThan(few.rowsRead * 20.2);
  });
});

const refused = z.object({ code: z.string(), data: z.never().optional() });

/** What an act came to, or a dry run says that it would: the error of the whole call, or else the results. */
function verdictOf(answer: { body: unknown }) {
  const whole = refused.safeParse(answer.body).data;
  return whole ? whole.code : resultsOf(answer);
}

describe('a dry run', () => {
  it('says what would be done, asks the account, and writes nothing', async () => {
    const numbers = unused(2);
    const ids = await imported(numbers);
    const target = await newAccount(client, numbers);
    const before = await kept();

    const answer = await bulkUpdate(
      { phone_number_ids: ids, set: { integration_id: target.integration_id } },
      { by: client, query: '?dry_run=true', key: 'one' },
    );

    expect(answer).toMatchObject({
      status: 200,
      body: { message: '2 phone numbers would be updated', data: { would_update: true } },
    });
    expect(codesOf(answer)).toEqual(['updated', 'updated']);
    expect(await callsWith(target.secret)).toHaveLength(1);
    expect(await kept()).toEqual(before);
  });

  it('is not answered from an Idempotency-Key', async () => {
    const ids = await imported(unused(1));
    const body = { phone_number_ids: ids, set: { supports_inbound: true } };
    await bulkUpdate(body, { by: client, key: 'one' });
    await call(client, 'DELETE', `/api/phone-numbers/${ids[0]}`);

    const answer = await bulkUpdate(body, { by: client, key: 'one', query: '?dry_run=true' });

    expect(codesOf(answer)).toEqual(['phone_number_not_found']);
    expect(answer.headers.has('Idempotency-Replayed')).toBe(false);
  });

  it('agrees with the call itself, whatever the numbers and the change are', async () => {
    const held = unused(40);
    const target = await newAccount(client, held);
    const other = await newAccount(client, [], { provider: 'telnyx' });
    const targets = [target.integration_id, other.integration_id, integration_id, NO_INTEGRATION];
    const number = fc.constantFrom('held', 'stranger', 'assigned', 'sip', 'absent', 'of the target');
    const make = async (kind: string): Promise<string> => {
      if (kind === 'absent') return `phon_${crypto.randomUUID().slice(-12)}`;
      if (kind === 'sip') return importSip(client);
      const phone_number = kind === 'held' ? (held.pop() ?? unusedNumber()) : unusedNumber();
      const id = await importNumber(
        client,
        kind === 'of the target' ? target.integration_id : integration_id,
        phone_number,
      );
      if (kind === 'assigned') await assign(client, id);
      return id;
    };
    const property = fc.asyncProperty(
      fc.array(number, { minLength: 1, maxLength: 3 }),
      fc.record(
        { integration_id: fc.nat(3), assigned_agent_id: fc.constantFrom(null, AGENT), supports_outbound: fc.boolean() },
        { requiredKeys: [] },
      ),
      fc.boolean(),
      fc.constantFrom(0, 2, 100),
      async (kinds, { integration_id: chosen, ...given }, verify, room) => {
        await limit('max_audit_events', 1e6);
        const phone_number_ids = await Promise.all(kinds.map(make));
        await limit('max_audit_events', (await counted('audit_event_count')) + room);
        const set = {
          ...given,
          ...(chosen === undefined ? {} : { integration_id: targets[chosen] }),
          ...(chosen === undefined && Object.keys(given).length === 0 && { supports_inbound: true }),
        };
        const before = await kept();

        const trial = await bulkUpdate(
          { phone_number_ids, set },
          { by: client, query: `?dry_run=true&verify=${verify}` },
        );
        expect(await kept()).toEqual(before);
        const act = await bulkUpdate({ phone_number_ids, set }, { by: client, query: `?verify=${verify}` });

        expect(verdictOf(trial)).toEqual(verdictOf(act));
        expect(act.status === 200 || (await kept())).toEqual(act.status === 200 || before);
      },
    );
    await fc.assert(property, { numRuns: 30, seed: 20_261_128 });
  });
});
