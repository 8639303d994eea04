/** The delete of an integration with what becomes of its phone numbers, in one step: all of it is done, or nothing. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { newAccount } from '../accounts.ts';
import { interceptedBindings } from '../bindings.ts';
import { assertInvariants, dataOf } from '../faults/invariants.ts';
import {
  call,
  createIntegration,
  emptyStorage,
  eventsOn,
  everythingKept,
  fillNumbers,
  importNumber,
  newClient,
  resources,
  rowOf,
  rows,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { callsWith } from '../simulation.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const agent = 'agent_a1b2c3d4e5f6';

let client: Client;
let source: string;

beforeEach(async () => {
  await emptyStorage();
  vi.spyOn(Math, 'random').mockReturnValue(0);
  vi.spyOn(console, 'error').mockImplementation(() => {});
  client = await newClient();
  source = await createIntegration(client);
});

afterEach(async () => {
  vi.restoreAllMocks();
  await assertInvariants(client.organization_id);
});

const remove = (query: string, { by = client, bindings = env, key = '', id = source } = {}) =>
  call(by, 'DELETE', `/api/integrations/${id}?${query}`, {
    bindings,
    ...(key && { headers: { 'Idempotency-Key': key } }),
  });

const assign = (phone_number_id: string, assigned_agent_id: string | null = agent) =>
  call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, { body: { assigned_agent_id } });

/** An integration of the same account, as far as is known. */
const sameAccount = () => createIntegration(client);

/** Everything but the trail's refusals, which a refused delete may leave. */
async function kept() {
  const { d1, CREDENTIALS } = await everythingKept();
  const { audit_events, organizations, ...others } = d1;
  const acts = (audit_events ?? []).filter(({ action }) => !String(action).endsWith('_refused'));
  expect(organizations).toBeDefined();
  return { others, acts, CREDENTIALS };
}

/** The trail of the organization since it had so many events: what was done to what. */
async function trailSince(count: number) {
  const { audit_events } = await dataOf(client.organization_id);
  return audit_events
    .toSorted((one, other) => Number(one['sequence']) - Number(other['sequence']))
    .slice(count)
    .map(({ action, target_id }) => [action, target_id]);
}

const trailLength = async () => (await dataOf(client.organization_id)).audit_events.length;

