/** `POST /api/phone-numbers/bulk`: up to 100 numbers at once, each of them wholly or not at all. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { providerNames } from '../../src/worker/core/vocabulary.ts';
import { credentialsOf, newAccount } from '../accounts.ts';
import { countedBindings, interceptedBindings, stallingBindings } from '../bindings.ts';
import {
  call,
  changeKey,
  emptyStorage,
  everythingKept,
  importNumber,
  keyChanges,
  newClient,
  rows,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip } from '../mutations.ts';
import { callsWith, holdNow, secretHolding } from '../simulation.ts';

let client: Client;
let other: Client;

beforeEach(async () => {
  await emptyStorage();
  for (const method of ['warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
  [client, other] = [await newClient(), await newClient()];
});

afterEach(() => {
  vi.restoreAllMocks();
});

const result = z.strictObject({
  phone_number: z.string(),
  status: z.enum(['imported', 'failed']),
  phone_number_id: z.string().nullable(),
  code: z.string().nullable(),
  detail: z.string().nullable(),
});
const answered = z.object({ data: z.object({ results: z.array(result) }) });

const unused = (count: number) => Array.from({ length: count }, unusedNumber);

const importing = (
  integration_id: string,
  phone_numbers: readonly string[],
  { by = client, query = '', bindings = env, key = '', more = {} } = {},
) =>
  call(by, 'POST', `/api/phone-numbers/bulk${query}`, {
    body: { integration_id, phone_numbers, ...more },
    bindings,
    ...(key && { headers: { 'Idempotency-Key': key } }),
  });

const resultsOf = ({ body }: { body: unknown }) => answered.parse(body).data.results;
const codesOf = (answer: { body: unknown }) => resultsOf(answer).map(({ code }) => code ?? 'imported');

const stored = async ({ organization_id }: Client) => ({
  numbers: (await rows('phone_numbers')).filter((row) => row['organization_id'] === organization_id),
  imports: (await rows('audit_events')).filter(
    (row) => row['organization_id'] === organization_id && row['action'] === 'phone_number.imported',
  ),
});

/** Events and rows are of the same numbers, and each row is whole. */
async function assertWhole(by: Client, imported: readonly string[]): Promise<void> {
  const { numbers, imports } = await stored(by);
  const sorted = (found: Record<string, unknown>[], column: string) =>
    found.map((row) => String(row[column])).toSorted();
  expect(sorted(numbers, 'phone_number')).toEqual(imported.toSorted());
  expect(sorted(imports, 'target_id')).toEqual(sorted(numbers, 'phone_number_id'));
  const sequences = imports.map((row) => row['sequence']);
  expect(new Set(sequences).size).toBe(sequences.length);
}

/** 100 numbers: 80 of the account and free, 10 strangers, 5 given twice, 5 of another organization. */
async function prepared(provider: (typeof providerNames)[number] = 'twilio') {
  const [good, strangers, others] = [unused(80), unused(10), unused(5)];
  const { integration_id, secret } = await newAccount(client, [...good, ...others], { provider });
  const theirs = await newAccount(other, others);
  await importing(theirs.integration_id, others, { by: other });
  const phone_numbers = [...good.slice(0, 40), ...strangers, ...good.slice(35, 40), ...others, ...good.slice(40)];
  const codes = [
    ...good.slice(0, 40).map(() => 'imported'),
    ...strangers.map(() => 'phone_number_not_in_account'),
    ...good.slice(35, 40).map(() => 'phone_number_exists'),
    ...others.map(() => 'phone_number_exists'),
    ...good.slice(40).map(() => 'imported'),
  ];
  return { integration_id, secret, good, others, phone_numbers, codes };
}

