/** What operators do, and a try of it that lands late: behind whatever came since. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import worker from '../../src/worker/index.ts';
import { interceptedBindings } from '../bindings.ts';
import {
  call,
  createIntegration,
  emptyStorage,
  everythingStored,
  importNumber,
  newClient,
  newOperator,
  unusedNumber,
} from '../fixtures.ts';
import type { Client, Operator } from '../fixtures.ts';
import { importSip } from '../mutations.ts';
import { assertInvariants } from './invariants.ts';

beforeEach(async () => {
  vi.spyOn(Math, 'random').mockReturnValue(0);
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation(() => {});
  await emptyStorage();
  return () => vi.restoreAllMocks();
});

const withKey = [
  ['under an Idempotency-Key', { 'Idempotency-Key': 'once' }],
  ['without an Idempotency-Key', {}],
] as const;

/** What can have happened since; each of it is done by an operator, or by the cron. */
const since = ['nothing', 'a resumption', 'two updates', 'new keys', 'an offboarding', '24 hours', '90 days'] as const;

describe.each(withKey)('%s', (_, headers) => {
  let operator: Operator;
  let client: Client;
  let about: string;
  let phone_number: string;
  /** The batches of the calls that the test is about. */
  let tries: (() => Promise<unknown>)[];

  beforeEach(async () => {
    operator = await newOperator();
    client = await newClient();
    about = `/operator/organizations/${client.organization_id}`;
    phone_number = unusedNumber();
    await importNumber(client, await createIntegration(client), phone_number);
    await importSip(client);
    await newClient({ organization_id: client.organization_id, role: 'user' });
    tries = [];
  });

  const noting = () =>
    interceptedBindings((name, carryOut, { statements }) => {
      if (name === 'DB.batch' && statements.some(({ sql }) => !sql.startsWith('select'))) tries.push(carryOut);
      return carryOut();
    });

  const act = async (method: string, path: string, body?: object) => {
    const answer = await call(operator, method, path, { body, headers, bindings: noting() });
    expect(answer.status, answer.text).toBeLessThan(300);
    return answer;
  };

  const other = async (method: string, path: string, body?: object) => {
    const { status, text } = await call(operator, method, path, { body });
    expect(status, text).toBeLessThan(300);
  };

  const suspendNow = () => other('POST', `${about}/suspend`);
  const offboardNow = async () => {
    await suspendNow();
    await other('POST', `${about}/offboard`, { organization_id: client.organization_id });
    await worker.scheduled(createScheduledController(), env);
  };

  const happens: Record<(typeof since)[number], () => Promise<unknown>> = {
    nothing: async () => {},
    'a resumption': async () => {
      await suspendNow();
      await other('POST', `${about}/resume`);
    },
    'two updates': async () => {
      await other('PUT', about, { name: 'Second', metadata: {} });
      await other('PUT', about, { tier: 'pro' });
    },
    // The first of many events has the batch's own id, which is taken: so one key would tell nothing.
    'new keys': async () => {
      for (const role of ['admin', 'user']) await other('POST', `${about}/api-keys`, { name: 'New', role });
    },
    'an offboarding': offboardNow,
    '24 hours': async () => {
      await env.DB.batch(
        ['operator_idempotency_keys', 'audit_events'].map((table) =>
          env.DB.prepare(`UPDATE ${table} SET created_at = created_at - 86401`),
        ),
      );
      await worker.scheduled(createScheduledController(), env);
    },
    '90 days': async () => {
      await env.DB.prepare('UPDATE api_keys SET ended_at = 1 WHERE ended_at IS NOT NULL').run();
      await happens['24 hours']();
    },
  };

  /**
   * Lands every try once more: nothing changes but what is owed to the outbox, and an answer that is remembered again. The
   * cron ends both.
   */
  async function assertNothingComesOfThem(): Promise<void> {
    const stored = async () => {
      const { d1, CREDENTIALS } = await everythingStored();
      const { credential_purges, operator_idempotency_keys, operator_keys: _used, ...rest } = d1;
      return { kept: { ...rest, CREDENTIALS }, credential_purges, operator_idempotency_keys };
    };
    await worker.scheduled(createScheduledController(), env);
    const before = await stored();
    for (const late of tries) await late().catch(() => {});
    expect((await stored()).kept).toEqual(before.kept);
    await assertInvariants(client.organization_id);
    await env.DB.prepare('UPDATE credential_purges SET due_at = 0').run();
    await worker.scheduled(createScheduledController(), env);
    expect(await stored()).toEqual(before);
  }

  describe.each(since)('a try that lands behind %s', (what) => {
    const acts: Record<string, () => Promise<unknown>> = {
      'an update': () => act('PUT', about, { name: 'First', metadata: { account: '1' } }),
      'a suspension that was resumed': async () => {
        await act('POST', `${about}/suspend`);
        await other('POST', `${about}/resume`);
      },
      'a resumption that was followed by a suspension': async () => {
        await suspendNow();
        await act('POST', `${about}/resume`);
        await suspendNow();
        await other('POST', `${about}/resume`);
      },
      'the minting of a key': () => act('POST', `${about}/api-keys`, { name: 'Support', role: 'user' }),
      'the minting of a key that was revoked': async () => {
        const { text } = await act('POST', `${about}/api-keys`, { name: 'Support', role: 'user' });
        const { data } = z
          .object({ data: z.object({ key: z.object({ key_id: z.string() }) }) })
          .parse(JSON.parse(text));
        await other('DELETE', `${about}/api-keys/${data.key.key_id}`);
      },
      'the revocation of a key': () => act('DELETE', `${about}/api-keys/${client.key_id}`),
      'the revocation of all keys': () => act('POST', `${about}/api-keys/revoke-all`),
      'the release of a number': () => act('POST', '/operator/phone-numbers/release', { phone_number }),
      'the release of a number that another organization imported': async () => {
        await act('POST', '/operator/phone-numbers/release', { phone_number });
        const heir = await newClient();
        await importNumber(heir, await createIntegration(heir), phone_number);
      },
      'the creation of an organization with its first key': () =>
        act('POST', '/operator/organizations', { name: 'New', first_key: { name: 'First', role: 'admin' } }),
      'the creation of an organization whose first key was revoked': async () => {
        const organization_id = 'org_new';
        await act('POST', '/operator/organizations', {
          organization_id,
          name: 'New',
          first_key: { name: 'First', role: 'admin' },
        });
        await other('POST', `/operator/organizations/${organization_id}/api-keys/revoke-all`);
        await other('PUT', `/operator/organizations/${organization_id}`, { name: 'Renamed' });
      },
    };

    it.each(Object.keys(acts))('changes nothing: %s', async (name) => {
      await acts[name]?.();
      await happens[what]();

      expect(tries.length).toBeGreaterThan(0);
      await assertNothingComesOfThem();
    });
  });

  it('a try of an offboarding, or of any of its steps, changes nothing once it has ended', async () => {
    await suspendNow();
    await act('POST', `${about}/offboard`, { organization_id: client.organization_id });
    await worker.scheduled(createScheduledController(), noting());
    await happens['24 hours']();

    expect(tries.length).toBeGreaterThan(3);
    await assertNothingComesOfThem();
  });

  it('a try of the end of an offboarding ends none that has rows', async () => {
    await suspendNow();
    await act('POST', `${about}/offboard`, { organization_id: client.organization_id });
    const { organization_id } = client;
    const isUnderWay = async () =>
      (await env.DB.prepare('SELECT is_offboarding FROM organizations WHERE organization_id = ?')
        .bind(organization_id)
        .first('is_offboarding')) === 1;
    expect(await isUnderWay()).toBe(false);
    // As a restore brings them back.
    await env.DB.batch([
      env.DB.prepare('UPDATE organizations SET is_offboarding = 1 WHERE organization_id = ?').bind(organization_id),
      env.DB.prepare(
        `INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
           supports_inbound, supports_outbound, media_encryption, created_at, updated_at)
         VALUES ('phon_0000000000ff', ?, NULL, ?, 'sip', 'free', 0, 0, 'allow', 0, 0)`,
      ).bind(organization_id, unusedNumber()),
    ]);

    for (const late of tries) await late().catch(() => {});

    expect(await isUnderWay()).toBe(true);
    await worker.scheduled(createScheduledController(), env);
    expect(await isUnderWay()).toBe(false);
    await assertInvariants(organization_id);
  });

  it('the first try of a suspension that lands behind a resumption suspends nothing, whoever was told that it is unknown', async () => {
    let late = async (): Promise<unknown> => undefined;
    const bindings = interceptedBindings((name, carryOut, { statements }) => {
      if (name !== 'DB.batch' || !statements.some(({ sql }) => sql.startsWith('update "organizations"')))
        return carryOut();
      late = carryOut;
      throw new Error('D1_ERROR: Network connection lost.');
    });
    const { status, text } = await call(operator, 'POST', `${about}/suspend`, { headers, bindings });
    expect([status, text.includes('"unknown"')]).toEqual([503, true]);
    await happens['a resumption']();
    const before = (await everythingStored()).d1;

    await late();

    expect((await everythingStored()).d1).toEqual(before);
  });
});
