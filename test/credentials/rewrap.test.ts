import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { open } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import { rewrapDataKeys } from '../../src/worker/credentials/rewrap.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { interceptedBindings } from '../bindings.ts';
import { call, createIntegration, everythingStored, newClient, rows, twilio, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const ring = z.object({ keys: z.object({ k1: z.string() }) }).parse(JSON.parse(env.CREDENTIALS_KEKS));
const keys: Record<string, string> = { k1: ring.keys.k1, k2: btoa('the second KEK, of 32 byte chars') };
const ringOf = (current: string, ids = Object.keys(keys)) =>
  JSON.stringify({ current, keys: Object.fromEntries(ids.map((id) => [id, keys[id]])) });

/** Bindings, the pool's own unless others are given, whose ring is this one. */
const under = (CREDENTIALS_KEKS: string, bindings: Bindings = env) => ({ ...bindings, CREDENTIALS_KEKS });
const rewrap = (bindings: Bindings = env) => rewrapDataKeys(under(ringOf('k2'), bindings));

const INTEGRATIONS = 250;
const SIP_NUMBERS = 20;
const ALL = INTEGRATIONS + SIP_NUMBERS;

let client: Client;

const holder = z.object({
  organization_id: z.string(),
  integration_id: z.string().nullable(),
  phone_number_id: z.string().optional(),
  credentials_version: z.string(),
  data_key: z.string(),
  kek_id: z.string(),
});

/** Every row that holds a data key. */
async function dataKeys() {
  const held = [...(await rows('integrations')), ...(await rows('phone_numbers'))].filter((row) => row['data_key']);
  return held.map((row) => {
    const { phone_number_id, ...found } = holder.parse(row);
    return { ...found, subject_id: phone_number_id ?? found.integration_id ?? '' };
  });
}

/** How many data keys each KEK wraps. */
async function wrappedBy(): Promise<Record<string, number>> {
  const byKek = Map.groupBy(await dataKeys(), ({ kek_id }) => kek_id);
  return Object.fromEntries([...byKek].map(([kek_id, { length }]) => [kek_id, length]));
}

/** All credentials that are stored, as they open under a ring of these KEKs. */
async function readable(ids?: string[]): Promise<Record<string, unknown>> {
  const known = await parseKekRing(ringOf(ids?.[0] ?? 'k1', ids));
  const opened = (await dataKeys()).map(async (row) => {
    const place = credentialsKey(row.organization_id, row.subject_id, row.credentials_version);
    const ciphertext = await env.CREDENTIALS.get(place, 'arrayBuffer');
    if (!ciphertext) throw new Error('no ciphertext');
    return [row.subject_id, await open(known, place, row, new Uint8Array(ciphertext))];
  });
  return Object.fromEntries(await Promise.all(opened));
}

/** What re-wraps write to the log, by level. */
function logged() {
  const lines = (level: 'info' | 'error') => {
    const spy = vi.spyOn(console, level).mockImplementation(() => {});
    return (): unknown[] => spy.mock.calls.map(([line]) => JSON.parse(String(line)));
  };
  return { info: lines('info'), error: lines('error') };
}

const setDataKeys = (assignments: string, where = '1') =>
  env.DB.batch(
    ['integrations', 'phone_numbers'].map((table) =>
      env.DB.prepare(`UPDATE ${table} SET ${assignments} WHERE data_key IS NOT NULL AND ${where}`),
    ),
  );

let original: D1PreparedStatement[];

beforeAll(async () => {
  client = await newClient();
  for (let index = 0; index < INTEGRATIONS; index += 1) {
    await createIntegration(client, { ...twilio, auth_token: `token ${index}` });
  }
  for (let index = 0; index < SIP_NUMBERS; index += 1) {
    const number = { provider: 'sip', sip_trunk_name: 'trunk', sip_username: 'user', sip_password: `secret ${index}` };
    await call(client, 'POST', '/api/phone-numbers', { body: { ...number, phone_number: unusedNumber() } });
  }
  const held = await dataKeys();
  original = held.map(({ subject_id, data_key, kek_id, integration_id: integration }) =>
    env.DB.prepare(
      integration
        ? 'UPDATE integrations SET data_key = ?, kek_id = ? WHERE integration_id = ?'
        : 'UPDATE phone_numbers SET data_key = ?, kek_id = ? WHERE phone_number_id = ?',
    ).bind(data_key, kek_id, subject_id),
  );
}, 120_000);

/** All data keys as they were made: under k1. */
beforeEach(async () => {
  await env.DB.batch(original);
});

afterEach(() => vi.restoreAllMocks());

describe('a re-wrap', () => {
  it('goes through all data keys, 100 a run, and tells how far it is; then it has nothing to do', async () => {
    const { info, error } = logged();
    const progress = [];
    for (let run = 1; run <= 4; run += 1) {
      await rewrap();
      progress.push(await wrappedBy());
    }

    expect(progress).toEqual([{ k1: ALL - 100, k2: 100 }, { k1: ALL - 200, k2: 200 }, { k2: ALL }, { k2: ALL }]);
    expect(info()).toEqual([
      { event: 'data_keys_rewrapped', rewrapped: 100, left: ALL - 100 },
      { event: 'data_keys_rewrapped', rewrapped: 100, left: ALL - 200 },
      { event: 'data_keys_rewrapped', rewrapped: ALL - 200, left: 0 },
    ]);
    expect(error()).toEqual([]);
  });

  it('leaves every credential readable before, during and after, at last without the old KEK', async () => {
    const before = await readable(['k1']);
    expect(Object.keys(before)).toHaveLength(ALL);

    for (let run = 1; run <= 3; run += 1) {
      await rewrap();
      expect(await readable()).toEqual(before);
    }

    expect(await readable(['k2'])).toEqual(before);
  });

  it('is no update: it changes the data key and its KEK, and nothing else that is stored', async () => {
    const replaced = new Set(['data_key', 'kek_id']);
    const withoutDataKeys = async (): Promise<unknown> =>
      JSON.parse(
        JSON.stringify(await everythingStored(), (name, value: unknown) => (replaced.has(name) ? undefined : value)),
      );
    const before = await withoutDataKeys();

    await rewrap();

    expect(await wrappedBy()).toMatchObject({ k2: 100 });
    expect(await withoutDataKeys()).toEqual(before);
  });

  it('goes back as well, where the KEK before is current again', async () => {
    const before = await readable();
    for (let run = 1; run <= 3; run += 1) await rewrap();

    for (let run = 1; run <= 3; run += 1) await rewrapDataKeys(under(ringOf('k1')));

    expect(await wrappedBy()).toEqual({ k1: ALL });
    expect(await readable(['k1'])).toEqual(before);
  });

  it('shares the work with another at the same time without harm', async () => {
    const before = await readable();

    await Promise.all([rewrap(), rewrap()]);

    expect(await wrappedBy()).toEqual({ k1: ALL - 100, k2: 100 });
    expect(await readable()).toEqual(before);
  });
});

describe('a re-wrap that is killed', () => {
  const faults = ['throws before', 'throws after', 'stops before', 'stops after'] as const;

  /** Runs until the n-th call on a binding, from which on every call fails so, and nothing goes on. */
  async function killedAt(nth: number, fault: (typeof faults)[number]): Promise<void> {
    let calls = 0;
    const stopped = Promise.withResolvers<void>();
    const bindings = interceptedBindings(async (_, carryOut) => {
      calls += 1;
      if (calls < nth) return carryOut();
      if (fault.endsWith('after')) await carryOut();
      if (fault.startsWith('throws')) throw new Error('Network connection lost.');
      stopped.resolve();
      return new Promise(() => {});
    });
    await Promise.race([rewrap(bindings).catch(() => {}), stopped.promise]);
  }

  it(
    'at any call, 20 times, leaves every credential readable, and the next runs finish',
    { timeout: 240_000 },
    async () => {
      logged();
      const before = await readable();
      const seen = new Set<string>();

      await fc.assert(
        fc.asyncProperty(
          fc.nat(2),
          fc.integer({ min: 1, max: 4 }),
          fc.constantFrom(...faults),
          async (runs, at, fault) => {
            await env.DB.batch(original);
            for (let run = 1; run <= runs; run += 1) await rewrap();
            await killedAt(at, fault);
            seen.add(JSON.stringify(await wrappedBy()));
            expect(await readable()).toEqual(before);

            for (let run = 1; run <= 3; run += 1) await rewrap();
            expect(await wrappedBy()).toEqual({ k2: ALL });
            expect(await readable(['k2'])).toEqual(before);
          },
        ),
        { numRuns: 20, seed: 20 },
      );
      // Or the kills would all have come too early or too late to matter.
      expect(seen.size).toBeGreaterThan(2);
    },
  );
});

describe('data keys that cannot be unwrapped', () => {
  it('do not stop the others, though many stand first in line; one alert a run has their count', async () => {
    const { error } = logged();
    const broken = (await dataKeys()).slice(0, 150).map(({ subject_id }) => subject_id);
    await setDataKeys(
      `data_key = 'AAAA'`,
      `integration_id IN (SELECT value FROM json_each('${JSON.stringify(broken)}'))`,
    );

    const sound = (await dataKeys()).length - broken.length;
    for (let run = 1; run <= 2; run += 1) await rewrap();

    expect(await wrappedBy()).toEqual({ k1: broken.length, k2: sound });
    expect(error()).toEqual([
      { event: 'data_keys_unopened', count: expect.any(Number) },
      { event: 'data_keys_unopened', count: 150 },
    ]);
  });

  it('are gone round, and counted, though as many as a run looks past stand before all others', async () => {
    const { error } = logged();
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
       INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
         data_key, kek_id, created_at, updated_at)
       SELECT ?1, printf('intg_!%011x', i), 'Does not open', 'twilio', 'telephony', 'active', 'v', 'AAAA', 'k1', 0, 0 FROM n`,
    )
      .bind(client.organization_id)
      .run();

    for (let run = 1; run <= 4; run += 1) await rewrap();

    expect(await wrappedBy()).toEqual({ k1: 1000, k2: ALL });
    expect(error()).toContainEqual({ event: 'data_keys_unopened', count: 1000 });
    await env.DB.prepare(`DELETE FROM integrations WHERE data_key = 'AAAA'`).run();
  });

  it('are counted in an alert of their own where the ring has not got their KEK, and left as they are', async () => {
    const { error } = logged();
    const [first, second] = await dataKeys();
    const ids = JSON.stringify([first?.subject_id, second?.subject_id]);
    await setDataKeys(`kek_id = 'k0'`, `integration_id IN (SELECT value FROM json_each('${ids}'))`);
    await setDataKeys(`kek_id = 'k9'`, `provider = 'sip'`);

    for (let run = 1; run <= 3; run += 1) await rewrap();

    expect(await wrappedBy()).toMatchObject({ k0: 2, k9: SIP_NUMBERS });
    expect(await wrappedBy()).not.toHaveProperty('k1');
    expect(error()).toEqual([1, 2, 3].map(() => ({ event: 'kek_missing', count: 2 + SIP_NUMBERS })));
  });
});

describe('the cost of a re-wrap', () => {
  it('is one look at D1 where all is under the current KEK: a seek for each KEK, and no scan', async () => {
    for (let run = 1; run <= 3; run += 1) await rewrap();
    let rowsRead = 0;
    const calls: string[] = [];
    const bindings = interceptedBindings(async (name, carryOut) => {
      calls.push(name);
      const answers = z.array(z.object({ meta: z.object({ rows_read: z.number() }) }).loose()).parse(await carryOut());
      for (const { meta } of answers) rowsRead += meta.rows_read;
      return answers;
    });

    await rewrap(bindings);

    expect(calls).toEqual(['DB.batch']);
    expect(rowsRead).toBeLessThan(20);
  });
});

describe('a re-wrap in a race', () => {
  let integration_id: string;

  /** The one integration that is left under k1. */
  beforeEach(async () => {
    logged();
    for (let run = 1; run <= 3; run += 1) await rewrap();
    integration_id = await createIntegration(client);
  });

  /** Re-wraps, with something else done before its n-th call on D1. */
  function rewrapWith(nth: number, other: () => Promise<unknown>): Promise<void> {
    let calls = 0;
    const bindings = interceptedBindings(async (_, carryOut) => {
      calls += 1;
      if (calls === nth) await other();
      return carryOut();
    });
    return rewrap(bindings);
  }

  const update = (auth_token: string) =>
    call(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { credentials: { ...twilio, auth_token } },
      bindings: under(ringOf('k1')),
    });
  const token = async (ids?: string[]) => (await readable(ids))[integration_id];

  it.each([1, 2, 3, 4])('loses no update of credentials that comes before its call %i', async (at) => {
    await rewrapWith(at, () => update(`new before ${at}`));
    expect(await token()).toMatchObject({ auth_token: `new before ${at}` });

    await rewrap();
    expect(await token(['k2'])).toMatchObject({ auth_token: `new before ${at}` });
  });

  it('undoes no later update where its own batch lands twice', async () => {
    let calls = 0;
    const bindings = interceptedBindings(async (_, carryOut) => {
      calls += 1;
      if (calls !== 3) return carryOut();
      await carryOut();
      await update('new between the two');
      return carryOut();
    });

    await rewrap(bindings);

    expect(await token()).toMatchObject({ auth_token: 'new between the two' });
  });

  it('does not bring back what is deleted meanwhile', async () => {
    await rewrapWith(3, () => call(client, 'DELETE', `/api/integrations/${integration_id}`));

    expect(await readable()).not.toHaveProperty(integration_id);
  });
});