describe.each(providerNames)(
  '100 numbers through %s, with strangers, duplicates and another’s among them',
  (provider) => {
    it('each come to what they should, with an event for each that is imported', async () => {
      const { integration_id, secret, good, phone_numbers, codes } = await prepared(provider);

      const answer = await importing(integration_id, phone_numbers);

      expect(answer).toMatchObject({ status: 200, body: { message: '80 of 100 phone numbers imported successfully' } });
      expect(resultsOf(answer).map(({ phone_number }) => phone_number)).toEqual(phone_numbers);
      expect(codesOf(answer)).toEqual(codes);
      for (const { status, phone_number_id, code, detail } of resultsOf(answer)) {
        expect(phone_number_id === null).toBe(status === 'failed');
        expect(code === null).toBe(status === 'imported');
        expect(detail === null).toBe(status === 'imported');
      }
      await assertWhole(client, good);
      const { numbers } = await stored(client);
      expect(new Set(numbers.map((row) => row['ownership']))).toEqual(new Set(['confirmed']));
      // Plivo lists 20 numbers a page: five pages hold all.
      expect((await callsWith(secret)).length).toBe(provider === 'plivo' ? 5 : 1);
    });
  },
);

describe('a bulk import', () => {
  it('is a batch, the account’s answers, and the batch that decides', async () => {
    const { integration_id, phone_numbers } = await prepared();
    const { bindings, calls } = countedBindings();

    await importing(integration_id, phone_numbers, { bindings });

    expect(calls).toEqual(['DB.batch', 'CREDENTIALS.get', 'provider.fetch', 'DB.batch']);
  });

  it('is one batch with ?verify=false, and all are unconfirmed', async () => {
    const { integration_id, secret, good } = await prepared();
    const { bindings, calls } = countedBindings();

    const answer = await importing(integration_id, good, { query: '?verify=false', bindings });

    expect(answer.status).toBe(200);
    expect(calls).toEqual(['DB.batch']);
    expect(await callsWith(secret)).toEqual([]);
    expect(new Set((await stored(client)).numbers.map((row) => row['ownership']))).toEqual(new Set(['unconfirmed']));
  });

  it('gives all of them what they support', async () => {
    const numbers = unused(2);
    const { integration_id } = await newAccount(client, numbers);

    await importing(integration_id, numbers, { more: { supports_inbound: true } });

    expect((await stored(client)).numbers).toMatchObject(
      numbers.map(() => ({ supports_inbound: 1, supports_outbound: 0, provider: 'twilio', status: 'free' })),
    );
  });

  it('of which none is imported is a 422 that says why, and stores nothing', async () => {
    const { integration_id } = await newAccount(client, []);
    const before = await everythingKept();

    const answer = await importing(integration_id, unused(3));

    expect(answer).toMatchObject({ status: 422, body: { code: 'phone_numbers_not_imported' } });
    expect(codesOf(answer)).toEqual(Array.from({ length: 3 }, () => 'phone_number_not_in_account'));
    expect(await everythingKept()).toEqual(before);
  });

  it.each<[string, unknown]>([
    ['none', []],
    ['101', Array.from({ length: 101 }, (_, index) => `+14155${100_000 + index}`)],
    ['no list', '+14155550100'],
    ['something that is no number', ['+14155550100', '4155550101']],
    ['null', null],
  ])('of %s is a 422, and asks nobody', async (_, phone_numbers) => {
    const { integration_id, secret } = await newAccount(client, []);

    const answer = await call(client, 'POST', '/api/phone-numbers/bulk', { body: { integration_id, phone_numbers } });

    expect(answer).toMatchObject({ status: 422, body: { code: 'validation_failed' } });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('takes what others have unconfirmed, and leaves what they have confirmed', async () => {
    const [sip, imported, confirmed] = [unusedNumber(), unusedNumber(), unusedNumber()];
    const theirs = await newAccount(other, [confirmed]);
    await importSip(other, sip);
    await importNumber(other, theirs.integration_id, imported);
    await importing(theirs.integration_id, [confirmed], { by: other });
    const ours = await newAccount(client, [sip, imported, confirmed]);

    const answer = await importing(ours.integration_id, [sip, imported, confirmed]);

    expect(codesOf(answer)).toEqual(['imported', 'imported', 'phone_number_exists']);
    await assertWhole(client, [sip, imported]);
    expect((await stored(other)).numbers.map((row) => row['phone_number'])).toEqual([confirmed]);
    const released = (await rows('audit_events')).filter((row) => row['action'] === 'phone_number.released');
    expect(released.map((row) => row['organization_id'])).toEqual([other.organization_id, other.organization_id]);
    expect(new Set(released.map((row) => row['sequence'])).size).toBe(2);
  });

  it.each([
    ['refused', 422, 'credentials_refused'],
    ['no integration', 404, 'integration_not_found'],
  ])('whose integration is %s is answered as a single import: %i', async (what, status, code) => {
    const { integration_id } = await newAccount(client, [], { answers: ['refused'] });

    const answer = await importing(what === 'refused' ? integration_id : 'intg_000000000000', unused(2));

    expect(answer).toMatchObject({ status, body: { code } });
    expect((await stored(client)).numbers).toEqual([]);
  });

  it.each(keyChanges)('of a key that %s reaches no provider', async (_, assignment, status, code) => {
    const numbers = unused(2);
    const { integration_id, secret } = await newAccount(client, numbers);
    await call(client, 'GET', '/api/integrations');
    await changeKey(client, assignment);

    for (const query of ['', '?verify=false']) {
      expect(await importing(integration_id, numbers, { query })).toMatchObject({ status, body: { code } });
    }
    expect(await callsWith(secret)).toEqual([]);
    expect((await stored(client)).numbers).toEqual([]);
  });

  it('of another organization’s integration finds none', async () => {
    const numbers = unused(2);
    const { integration_id, secret } = await newAccount(client, numbers);

    expect(await importing(integration_id, numbers, { by: other })).toMatchObject({
      status: 404,
      body: { code: 'integration_not_found' },
    });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('asks for its account’s list, or for one after the other, whichever is fewer calls', async () => {
    const many = Array.from({ length: 1200 }, (_, index) => `+${14_155_800_000 + index}`);
    const last = many.slice(-3);
    const plivo = await newAccount(client, many, { provider: 'plivo' });
    const twilio = await newAccount(client, many);

    await importing(plivo.integration_id, last);
    const answer = await importing(twilio.integration_id, many.slice(0, 100));

    // Of 60 pages one is read, and then three numbers one by one.
    expect(await callsWith(plivo.secret)).toHaveLength(4);
    expect(codesOf(answer).filter((code) => code === 'imported')).toHaveLength(97 + 3);
    expect(await callsWith(twilio.secret)).toHaveLength(1);
  });

  it('makes at most 50 calls to the provider, and what is open then is unconfirmed', async () => {
    const many = Array.from({ length: 2000 }, (_, index) => `+${14_155_900_000 + index}`);
    const wanted = many.slice(-100);
    const { integration_id, secret } = await newAccount(client, many, { provider: 'plivo' });

    const answer = await importing(integration_id, wanted);

    expect(answer.status).toBe(200);
    expect((await callsWith(secret)).length).toBe(50);
    const { numbers } = await stored(client);
    expect(numbers).toHaveLength(100);
    expect(numbers.filter((row) => row['ownership'] === 'unconfirmed').length).toBeGreaterThan(0);
  });

  it('asks again where the credentials were replaced while the account was asked', async () => {
    const numbers = unused(2);
    const { integration_id } = await newAccount(client, numbers);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const slowly = importing(integration_id, numbers, { bindings });
    await stalls;
    const credentials = credentialsOf.twilio(await secretHolding(numbers.slice(0, 1)));
    await call(client, 'PUT', `/api/integrations/${integration_id}?verify=false`, { body: { credentials } });
    letGo();

    expect(codesOf(await slowly)).toEqual(['imported', 'phone_number_not_in_account']);
  });
});

describe('the quotas', () => {
  const limit = (column: string, value: number) =>
    env.DB.prepare(`UPDATE organizations SET ${column} = ? WHERE organization_id = ?`)
      .bind(value, client.organization_id)
      .run();

  it.each(['phone_numbers', 'audit_events'])('let the first ones in, to the last place: %s', async (quota) => {
    const numbers = unused(6);
    const { integration_id } = await newAccount(client, numbers);
    const organization = (await rows('organizations')).find((row) => row['organization_id'] === client.organization_id);
    const counter = quota === 'phone_numbers' ? 'phone_number_count' : 'audit_event_count';
    await limit(`max_${quota}`, Number(organization?.[counter]) + 4);

    const answer = await importing(integration_id, numbers);

    expect(codesOf(answer)).toEqual([...numbers.slice(0, 4).map(() => 'imported'), 'quota_exceeded', 'quota_exceeded']);
    await assertWhole(client, numbers.slice(0, 4));
  });

  it('count unconfirmed numbers apart from confirmed ones', async () => {
    const held = unused(20);
    const open = unused(3);
    // The first page has those that are held; then the provider fails, and the others stay open.
    const { integration_id } = await newAccount(client, [...held, ...unused(40)], {
      provider: 'plivo',
      answers: ['good', 'broken'],
    });
    await limit('max_unconfirmed_numbers', 1);

    const answer = await importing(integration_id, [held[0] ?? '', ...open, held[1] ?? '']);

    expect(codesOf(answer)).toEqual(['imported', 'imported', 'quota_exceeded', 'quota_exceeded', 'imported']);
    const { numbers } = await stored(client);
    expect(numbers.map((row) => String(row['ownership'])).toSorted()).toEqual([
      'confirmed',
      'confirmed',
      'unconfirmed',
    ]);
  });

  it('are kept by two at the same time', async () => {
    const [some, others] = [unused(10), unused(10)];
    const { integration_id } = await newAccount(client, [...some, ...others]);
    await limit('max_phone_numbers', 12);

    const answers = await Promise.all([importing(integration_id, some), importing(integration_id, others)]);

    const imported = answers.flatMap((answer) => codesOf(answer)).filter((code) => code === 'imported');
    expect(imported).toHaveLength(12);
    expect((await stored(client)).numbers).toHaveLength(12);
  });
});

describe('under an Idempotency-Key', () => {
  const KEY = 'once';

  it('a repeat answers again for what was imported, and tries the others', async () => {
    const numbers = unused(4);
    const { integration_id, secret } = await newAccount(client, numbers.slice(0, 2));
    const first = await importing(integration_id, numbers, { key: KEY });
    expect(codesOf(first)).toEqual([
      'imported',
      'imported',
      'phone_number_not_in_account',
      'phone_number_not_in_account',
    ]);
    await holdNow(secret, numbers.slice(0, 3));

    const second = await importing(integration_id, numbers, { key: KEY });
    const third = await importing(integration_id, numbers, { key: KEY });

    expect(codesOf(second)).toEqual(['imported', 'imported', 'imported', 'phone_number_not_in_account']);
    expect(resultsOf(second).slice(0, 2)).toEqual(resultsOf(first).slice(0, 2));
    expect(second.headers.get('Idempotency-Replayed')).toBeNull();
    expect(resultsOf(third)).toEqual(resultsOf(second));
    expect(third.headers.get('Idempotency-Replayed')).toBe('true');
    await assertWhole(client, numbers.slice(0, 3));
  });

  it('a repeat of what was imported whole asks nobody', async () => {
    const numbers = unused(3);
    const { integration_id, secret } = await newAccount(client, numbers);
    const first = await importing(integration_id, numbers, { key: KEY });

    const again = await importing(integration_id, numbers, { key: KEY });

    expect(again.text).toBe(first.text);
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it('a repeat answers for a number that was deleted since, and does not bring it back', async () => {
    const numbers = unused(2);
    const { integration_id } = await newAccount(client, numbers);
    const first = await importing(integration_id, numbers, { key: KEY });
    const [one] = resultsOf(first);
    await call(client, 'DELETE', `/api/phone-numbers/${one?.phone_number_id}`);

    const again = await importing(integration_id, numbers, { key: KEY });

    expect(resultsOf(again)).toEqual(resultsOf(first));
    expect((await stored(client)).numbers).toHaveLength(1);
  });

  it('a repeat answers for what was imported, though the provider refuses the credentials now', async () => {
    const numbers = unused(2);
    const { integration_id } = await newAccount(client, numbers.slice(0, 1), { answers: ['good', 'refused'] });
    await importing(integration_id, numbers, { key: KEY });

    const again = await importing(integration_id, numbers, { key: KEY });

    expect(again.status).toBe(200);
    expect(codesOf(again)).toEqual(['imported', 'credentials_refused']);
  });

  it('a repeat answers for what was imported, though its integration is gone', async () => {
    const numbers = unused(2);
    const { integration_id } = await newAccount(client, numbers);
    await importSip(other, numbers[1]);
    const first = await importing(integration_id, numbers, { key: KEY, query: '?verify=false' });
    const [one] = resultsOf(first);
    await call(client, 'DELETE', `/api/phone-numbers/${one?.phone_number_id}`);
    await call(client, 'DELETE', `/api/integrations/${integration_id}`);

    const again = await importing(integration_id, numbers, { key: KEY, query: '?verify=false' });

    expect(again.status).toBe(200);
    expect(codesOf(again)).toEqual(['imported', 'integration_not_found']);
  });

  it('two different requests at the same time: one imports, the other is refused', async () => {
    const [some, others] = [unused(2), unused(2)];
    const { integration_id } = await newAccount(client, [...some, ...others]);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const slow = importing(integration_id, some, { key: KEY, bindings });
    await stalls;
    expect((await importing(integration_id, others, { key: KEY })).status).toBe(200);
    letGo();

    expect(await slow).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
    await assertWhole(client, others);
    expect((await importing(integration_id, others, { key: KEY })).status).toBe(200);
  });

  it('another request is refused, and imports nothing', async () => {
    const numbers = unused(2);
    const { integration_id } = await newAccount(client, numbers);
    await importing(integration_id, numbers.slice(0, 1), { key: KEY });

    for (const query of ['', '?verify=false']) {
      expect(await importing(integration_id, numbers.slice(1), { key: KEY, query })).toMatchObject({
        status: 422,
        body: { code: 'idempotency_key_reused' },
      });
    }
    expect((await stored(client)).numbers).toHaveLength(1);
  });

  it('two at the same time import each number once, and both hear so', async () => {
    const numbers = unused(20);
    const { integration_id } = await newAccount(client, numbers);

    const answers = await Promise.all([
      importing(integration_id, numbers, { key: KEY }),
      importing(integration_id, numbers, { key: KEY }),
    ]);

    expect(resultsOf(answers[0])).toEqual(resultsOf(answers[1]));
    await assertWhole(client, numbers);
  });
});

describe('where D1 fails', () => {
  /** Fails at one batch of the call, before or after its commit, so many times. */
  function failing(place: number, when: string, times: number) {
    let batches = 0;
    return interceptedBindings(async (name, carryOut) => {
      if (name !== 'DB.batch') return carryOut();
      batches += 1;
      if (batches < place || batches >= place + times) return carryOut();
      if (when === 'after') await carryOut();
      throw new Error('D1_ERROR: Network connection lost.');
    });
  }

  it.each(
    ['', 'once'].flatMap((key) =>
      ['before', 'after'].flatMap((when) =>
        [1, 2].flatMap((place) => [1, 3].map((times) => [key, when, place, times] as const)),
      ),
    ),
  )(
    'every number is imported wholly or not at all: key "%s", %s batch %i, %i times',
    async (key, when, place, times) => {
      const { integration_id, good, phone_numbers, codes } = await prepared();

      const answer = await importing(integration_id, phone_numbers, { key, bindings: failing(place, when, times) });

      // While an earlier try of the batch that decides may still land, its refusals cannot be told.
      const unavailable = { code: 'temporarily_unavailable', outcome: place === 1 ? 'not_done' : 'unknown' };
      const isAnswered = times === 1 && place === 1;
      expect(answer).toMatchObject(isAnswered ? { status: 200 } : { status: 503, body: unavailable });
      expect(isAnswered ? codesOf(answer) : codes).toEqual(codes);
      const isDone = times === 1 || (place === 2 && when === 'after');
      await assertWhole(client, isDone ? good : []);
      if (key === '') return;
      // The repeat brings what the client asked for, once.
      expect(codesOf(await importing(integration_id, phone_numbers, { key }))).toEqual(codes);
      await assertWhole(client, good);
    },
  );

  it('a late try imports nothing again, not even what was deleted since', async () => {
    const numbers = unused(5);
    const { integration_id } = await newAccount(client, numbers);
    const tries: (() => Promise<unknown>)[] = [];
    const bindings = interceptedBindings((name, carryOut) => {
      if (name === 'DB.batch') tries.push(carryOut);
      return carryOut();
    });
    const results = resultsOf(await importing(integration_id, numbers, { bindings }));
    for (const { phone_number_id } of results) await call(client, 'DELETE', `/api/phone-numbers/${phone_number_id}`);
    const before = await stored(client);

    for (const late of tries) await late();

    expect(await stored(client)).toEqual(before);
    expect(before.numbers).toEqual([]);
  });
});
