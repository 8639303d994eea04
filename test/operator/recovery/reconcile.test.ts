import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { reconcile } from '../../../src/operator/recovery/reconcile.ts';
import type { Bindings } from '../../../src/worker/env.ts';
import { interceptedBindings } from '../../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  eventsOn,
  newClient,
  openCredentials,
  resources,
  rowOf,
  rows,
  unusedNumber,
} from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';
import { restorePoint } from './restore.ts';

const DAY = 86_400;

let client: Client;
let integration_id: string;

beforeEach(async () => {
  await env.DB.batch(
    ['phone_numbers', 'integrations', 'credential_purges'].map((table) => env.DB.prepare(`DELETE FROM ${table}`)),
  );
  for (const kv_key of await stored()) await env.CREDENTIALS.delete(kv_key);
  client = await newClient();
  integration_id = await createIntegration(client);
});

const path = () => `/api/integrations/${integration_id}`;
const another = { provider: 'twilio', account_sid: `AC${'1'.repeat(32)}`, auth_token: 'another', region: 'us1' };
const update = () => call(client, 'PUT', path(), { body: { credentials: another } });
const kvKey = async () =>
  `v1/${client.organization_id}/${integration_id}/${String((await rowOf('integrations', integration_id))['credentials_version'])}`;
const statusOf = async () => (await rowOf('integrations', integration_id))['status'];
const outbox = async () => (await rows('credential_purges')).map(({ kv_key }) => String(kv_key));

async function stored(): Promise<string[]> {
  return (await env.CREDENTIALS.list()).keys.map(({ name }) => name);
}

const nothing = { credentials_missing: [], sip_numbers_missing: [], orphans: [] };

describe('an integration that came back at a version whose ciphertext is gone', () => {
  let newer: string;

  beforeEach(async () => {
    const restore = await restorePoint();
    await update();
    newer = await kvKey();
    await restore();
  });

  it('becomes credentials_missing, as a read shows, and an audit event of no key says so', async () => {
    const { revision } = await rowOf('integrations', integration_id);

    expect(await reconcile(env)).toMatchObject({ credentials_missing: [integration_id] });

    expect((await call(client, 'GET', path())).body).toMatchObject({ data: { status: 'credentials_missing' } });
    expect((await eventsOn(integration_id)).at(-1)).toMatchObject({
      action: 'integration.credentials_missing',
      actor_key_id: null,
      state: { status: 'active' },
    });
    expect(await rowOf('integrations', integration_id)).toMatchObject({ revision: Number(revision) + 1 });
  });

  it('leaves the newer version’s ciphertext to the outbox, due when Time Travel cannot bring its row back', async () => {
    const now = Math.floor(Date.now() / 1000);

    expect(await reconcile(env)).toMatchObject({ orphans: [newer] });

    const [row] = await rows('credential_purges');
    expect(row).toMatchObject({ kv_key: newer, organization_id: client.organization_id, attempts: 0 });
    expect(Number(row?.['due_at']) - now).toBeGreaterThanOrEqual(31 * DAY);
    expect(row?.['first_due_at']).toBe(row?.['due_at']);
  });

  it('is healed by an update of its credentials', async () => {
    await reconcile(env);

    expect((await update()).body).toMatchObject({ data: { status: 'active' } });

    expect(await openCredentials(integration_id)).toEqual(another);
    expect((await reconcile(env)).credentials_missing).toEqual([]);
  });

  it('is done once: a second run does nothing more, and tells it again', async () => {
    const first = await reconcile(env);
    const before = await resources();

    expect(await reconcile(env)).toEqual(first);

    expect(await resources()).toEqual(before);
    expect((await actionsOn(integration_id)).filter((action) => action !== 'integration.created')).toEqual([
      'integration.credentials_missing',
    ]);
  });

  it('is left alone where new credentials come just before it would be marked', async () => {
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.get') await update();
      if (name === 'DB.batch') batches += 1;
      return carryOut();
    });

    expect((await reconcile(bindings)).credentials_missing).toEqual([]);

    expect(batches).toBeGreaterThan(1);
    expect(await statusOf()).toBe('active');
    expect(await openCredentials(integration_id)).toEqual(another);
  });

  it('is marked and recorded once where the word of the commit is lost', async () => {
    const bindings = interceptedBindings(async (name, carryOut) => {
      const answer = await carryOut();
      if (name === 'DB.batch' && (await statusOf()) === 'credentials_missing' && !lost) {
        lost = true;
        throw new Error('Network connection lost.');
      }
      return answer;
    });
    let lost = false;

    await reconcile(bindings);

    expect(lost).toBe(true);
    expect(await statusOf()).toBe('credentials_missing');
    expect(
      (await actionsOn(integration_id)).filter((action) => action === 'integration.credentials_missing'),
    ).toHaveLength(1);
  });
});

describe('what agrees', () => {
  it('is left as it is: rows with their ciphertext, and intents', async () => {
    await env.DB.prepare(
      `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at) VALUES ('v1/org_a/intg_000000000000/v', 'org_a', 0, 0, 0)`,
    ).run();
    await env.CREDENTIALS.put('v1/org_a/intg_000000000000/v', 'ciphertext');
    const before = await resources();

    expect(await reconcile(env)).toEqual(nothing);

    expect(await resources()).toEqual(before);
  });

  it('is not marked where a stale list lacks its ciphertext', async () => {
    const bindings: Bindings = interceptedBindings((name, carryOut) =>
      name === 'CREDENTIALS.list' ? Promise.resolve({ keys: [], list_complete: true, cacheStatus: null }) : carryOut(),
    );

    expect(await reconcile(bindings)).toEqual(nothing);
    expect(await statusOf()).toBe('active');
  });
});

