/** A key-encryption key that is retired wraps nothing any more, whichever isolate still has it in its ring. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { countIntendedUnder, markKekRetired, secondsToRetirement } from '../../../src/operator/keks/retire.ts';
import { drainPurges } from '../../../src/worker/credentials/drain.ts';
import { parseKekRing } from '../../../src/worker/credentials/kek-ring.ts';
import { rewrapDataKeys } from '../../../src/worker/credentials/rewrap.ts';
import { interceptedBindings, stallingBindings, without } from '../../bindings.ts';
import { call, createIntegration, newClient, openCredentials, resources, rowOf, rows, twilio } from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';
import { sip } from '../../mutations.ts';

let client: Client;
let errors: unknown[];

beforeEach(async () => {
  await env.DB.batch(
    ['phone_numbers', 'integrations', 'credential_purges', 'key_encryption_keys'].map((table) =>
      env.DB.prepare(`DELETE FROM ${table}`),
    ),
  );
  client = await newClient();
  errors = [];
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation((line) => void errors.push(JSON.parse(String(line))));
  return () => vi.restoreAllMocks();
});

/** The ring after a promotion: k2 wraps, k1 still opens. */
const promoted = JSON.stringify({
  ...JSON.parse(env.CREDENTIALS_KEKS),
  current: 'k2',
  keys: { ...JSON.parse(env.CREDENTIALS_KEKS).keys, k2: btoa('another KEK'.padEnd(32)) },
});

const k1 = async () => {
  const { checkValues } = await parseKekRing(env.CREDENTIALS_KEKS);
  return { kek_id: 'k1', check_value: checkValues.get('k1') ?? '' };
};
const retire = async (database = env.DB) => markKekRetired(database, await k1());

/** A call that stores credentials under the old ring, and stalls in its put until it is let go. */
function stalledIn(method: string, path: string, body: object) {
  const { bindings, stalls, letGo } = stallingBindings('CREDENTIALS.put');
  const answer = call(client, method, path, { body, bindings });
  return { stalls, finish: () => (letGo(), answer) };
}

const writes: [string, () => Promise<[string, string, object]>][] = [
  ['a creation', async () => ['POST', '/api/integrations', { name: 'Stalled', credentials: twilio }]],
  ['an import', async () => ['POST', '/api/phone-numbers', sip()]],
  [
    'an update',
    async () => {
      const integration_id = await createIntegration(client);
      await rewrapDataKeys({ ...env, CREDENTIALS_KEKS: promoted });
      return ['PUT', `/api/integrations/${integration_id}`, { credentials: twilio }];
    },
  ],
];

describe.each(writes)('%s by an isolate that still has the old ring', (_, prepare) => {
  it('keeps its KEK from being retired, as long as it is under way', async () => {
    const under = stalledIn(...(await prepare()));
    await under.stalls;

    expect(await countIntendedUnder(env.DB, 'k1')).toEqual({ count: 1, exact: true });
    expect(await retire()).toBe(false);

    expect((await under.finish()).status).toBeLessThan(300);
    expect(await countIntendedUnder(env.DB, 'k1')).toEqual({ count: 0, exact: true });
    expect(await retire()).toBe(false);
  });

  it('is retired under by the mutant that does not count intents: nothing opens what is stored', async () => {
    const uncounted = without(/not exists \(select 1 from "credential_purges" where \((?:[^()]|\([^()]*\))*\)\)/g);
    const applied: string[] = [];
    const { DB } = interceptedBindings(
      (__, carryOut) => carryOut(),
      (sql) => {
        const mutated = uncounted(sql);
        if (mutated !== sql) applied.push(sql);
        return mutated;
      },
    );
    const under = stalledIn(...(await prepare()));
    await under.stalls;

    expect(await retire(DB)).toBe(true);
    expect(applied).not.toEqual([]);
    expect((await under.finish()).status).toBeLessThan(300);
    const held = [...(await rows('integrations')), ...(await rows('phone_numbers'))];
    expect(held.map(({ kek_id }) => kek_id)).toContain('k1');
  });

  it('stores nothing once its KEK is retired: 503, not done, and an alert says why', async () => {
    const [method, path, body] = await prepare();
    expect(await retire()).toBe(true);
    const before = await resources();

    const { status, body: answered } = await call(client, method, path, { body });

    expect(status).toBe(503);
    expect(answered).toMatchObject({ outcome: 'not_done' });
    expect(await resources()).toEqual(before);
    expect(errors).toContainEqual({ event: 'kek_retired', kek_id: 'k1' });
  });
});

describe('an intent of before its KEK was recorded', () => {
  it('keeps every KEK from being retired, as long as it stands', async () => {
    const under = stalledIn('POST', '/api/integrations', { name: 'Stalled', credentials: twilio });
    await under.stalls;
    await env.DB.prepare('UPDATE credential_purges SET kek_id = NULL').run();

    expect(await retire()).toBe(false);

    expect((await under.finish()).status).toBe(201);
  });
});

describe('a retired key-encryption key', () => {
  it('has no data key wrapped under it by a re-wrap either', async () => {
    const integration_id = await createIntegration(client);
    await rewrapDataKeys({ ...env, CREDENTIALS_KEKS: promoted });
    expect(await retire()).toBe(true);

    await rewrapDataKeys({ ...env, CREDENTIALS_KEKS: promoted.replace('"current":"k2"', '"current":"k1"') });

    expect(await rowOf('integrations', integration_id)).toMatchObject({ kek_id: 'k2' });
    expect(errors).toContainEqual({ event: 'kek_retired', kek_id: 'k1' });
  });

  it('stays so, and a second time is the same', async () => {
    expect([await retire(), await retire()]).toEqual([true, true]);
    expect(await rows('key_encryption_keys')).toHaveLength(1);
  });

  it('is none that wraps a data key of an integration or of a SIP number', async () => {
    await createIntegration(client);
    expect(await retire()).toBe(false);
    await env.DB.prepare('DELETE FROM integrations').run();
    await call(client, 'POST', '/api/phone-numbers', { body: sip() });
    expect(await retire()).toBe(false);
  });

  it('may have been intended for what was given up: what is owed opens nothing', async () => {
    const refusing = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.put') throw new Error('KV: 503');
      return carryOut();
    });
    await call(client, 'POST', '/api/integrations', { body: { name: 'No', credentials: twilio }, bindings: refusing });
    expect((await rows('credential_purges')).length).toBeGreaterThan(0);

    expect(await retire()).toBe(true);
  });

  it('is awaited by whatever the drain has claimed: that cannot become live any more', async () => {
    const under = stalledIn('POST', '/api/integrations', { name: 'Claimed', credentials: twilio });
    await under.stalls;
    await env.DB.prepare('UPDATE credential_purges SET due_at = 1').run();
    await drainPurges(env);

    expect(await retire()).toBe(true);
    expect((await under.finish()).status).toBe(503);
    expect(await rows('integrations')).toEqual([]);
  });
});

describe('the hour before a retirement', () => {
  it('begins when the current key first wraps, by D1’s clock', async () => {
    expect(await secondsToRetirement(env.DB, 'k2')).toBeUndefined();
    const integration_id = await createIntegration(client);
    await rewrapDataKeys({ ...env, CREDENTIALS_KEKS: promoted });

    expect(await secondsToRetirement(env.DB, 'k2')).toBeGreaterThan(3590);
    await env.DB.prepare(`UPDATE key_encryption_keys SET created_at = created_at - 3600`).run();
    expect(await secondsToRetirement(env.DB, 'k2')).toBe(0);
    expect(await openCredentials(integration_id, promoted)).toEqual(twilio);
  });
});