describe('a delete that reassigns the phone numbers', () => {
  it('moves every number, deletes the integration, and answers as any delete does', async () => {
    const target = await sameAccount();
    const numbers = [unusedNumber(), unusedNumber()];
    const ids = [
      await importNumber(client, source, numbers[0] ?? ''),
      await importNumber(client, source, numbers[1] ?? ''),
    ];
    const before = await call(client, 'GET', `/api/integrations/${source}`);
    const length = await trailLength();

    const { status, text, headers } = await remove(`reassign_to=${target}`);

    expect(status).toBe(200);
    const { account_hint: _, verification: __, ...data } = JSON.parse(before.text).data;
    expect(text).toBe(JSON.stringify({ success: true, message: 'Integration deleted successfully', data }));
    expect(headers.get('X-Reassigned-Count')).toBe('2');
    expect(headers.get('X-Removed-Count')).toBeNull();
    for (const id of ids) {
      expect(await call(client, 'GET', `/api/phone-numbers/${id}`)).toMatchObject({
        body: { data: { integration_id: target } },
      });
    }
    expect((await call(client, 'GET', `/api/integrations/${source}`)).status).toBe(404);
    expect(await trailSince(length)).toEqual([
      ['phone_number.updated', ids[0]],
      ['phone_number.updated', ids[1]],
      ['integration.deleted', source],
    ]);
    expect(await rowOf('integrations', target)).toMatchObject({ phone_number_count: 2 });
  });

  it('tells in each event from where to where the number went', async () => {
    const target = await sameAccount();
    const id = await importNumber(client, source, unusedNumber());
    await remove(`reassign_to=${target}`);

    const { body } = await call(client, 'GET', `/api/audit-events?target_id=${id}`);

    expect(body).toMatchObject({
      data: [{}, { action: 'phone_number.updated', changes: { integration_id: { from: source, to: target } } }],
    });
    expect(await eventsOn(id)).toMatchObject([{}, { state: { revision: 1 } }]);
    expect(await rowOf('phone_numbers', id)).toMatchObject({ revision: 2 });
  });

  it('keeps the agent, the capabilities and the ownership of each number', async () => {
    const target = await sameAccount();
    const id = await importNumber(client, source, unusedNumber());
    await assign(id);
    await env.DB.prepare(`UPDATE phone_numbers SET ownership = 'confirmed', ownership_due_at = 0`).run();
    const before = await rowOf('phone_numbers', id);

    await remove(`reassign_to=${target}`);

    const { integration_id, revision, updated_at, ...others } = before;
    expect(await rowOf('phone_numbers', id)).toMatchObject({ ...others, integration_id: target, revision: 3 });
    expect({ integration_id, revision, updated_at }).toMatchObject({ integration_id: source, revision: 2 });
  });

  it('does the same where no number uses the integration', async () => {
    const { status, headers } = await remove(`reassign_to=${await sameAccount()}`);

    expect(status).toBe(200);
    expect(headers.get('X-Reassigned-Count')).toBe('0');
  });

  const misfits = [
    ['is the integration itself', 'same_integration', async () => source],
    ['does not exist', 'integration_not_found', async () => 'intg_000000000000'],
    ['is another organization’s', 'integration_not_found', async () => createIntegration(await newClient())],
    [
      'is of another provider',
      'other_provider',
      async () => createIntegration(client, { provider: 'telnyx', api_key: 'plaintext-key' }),
    ],
  ] as const;

  it.each(misfits)('is refused if the target %s, and nothing happens', async (_, reason, targetOf) => {
    await importNumber(client, source, unusedNumber());
    const target = await targetOf();
    const before = await everythingKept();

    const { status, body } = await remove(`reassign_to=${target}`);

    expect({ status, body }).toMatchObject({
      status: 422,
      body: { code: 'invalid_reassign_target', reason, phone_numbers: [] },
    });
    expect(await everythingKept()).toEqual(before);
  });

  it('answers for a missing and for a foreign target in the same words', async () => {
    const foreign = await createIntegration(await newClient());
    const answers = [await remove(`reassign_to=${foreign}`), await remove('reassign_to=intg_000000000000')];

    const [first, second] = answers.map(({ status, text }) => [status, text.replace(/"request_id":"[^"]+"/, '')]);
    expect(first).toEqual(second);
  });

  describe('to another account', () => {
    it('asks it, and what it holds is confirmed', async () => {
      const numbers = [unusedNumber(), unusedNumber()].toSorted();
      const ids = await Promise.all(numbers.map((number) => importNumber(client, source, number)));
      const { integration_id: target, secret } = await newAccount(client, numbers);

      const { status, headers } = await remove(`reassign_to=${target}`);

      expect(status).toBe(200);
      expect(headers.get('X-Reassigned-Count')).toBe('2');
      expect(await callsWith(secret)).not.toEqual([]);
      for (const id of ids) {
        expect(await rowOf('phone_numbers', id)).toMatchObject({
          integration_id: target,
          ownership: 'confirmed',
          ownership_due_at: null,
        });
      }
    });

    it('is refused if it does not hold them all, names those that it does not, and nothing happens', async () => {
      const numbers = [unusedNumber(), unusedNumber(), unusedNumber()].toSorted();
      const ids = await Promise.all(numbers.map((number) => importNumber(client, source, number)));
      const { integration_id: target } = await newAccount(client, numbers.slice(0, 1));
      const before = await everythingKept();

      const { status, body } = await remove(`reassign_to=${target}`);

      expect({ status, body }).toMatchObject({
        status: 422,
        body: {
          code: 'invalid_reassign_target',
          reason: 'phone_number_not_in_account',
          phone_numbers: [1, 2].map((place) => ({ phone_number_id: ids[place], phone_number: numbers[place] })),
        },
      });
      expect(await everythingKept()).toEqual(before);
    });

    it('asks nobody with verify=false, and the numbers are unconfirmed', async () => {
      const id = await importNumber(client, source, unusedNumber());
      await env.DB.prepare(`UPDATE phone_numbers SET ownership = 'confirmed', ownership_due_at = NULL`).run();
      const { integration_id: target, secret } = await newAccount(client, []);

      expect((await remove(`reassign_to=${target}&verify=false`)).status).toBe(200);

      expect(await callsWith(secret)).toEqual([]);
      expect(await rowOf('phone_numbers', id)).toMatchObject({ integration_id: target, ownership: 'unconfirmed' });
    });

    it('is refused where its provider refuses the credentials, and nothing moves', async () => {
      const id = await importNumber(client, source, unusedNumber());
      const { integration_id: target } = await newAccount(client, [], { answers: ['refused'] });

      expect(await remove(`reassign_to=${target}`)).toMatchObject({
        status: 422,
        body: { code: 'credentials_refused' },
      });
      expect(await rowOf('phone_numbers', id)).toMatchObject({ integration_id: source });
    });

    it.each(['restricted', 'broken'] as const)(
      'moves the numbers, unconfirmed, where its provider answers that it is %s',
      async (answer) => {
        const id = await importNumber(client, source, unusedNumber());
        await env.DB.prepare(`UPDATE phone_numbers SET ownership = 'confirmed', ownership_due_at = NULL`).run();
        const { integration_id: target } = await newAccount(client, [], { answers: [answer] });

        expect((await remove(`reassign_to=${target}`)).status).toBe(200);
        expect(await rowOf('phone_numbers', id)).toMatchObject({ integration_id: target, ownership: 'unconfirmed' });
      },
    );

    it('is refused where it would take more calls than we make, and nothing happens', async () => {
      await fillNumbers(client, source, 1_100);
      await env.DB.prepare(`UPDATE integrations SET provider = 'plivo' WHERE integration_id = ?`).bind(source).run();
      await env.DB.prepare(`UPDATE phone_numbers SET provider = 'plivo'`).run();
      const { results } = await env.DB.prepare('SELECT phone_number FROM phone_numbers').all();
      const numbers = z.array(z.object({ phone_number: z.string() })).parse(results);
      const { integration_id: target } = await newAccount(
        client,
        numbers.map(({ phone_number }) => phone_number),
        { provider: 'plivo' },
      );
      const before = await resources();

      const { status, body } = await remove(`reassign_to=${target}`);

      expect({ status, body }).toMatchObject({ status: 422, body: { code: 'too_many_to_verify' } });
      expect(await resources()).toEqual(before);
      expect((await remove(`reassign_to=${target}&verify=false`)).status).toBe(200);
    });

    it('begins again if a number comes to the integration while the account answers', async () => {
      const [first, second] = [unusedNumber(), unusedNumber()];
      const firstId = await importNumber(client, source, first);
      const { integration_id: target } = await newAccount(client, [first, second]);
      let secondId = '';
      const bindings = interceptedBindings(async (name, carryOut) => {
        if (name === 'provider.fetch' && secondId === '') secondId = await importNumber(client, source, second);
        return carryOut();
      });

      const { status, headers } = await remove(`reassign_to=${target}`, { bindings });

      expect(status).toBe(200);
      expect(headers.get('X-Reassigned-Count')).toBe('2');
      for (const id of [firstId, secondId]) {
        expect(await rowOf('phone_numbers', id)).toMatchObject({ integration_id: target, ownership: 'confirmed' });
      }
    });

    it('is no longer done if the caller’s key is revoked while the account answers', async () => {
      const id = await importNumber(client, source, unusedNumber());
      const { integration_id: target } = await newAccount(client, []);
      const caller = await newClient({ organization_id: client.organization_id });
      await call(caller, 'GET', '/api/integrations');
      const before = await resources();
      const bindings = interceptedBindings(async (name, carryOut) => {
        if (name === 'provider.fetch') await call(client, 'DELETE', `/api/api-keys/${caller.key_id}`);
        return carryOut();
      });

      const { integration_id: holding } = await newAccount(client, [
        String((await rowOf('phone_numbers', id))['phone_number']),
      ]);
      const { status } = await remove(`reassign_to=${holding}`, { by: caller, bindings });

      expect(status).toBe(401);
      expect((await resources()).phone_numbers).toEqual(before.phone_numbers);
      expect(target).not.toBe(holding);
    });
  });

  it('needs room for an event for each number, and nothing happens without it', async () => {
    const target = await sameAccount();
    await fillNumbers(client, source, 5);
    const length = await trailLength();
    await env.DB.prepare(`UPDATE organizations SET max_audit_events = ? WHERE organization_id = ?`)
      .bind(length + 4, client.organization_id)
      .run();
    const before = await resources();

    const refused = await remove(`reassign_to=${target}`);
    expect(refused).toMatchObject({ status: 409, body: { code: 'quota_exceeded', quota: 'audit_events' } });
    expect(await resources()).toEqual(before);

    await env.DB.prepare('UPDATE organizations SET max_audit_events = max_audit_events + 1').run();
    expect((await remove(`reassign_to=${target}`)).status).toBe(200);
  });

  it('needs room for the numbers that it makes unconfirmed', async () => {
    const { integration_id: target } = await newAccount(client, []);
    await fillNumbers(client, source, 3);
    await env.DB.prepare(`UPDATE phone_numbers SET ownership = 'confirmed'`).run();
    await env.DB.prepare('UPDATE organizations SET max_unconfirmed_numbers = 2').run();
    const before = await resources();

    const refused = await remove(`reassign_to=${target}&verify=false`);
    expect(refused).toMatchObject({ status: 409, body: { code: 'quota_exceeded', quota: 'unconfirmed_numbers' } });
    expect(await resources()).toEqual(before);

    await env.DB.prepare('UPDATE organizations SET max_unconfirmed_numbers = 3').run();
    expect((await remove(`reassign_to=${target}&verify=false`)).status).toBe(200);
  });

  it('needs no room for numbers that the new account holds', async () => {
    const numbers = await fillNumbers(client, source, 3);
    const { integration_id: target } = await newAccount(client, numbers);
    await env.DB.prepare(`UPDATE phone_numbers SET ownership = 'confirmed'`).run();
    await env.DB.prepare('UPDATE organizations SET max_unconfirmed_numbers = 2').run();

    expect(await remove(`reassign_to=${target}&dry_run=true`)).toMatchObject({
      body: { data: { would_delete: true } },
    });
    expect((await remove(`reassign_to=${target}`)).status).toBe(200);
  });

  it('moves unconfirmed numbers where the quota of them is full already', async () => {
    const { integration_id: target } = await newAccount(client, []);
    await fillNumbers(client, source, 3);
    await env.DB.prepare('UPDATE organizations SET max_unconfirmed_numbers = 1').run();

    expect((await remove(`reassign_to=${target}&verify=false`)).status).toBe(200);
  });
});

describe('a delete that removes the phone numbers', () => {
  it('deletes every number and the integration', async () => {
    const ids = [
      await importNumber(client, source, unusedNumber()),
      await importNumber(client, source, unusedNumber()),
    ];
    const other = await importNumber(client, await sameAccount(), unusedNumber());
    const length = await trailLength();

    const { status, headers } = await remove('remove_phone_numbers=true');

    expect(status).toBe(200);
    expect(headers.get('X-Removed-Count')).toBe('2');
    expect(headers.get('X-Reassigned-Count')).toBeNull();
    expect((await resources()).phone_numbers.map(({ phone_number_id }) => phone_number_id)).toEqual([other]);
    expect(await trailSince(length)).toEqual([
      ['phone_number.deleted', ids[0]],
      ['phone_number.deleted', ids[1]],
      ['integration.deleted', source],
    ]);
  });

  it('is refused while an agent holds one of them, names those, and nothing happens', async () => {
    const [free, held, alsoHeld] = [unusedNumber(), unusedNumber(), unusedNumber()];
    await importNumber(client, source, free);
    const ids = [await importNumber(client, source, held), await importNumber(client, source, alsoHeld)];
    await assign(ids[0] ?? '');
    await assign(ids[1] ?? '', 'agent_other');
    const before = await kept();

    const { status, body } = await remove('remove_phone_numbers=true');

    expect({ status, body }).toMatchObject({
      status: 409,
      body: {
        code: 'phone_number_assigned',
        assigned_agent_id: agent,
        phone_numbers: [
          { phone_number_id: ids[0], phone_number: held, assigned_agent_id: agent },
          { phone_number_id: ids[1], phone_number: alsoHeld, assigned_agent_id: 'agent_other' },
        ],
      },
    });
    expect(Object(body).detail).toContain(`['${held}', '${alsoHeld}']`);
    expect(await kept()).toEqual(before);
    expect(await trailSince(before.acts.length)).toEqual([['integration.delete_refused', source]]);
  });

  it('names the first 100 that agents hold', async () => {
    const numbers = await fillNumbers(client, source, 150);
    await env.DB.prepare(`UPDATE phone_numbers SET assigned_agent_id = '${agent}', status = 'assigned'`).run();

    const { body } = await remove('remove_phone_numbers=true');

    const named = z.object({ phone_numbers: z.array(z.object({ phone_number: z.string() })) }).parse(body);
    expect(named.phone_numbers.map(({ phone_number }) => phone_number)).toEqual(numbers.slice(0, 100));
  });

  it('works at a full quota of events, as every delete does', async () => {
    await fillNumbers(client, source, 3);
    await env.DB.prepare('UPDATE organizations SET max_audit_events = 0').run();

    expect((await remove('remove_phone_numbers=true')).status).toBe(200);
  });
});

describe('a delete that expects a number of references', () => {
  it.each(['', '&remove_phone_numbers=true', '&reassign_to='])(
    'is a 412 where there is another number of them, and nothing happens: with "%s"',
    async (query) => {
      const target = query.endsWith('=') ? await sameAccount() : '';
      await fillNumbers(client, source, 2);
      const before = await everythingKept();

      for (const expected of [0, 1, 3]) {
        const { status, body } = await remove(`expect_references=${expected}${query}${target}`);
        expect({ status, body }).toMatchObject({
          status: 412,
          body: { code: 'precondition_failed', precondition: 'expect_references' },
        });
      }
      expect(await everythingKept()).toEqual(before);
    },
  );

  it('is done where it is right', async () => {
    await fillNumbers(client, source, 2);
    expect((await remove('expect_references=2&remove_phone_numbers=true')).status).toBe(200);

    const other = await createIntegration(client);
    expect((await remove('expect_references=0', { id: other })).status).toBe(200);
  });

  it('is refused as in use where it is right, and the numbers have no other way', async () => {
    await fillNumbers(client, source, 2);

    expect(await remove('expect_references=2')).toMatchObject({ status: 409, body: { code: 'integration_in_use' } });
  });

  it('is a 404 where there is no integration', async () => {
    const missing = await remove('expect_references=2', { id: 'intg_000000000000' });

    expect(missing).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
  });

  it('sees a number that was imported after the preview', async () => {
    const { body } = await remove('remove_phone_numbers=true&dry_run=true');
    const { reference_count } = z.object({ data: z.object({ reference_count: z.number() }) }).parse(body).data;
    const id = await importNumber(client, source, unusedNumber());

    const { status } = await remove(`remove_phone_numbers=true&expect_references=${reference_count}`);

    expect(status).toBe(412);
    expect(await rowOf('phone_numbers', id)).toMatchObject({ integration_id: source });
  });
});

describe('the query of a delete', () => {
  it.each([
    ['reassign_to=intg_000000000000&remove_phone_numbers=true', 'remove_phone_numbers'],
    ['reassign_to=intg_1', 'reassign_to'],
    ['remove_phone_numbers=yes', 'remove_phone_numbers'],
    ['expect_references=-1', 'expect_references'],
    ['expect_references=1.5', 'expect_references'],
    ['expect_references=', 'expect_references'],
    ['expect_references=1e3', 'expect_references'],
    ['verify=false', 'verify'],
    ['remove_phone_numbers=true&verify=false', 'verify'],
    ['dry_run=1', 'dry_run'],
    ['reasign_to=intg_000000000000', 'reasign_to'],
  ])('%s is a 422, and nothing happens', async (query, path) => {
    const before = await everythingKept();

    expect(await remove(query)).toMatchObject({ status: 422, body: { code: 'validation_failed', errors: [{ path }] } });
    expect(await everythingKept()).toEqual(before);
  });
});

describe('a delete with 10,000 phone numbers', () => {
  /** What the delete of so many numbers asks of D1. */
  async function costOf(id: string, count: number, query: string) {
    let [statements, read, written, mostParameters, longestParameter] = [0, 0, 0, 0, 0];
    const calls: string[] = [];
    const bindings = interceptedBindings(async (name, carryOut, sent) => {
      calls.push(name);
      const results = await carryOut();
      if (name === 'DB.batch' && Array.isArray(results)) {
        statements += results.length;
        for (const [index, { meta }] of results.entries()) {
          read += meta.rows_read;
          // Which call renews the heartbeat is a matter of time.
          if (!sent.statements[index]?.sql.startsWith('update "heartbeats"')) written += meta.rows_written;
        }
        for (const { values } of sent.statements) {
          mostParameters = Math.max(mostParameters, values.length);
          longestParameter = Math.max(longestParameter, ...values.map((value) => String(value).length));
        }
      }
      return results;
    });
    const { status, headers } = await remove(query, { id, bindings });
    expect(status).toBe(200);
    expect(headers.get('X-Reassigned-Count') ?? headers.get('X-Removed-Count')).toBe(String(count));
    const afterAnswer = ['CREDENTIALS.delete', 'WEBHOOK_WAKEUPS.send'];
    const beforeAnswer = calls.slice(
      0,
      calls.findIndex((name) => afterAnswer.includes(name)),
    );
    return { beforeAnswer, statements, read, written, mostParameters, longestParameter };
  }

  it.each([
    ['reassign_to', 16],
    ['remove_phone_numbers', 9],
  ])(
    'makes the same trips and statements as with one, and its rows grow as the numbers do: by %s, %i for each',
    async (way, perNumber) => {
      const query = way === 'reassign_to' ? `${way}=${await sameAccount()}` : `${way}=true`;
      const costOfSo = async (count: number) => {
        const id = await createIntegration(client);
        await fillNumbers(client, id, count);
        return costOf(id, count, query);
      };
      const [one, some, many] = [await costOfSo(1), await costOfSo(1_001), await costOfSo(10_000)];

      expect(many.beforeAnswer).toEqual(one.beforeAnswer);
      expect(many.beforeAnswer).toEqual(['DB.batch']);
      expect(many.statements).toBe(one.statements);
      expect(some.written).toBe(one.written + perNumber * 1_000);
      expect(many.written).toBe(one.written + perNumber * 9_999);
      expect(many.mostParameters).toBe(one.mostParameters);
      expect(many.mostParameters).toBeLessThan(80);
      expect(many.read).toBeLessThan(one.read + 9_999 * (Math.ceil((some.read - one.read) / 1_000) + 1));
    },
  );

  it('asks another account for all of them, and then decides in one batch, with ids of 210 kB', async () => {
    const id = await createIntegration(client);
    const numbers = await fillNumbers(client, id, 10_000);
    const { integration_id: target, secret } = await newAccount(client, numbers);
    const { beforeAnswer, longestParameter } = await costOf(id, numbers.length, `reassign_to=${target}`);

    const calls = await callsWith(secret);
    expect(calls.length).toBeLessThanOrEqual(50);
    expect(beforeAnswer).toEqual(['DB.batch', 'CREDENTIALS.get', ...calls.map(() => 'provider.fetch'), 'DB.batch']);
    expect(longestParameter).toBeLessThan(210_001);
    expect(await env.DB.prepare('SELECT DISTINCT integration_id, ownership FROM phone_numbers').all()).toMatchObject({
      results: [{ integration_id: target, ownership: 'confirmed' }],
    });
  });

  it('is refused with one more, and nothing happens', async () => {
    await fillNumbers(client, source, 10_001);
    const target = await sameAccount();
    const before = await everythingKept();

    for (const query of [`reassign_to=${target}`, 'remove_phone_numbers=true']) {
      expect(await remove(query)).toMatchObject({
        status: 422,
        body: { code: 'too_many_references', limit: 10_000 },
      });
    }
    expect(await everythingKept()).toEqual(before);
  });
});

describe('a delete that is repeated', () => {
  it.each(['reassign_to', 'remove_phone_numbers'])(
    'under its Idempotency-Key has the first answer again, count and all: by %s',
    async (way) => {
      const query = way === 'reassign_to' ? `${way}=${await sameAccount()}` : `${way}=true`;
      await fillNumbers(client, source, 7);
      const first = await remove(query, { key: 'once' });
      const before = await everythingKept();

      const again = await remove(query, { key: 'once' });

      expect(again.text).toBe(first.text);
      expect(again.headers.get('Idempotency-Replayed')).toBe('true');
      for (const name of ['X-Reassigned-Count', 'X-Removed-Count']) {
        expect(again.headers.get(name)).toBe(first.headers.get(name));
      }
      expect(await everythingKept()).toEqual(before);
    },
  );

  it('with another way for the numbers is another request', async () => {
    await remove('remove_phone_numbers=true', { key: 'once' });

    expect(await remove('', { key: 'once' })).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
  });

  it.each(['reassign_to', 'remove_phone_numbers'])(
    'by a late try changes nothing, whatever came since: by %s',
    async (way) => {
      const target = await sameAccount();
      const query = way === 'reassign_to' ? `${way}=${target}` : `${way}=true`;
      const id = await importNumber(client, source, unusedNumber());
      let late = async (): Promise<unknown> => undefined;
      let batches = 0;
      const bindings = interceptedBindings((name, carryOut) => {
        if (name !== 'DB.batch' || (batches += 1) > 1) return carryOut();
        late = carryOut;
        throw new Error(LOST);
      });
      expect((await remove(query, { bindings })).status).toBe(200);
      if (way === 'reassign_to') await assign(id, 'agent_since');
      const before = await dataOf(client.organization_id);

      await late();

      // The removal of the ciphertext is owed once more.
      const { credential_purges: _, ...after } = await dataOf(client.organization_id);
      expect(before).toMatchObject(after);
      expect(after.audit_events).toHaveLength(before.audit_events.length);
    },
  );

  it('after a refusal is judged anew', async () => {
    const id = await importNumber(client, source, unusedNumber());
    await assign(id);
    expect((await remove('remove_phone_numbers=true', { key: 'once' })).status).toBe(409);
    await assign(id, null);

    expect((await remove('remove_phone_numbers=true', { key: 'once' })).status).toBe(200);
  });
});

describe('another organization', () => {
  it.each(['remove_phone_numbers=true', 'reassign_to=', 'dry_run=true', 'expect_references=0'])(
    'gets a 404, and nothing happens: %s',
    async (query) => {
      await importNumber(client, source, unusedNumber());
      const stranger = await newClient();
      const own = query.endsWith('_to=') ? await createIntegration(stranger, twilio) : '';
      const [before, trail] = [await resources(), await rows('audit_events')];

      const foreign = await remove(query + own, { by: stranger });

      expect(foreign).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
      expect(await resources()).toEqual(before);
      expect(await rows('audit_events')).toEqual(trail);
    },
  );
});