describe('credentials that do not open', () => {
  const withoutCiphertext = async () => env.CREDENTIALS.delete(await kvKey());

  it('are missing where their ciphertext is gone, though a stale list still has it', async () => {
    const stale = await env.CREDENTIALS.list();
    await withoutCiphertext();
    const bindings: Bindings = interceptedBindings((name, carryOut) =>
      name === 'CREDENTIALS.list' ? Promise.resolve(stale) : carryOut(),
    );

    expect(await reconcile(bindings)).toMatchObject({ credentials_missing: [integration_id] });
    expect(await statusOf()).toBe('credentials_missing');
  });

  it('are missing where the data key is wrapped anew meanwhile, under a KEK that nothing was under before', async () => {
    await withoutCiphertext();
    let rewrapped = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const answer = await carryOut();
      if (name === 'CREDENTIALS.list') rewrapped += 1;
      if (name === 'CREDENTIALS.list') await env.DB.prepare(`UPDATE integrations SET kek_id = 'k0'`).run();
      return answer;
    });

    expect(await reconcile(bindings)).toMatchObject({ credentials_missing: [integration_id] });
    expect(rewrapped).toBe(1);
  });

  it('are missing where the ring has not got their KEK, and where ciphertext or data key are damaged', async () => {
    const [lost, damaged, unwrapped] = [
      await createIntegration(client),
      await createIntegration(client),
      await createIntegration(client),
    ];
    const rowOfIntegration = async (id: string) => rowOf('integrations', id);
    await env.DB.prepare(`UPDATE integrations SET kek_id = 'k0' WHERE integration_id = ?`).bind(lost).run();
    await env.DB.prepare(`UPDATE integrations SET data_key = 'AAAA' WHERE integration_id = ?`).bind(unwrapped).run();
    const { credentials_version } = await rowOfIntegration(damaged);
    await env.CREDENTIALS.put(`v1/${client.organization_id}/${damaged}/${String(credentials_version)}`, 'damaged');

    const { credentials_missing } = await reconcile(env);

    expect(credentials_missing.toSorted()).toEqual([lost, damaged, unwrapped].toSorted());
    expect(await statusOf()).toBe('active');
  });

  it('are not looked for with a ring whose key is another than the known one of its name: nothing is done', async () => {
    await withoutCiphertext();
    const CREDENTIALS_KEKS = JSON.stringify({ current: 'k1', keys: { k1: btoa('another KEK'.padEnd(32)) } });

    await expect(reconcile({ ...env, CREDENTIALS_KEKS })).rejects.toThrow('k1 is not the key that has wrapped');

    expect(await statusOf()).toBe('active');
  });

  it('are found by their ciphertext alone without a ring', async () => {
    const lost = await createIntegration(client);
    await env.DB.prepare(`UPDATE integrations SET kek_id = 'k0' WHERE integration_id = ?`).bind(lost).run();
    await withoutCiphertext();

    const { credentials_missing } = await reconcile({ DB: env.DB, CREDENTIALS: env.CREDENTIALS });

    expect(credentials_missing).toEqual([integration_id]);
  });

  it('are missing where their removal is owed: it may be on its way', async () => {
    await env.DB.prepare(
      `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, state) VALUES (?, ?, 1, 1, 'owed')`,
    )
      .bind(await kvKey(), client.organization_id)
      .run();

    expect(await reconcile(env)).toMatchObject({ credentials_missing: [integration_id] });
  });
});

describe('ciphertext that nothing names', () => {
  it('goes to the outbox, of more than a page of it, and of an organization that is not there any more', async () => {
    const names = Array.from({ length: 230 }, (_, index) => `v1/org_gone/intg_000000000000/${index}`);
    await Promise.all(names.map((name) => env.CREDENTIALS.put(name, 'ciphertext')));

    expect((await reconcile(env)).orphans.toSorted()).toEqual(names.toSorted());

    expect((await outbox()).toSorted()).toEqual(names.toSorted());
  });

  it('is told by its whole place: a row of another organization, subject or version does not name it', async () => {
    const [, organization_id, subject_id, version] = (await kvKey()).split('/');
    const names = [
      `v1/org_other/${subject_id}/${version}`,
      `v1/${organization_id}/intg_000000000000/${version}`,
      `v1/${organization_id}/${subject_id}/other`,
    ];
    await Promise.all(names.map((name) => env.CREDENTIALS.put(name, 'ciphertext')));

    expect((await reconcile(env)).orphans.toSorted()).toEqual(names.toSorted());
  });

  it('is left alone where its name is of no form that is known', async () => {
    await env.CREDENTIALS.put('v2/something/else', 'ciphertext');

    expect(await reconcile(env)).toEqual(nothing);
  });
});

describe('a SIP number', () => {
  it('is reported where its ciphertext is gone, and otherwise named by its row', async () => {
    const ids: string[] = [];
    for (const sip_password of ['one', 'two']) {
      const number = { provider: 'sip', sip_trunk_name: 'trunk', sip_username: 'user', sip_password };
      const phone_number = unusedNumber();
      await call(client, 'POST', '/api/phone-numbers', { body: { ...number, phone_number } });
      ids.push(String((await rowOf('phone_numbers', phone_number))['phone_number_id']));
    }
    const [first = '', second = ''] = ids;
    const gone = (await stored()).find((name) => name.includes(first));
    await env.CREDENTIALS.delete(gone ?? '');

    expect(await reconcile(env)).toEqual({ ...nothing, sip_numbers_missing: [first] });
    expect((await stored()).some((name) => name.includes(second))).toBe(true);
  });
});
