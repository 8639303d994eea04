/** Updates, and the delete of a number, whose bindings fail: before they act, after they did, or by acting late. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import worker from '../../src/worker/index.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  emptyStorage,
  everythingKept,
  importNumber,
  newClient,
  openCredentials,
  resources,
  rowOf,
  rows,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { withoutBackOff } from './every-call.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const OVERLOADED = 'D1_ERROR: D1 DB is overloaded. Requests queued for too long.';
const TWO_HOURS = 2 * 3600 * 1000;
const AGENT = 'agent_0123456789ab';

let client: Client;
let integration_id: string;
let other: string;
let phone_number_id: string;

beforeEach(withoutBackOff);

beforeEach(async () => {
  await emptyStorage();
  client = await newClient();
  integration_id = await createIntegration(client);
  other = await createIntegration(client);
  phone_number_id = await importNumber(client, integration_id, unusedNumber());
});

afterEach(() => {
  vi.useRealTimers();
});

/** The cron, when every intent of now is due. */
const drainLater = async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + TWO_HOURS });
  await worker.scheduled(createScheduledController(), env);
  vi.useRealTimers();
};

/** Ends with each integration's own ciphertext in KV, and nothing else there or in the outbox. */
async function expectNoGarbage() {
  await drainLater();
  const { integrations, phone_numbers, credential_purges, CREDENTIALS } = await resources();
  const live = [...integrations, ...phone_numbers].flatMap(({ credentials_version }) =>
    typeof credentials_version === 'string' ? [`/${credentials_version}`] : [],
  );
  const kept = Object.keys(CREDENTIALS).map((kv_key) => kv_key.slice(kv_key.lastIndexOf('/')));
  expect(kept.toSorted()).toEqual(live.toSorted());
  expect(credential_purges).toEqual([]);
}

/** Bindings whose n-th batch is dealt with otherwise. */
function nthBatch(n: number, deal: (carryOut: () => Promise<unknown>) => Promise<unknown>) {
  let batches = 0;
  return interceptedBindings((name, carryOut) =>
    name === 'DB.batch' && (batches += 1) === n ? deal(carryOut) : carryOut(),
  );
}

const credentialsOf = (auth_token: string) => ({ ...twilio, auth_token });
const integration = () => ({
  id: integration_id,
  path: `/api/integrations/${integration_id}`,
  table: 'integrations' as const,
});
const phoneNumber = () => ({
  id: phone_number_id,
  path: `/api/phone-numbers/${phone_number_id}`,
  table: 'phone_numbers' as const,
});

/** Members of a body as columns have them. */
const asStored = (members: object) =>
  Object.fromEntries(
    Object.entries(members).map(([name, value]) => [name, typeof value === 'boolean' ? Number(value) : value]),
  );

interface Update {
  named: string;
  target: () => { id: string; path: string; table: 'integrations' | 'phone_numbers' };
  /** The batches before the answer: the last of them decides. */
  batches: number;
  body: () => object;
  /** What a second update brings, which a late first one must not undo. */
  second: () => object;
  event: string;
}

const updates: Update[] = [
  {
    named: 'an integration’s name',
    target: integration,
    batches: 1,
    body: () => ({ name: 'First' }),
    second: () => ({ name: 'Second' }),
    event: 'integration.updated',
  },
  {
    named: 'an integration’s credentials',
    target: integration,
    batches: 2,
    body: () => ({ credentials: credentialsOf('plaintext-first') }),
    second: () => ({ credentials: credentialsOf('plaintext-second') }),
    event: 'integration.updated',
  },
  {
    named: 'an integration’s name and credentials',
    target: integration,
    batches: 2,
    body: () => ({ name: 'First', credentials: credentialsOf('plaintext-first') }),
    second: () => ({ name: 'Second' }),
    event: 'integration.updated',
  },
  {
    named: 'a phone number',
    target: phoneNumber,
    batches: 1,
    body: () => ({ integration_id: other, supports_inbound: true, assigned_agent_id: AGENT }),
    second: () => ({ integration_id, supports_inbound: false, assigned_agent_id: null }),
    event: 'phone_number.updated',
  },
];

describe.each(updates)('an update of $named', ({ target, batches, body, second, event }) => {
  const update = (bindings = env, sent = body()) => {
    // The account of the other integration need not have the number.
    const query = target().table === 'phone_numbers' ? '?verify=false' : '';
    return call(client, 'PUT', `${target().path}${query}`, { body: sent, bindings });
  };
  const row = () => rowOf(target().table, target().id);
  const events = async () => (await actionsOn(target().id)).slice(1);
  const deciding = (deal: (carryOut: () => Promise<unknown>) => Promise<unknown>) => nthBatch(batches, deal);

  const expectDone = async (revision = 2) => {
    const { credentials = twilio, ...members }: { credentials?: object } = body();
    expect(await row()).toMatchObject({ ...asStored(members), revision });
    expect(await openCredentials(integration_id)).toEqual(credentials);
  };

  const readCredentials = () => openCredentials(integration_id);

  it.each(
    Array.from({ length: batches }, (_, index) => index + 1).flatMap(
      (n) =>
        [
          [n, 'before'],
          [n, 'after'],
        ] as const,
    ),
  )('is done once where batch %i fails once, %s it is carried out', async (n, when) => {
    const bindings = nthBatch(n, async (carryOut) => {
      if (when === 'after') await carryOut();
      throw new Error(LOST);
    });

    const { status, text } = await update(bindings);

    expect(status).toBe(200);
    await expectDone();
    expect(await events()).toEqual([event]);
    const read = await call(client, 'GET', target().path);
    expect(JSON.parse(text).data).toEqual(JSON.parse(read.text).data);
    await expectNoGarbage();
  });

  it('has done nothing where no batch reaches D1; the answer says so where D1 is overloaded', async () => {
    const before = await everythingKept();
    const { bindings } = failingBindings('DB.batch', { when: 'before', message: OVERLOADED });

    const { status, body: problem, headers } = await update(bindings);

    expect(status).toBe(503);
    expect(problem).toMatchObject({ code: 'temporarily_unavailable', outcome: 'not_done' });
    expect(headers.get('Retry-After')).toMatch(/^[3-8]$/);
    expect(await everythingKept()).toEqual(before);
  });

  it('has done nothing where the connection is lost each time, and says so where nothing can have been decided', async () => {
    const before = await everythingKept();
    const { bindings, calls } = failingBindings('DB.batch', { when: 'before', message: LOST });

    const { status, body: problem } = await update(bindings);

    expect(status).toBe(503);
    expect(problem).toMatchObject({ outcome: batches === 1 ? 'unknown' : 'not_done' });
    expect(calls).toEqual(['DB.batch', 'DB.batch', 'DB.batch']);
    expect(await everythingKept()).toEqual(before);
  });

  it('has done nothing where its deciding batch never reaches D1', async () => {
    const { integrations, phone_numbers } = await resources();
    let seen = 0;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name === 'DB.batch' && (seen += 1) >= batches) return Promise.reject(new Error(OVERLOADED));
      return carryOut();
    });

    const { status, body: problem } = await update(bindings);

    expect(status).toBe(503);
    expect(problem).toMatchObject({ outcome: 'not_done' });
    expect(await resources()).toMatchObject({ integrations, phone_numbers });
    expect(await events()).toEqual([]);
    expect(await readCredentials()).toEqual(twilio);
    await expectNoGarbage();
    expect(await readCredentials()).toEqual(twilio);
  });

  it('is wholly done where every answer to its deciding batch is lost, and the answer admits that the outcome is unknown', async () => {
    let seen = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'DB.batch' && (seen += 1) >= batches) throw new Error(LOST);
      return result;
    });

    const { status, body: problem } = await update(bindings);

    expect(status).toBe(503);
    expect(problem).toMatchObject({ code: 'temporarily_unavailable', outcome: 'unknown' });
    await expectDone();
    expect(await events()).toEqual([event]);
    await expectNoGarbage();
    await expectDone();
  });

  it('does not bring old values back where its first try lands late, after a second update', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = deciding((carryOut) => {
      late = carryOut;
      return Promise.reject(new Error(LOST));
    });
    expect((await update(bindings)).status).toBe(200);
    await expectDone();
    expect((await update(env, second())).status).toBe(200);
    const between = await row();
    const credentials = await readCredentials();
    expect(between).toMatchObject({ revision: 3 });

    expect(late).toBeDefined();
    await late?.();

    expect(await row()).toEqual(between);
    expect(await events()).toEqual([event, event]);
    await expectNoGarbage();
    expect(await row()).toEqual(between);
    expect(await readCredentials()).toEqual(credentials);
  });

  it('changes nothing more where its first try lands late, right after the retry', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = deciding((carryOut) => {
      late = carryOut;
      return Promise.reject(new Error(LOST));
    });
    await update(bindings);
    const done = await row();

    await late?.();

    expect(await row()).toEqual(done);
    expect(await events()).toEqual([event]);
    await expectNoGarbage();
    await expectDone();
  });

  it('does not undo a second update that was made between its commit and its retry', async () => {
    const bindings = deciding(async (carryOut) => {
      await carryOut();
      expect((await update(env, second())).status).toBe(200);
      throw new Error(LOST);
    });

    const { status, text } = await update(bindings);

    expect(status).toBe(200);
    expect(JSON.parse(text).data).toMatchObject(
      Object.fromEntries(Object.entries(body()).filter(([name]) => name !== 'credentials')),
    );
    const after = await row();
    expect(after).toMatchObject({ revision: 3 });
    expect(await events()).toEqual([event, event]);
    await expectNoGarbage();
    const { credentials = twilio, ...members }: { credentials?: object } = { ...body(), ...second() };
    expect(after).toMatchObject(asStored(members));
    expect(await readCredentials()).toEqual(credentials);
  });

  it('does not bring back what was deleted between its commit and its retry', async () => {
    const bindings = deciding(async (carryOut) => {
      await carryOut();
      await env.DB.prepare('DELETE FROM phone_numbers').run();
      if (target().table === 'integrations') await call(client, 'DELETE', target().path);
      throw new Error(LOST);
    });

    expect((await update(bindings)).status).toBe(200);

    await expect(row()).rejects.toThrow('no row');
    await expectNoGarbage();
  });

  it('is in doubt where it is refused while an earlier try is under way, and is then wholly done or not at all', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = deciding(async (carryOut) => {
      late = carryOut;
      await changeKey(client, `role = 'user'`);
      throw new Error(LOST);
    });

    const { status, body: problem } = await update(bindings);
    await changeKey(client, `role = 'admin'`);
    await late?.();

    expect(status).toBe(503);
    expect(problem).toMatchObject({ outcome: 'unknown' });
    // New credentials cannot come any more: the refusal has spent their intent.
    const comes = batches === 1;
    expect(await events()).toEqual(comes ? [event] : []);
    expect(await row()).toMatchObject(comes ? { ...asStored(body()), revision: 2 } : { revision: 1 });
    expect(await readCredentials()).toEqual(twilio);
    await expectNoGarbage();
  });

  it('is answered as done where the key dies between its commit and its retry', async () => {
    const bindings = deciding(async (carryOut) => {
      await carryOut();
      await changeKey(client, `status = 'revoked'`);
      throw new Error(LOST);
    });

    expect((await update(bindings)).status).toBe(200);

    await expectDone();
    expect(await events()).toEqual([event]);
  });

  it('is a 500, asked once, where the SQL itself fails; nothing is changed and no word of it told', async () => {
    const { integrations, phone_numbers } = await resources();
    let decided = 0;
    let seen = 0;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name !== 'DB.batch' || (seen += 1) < batches) return carryOut();
      decided += 1;
      return Promise.reject(new Error('D1_ERROR: no such column: secret_column: SQLITE_ERROR'));
    });

    const { status, text } = await update(bindings);

    expect(status).toBe(500);
    expect(text).not.toContain('secret_column');
    expect(decided).toBe(1);
    expect(await resources()).toMatchObject({ integrations, phone_numbers });
    await expectNoGarbage();
  });
});

describe('new credentials', () => {
  const path = () => `/api/integrations/${integration_id}`;
  const update = (bindings = env) =>
    call(client, 'PUT', path(), { body: { name: 'First', credentials: credentialsOf('plaintext-first') }, bindings });

  const expectUntouched = async () => {
    expect(await rowOf('integrations', integration_id)).toMatchObject({ name: 'Twilio Production', revision: 1 });
    expect(await openCredentials(integration_id)).toEqual(twilio);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  };

  it.each(['before', 'after'] as const)(
    'have done nothing where their ciphertext cannot be stored (%s): the old ones open, and the outbox ends empty',
    async (when) => {
      const { bindings, calls } = failingBindings('CREDENTIALS.put', { when, message: 'KV PUT failed: 500' });

      const { status, body } = await update(bindings);

      expect(status).toBe(503);
      expect(body).toMatchObject({ code: 'temporarily_unavailable', outcome: 'not_done' });
      expect(calls.filter((name) => name === 'CREDENTIALS.put')).toHaveLength(3);
      await expectUntouched();
      await expectNoGarbage();
      await expectUntouched();
    },
  );

  it('are stored where the put fails once', async () => {
    const { bindings } = failingBindings('CREDENTIALS.put', {
      when: 'before',
      message: 'KV PUT failed: 500',
      times: 1,
    });

    expect((await update(bindings)).status).toBe(200);
    expect(await openCredentials(integration_id)).toEqual(credentialsOf('plaintext-first'));
    await expectNoGarbage();
  });

  it('leave no ciphertext where a put lands late, after the refusal', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'CREDENTIALS.put' || late) return carryOut();
      late = carryOut;
      await changeKey(client, `status = 'revoked'`);
      throw new Error('KV PUT failed: 500');
    });

    expect((await update(bindings)).status).toBe(401);
    await late?.();

    await expectUntouched();
    await expectNoGarbage();
    await expectUntouched();
  });

  it.each([
    ['was revoked', `status = 'revoked'`, 401],
    ['lost the permission', `role = 'user'`, 403],
  ])('are not stored by a key that %s between the intent and the batch', async (_, assignment, expected) => {
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.put') await changeKey(client, assignment);
      return carryOut();
    });

    expect((await update(bindings)).status).toBe(expected);

    await expectUntouched();
    expect(await rows('credential_purges')).toHaveLength(1);
    await expectNoGarbage();
    await expectUntouched();
  });

  it.each([
    ['has claimed their ciphertext', 'UPDATE credential_purges SET attempts = 1'],
    ['has removed the intent', 'DELETE FROM credential_purges'],
  ])('are not done where the cron %s meanwhile', async (_, claim) => {
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'CREDENTIALS.put') await env.DB.prepare(claim).run();
      return result;
    });

    const { status, body } = await update(bindings);

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'not_done' });
    await expectUntouched();
  });

  it('are a 404 where the integration is deleted between the intent and the batch, and leave nothing', async () => {
    integration_id = other;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'CREDENTIALS.put') await call(client, 'DELETE', path());
      return result;
    });

    expect(await update(bindings)).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });

    await expect(rowOf('integrations', other)).rejects.toThrow('no row');
    expect(await actionsOn(other)).toEqual(['integration.created', 'integration.deleted']);
    await expectNoGarbage();
  });

  it('leave the old ciphertext to the cron where KV fails after the answer', async () => {
    const { bindings } = failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV DELETE failed: 500' });

    expect((await update(bindings)).status).toBe(200);

    expect(await rows('credential_purges')).toHaveLength(1);
    await worker.scheduled(createScheduledController(), env);
    expect(await rows('credential_purges')).toEqual([]);
    expect(await openCredentials(integration_id)).toEqual(credentialsOf('plaintext-first'));
    await expectNoGarbage();
  });
});

describe('a delete of a phone number', () => {
  let sip: string;
  let sip_number: string;

  beforeEach(async () => {
    sip_number = unusedNumber();
    await call(client, 'POST', '/api/phone-numbers', {
      body: { provider: 'sip', phone_number: sip_number, sip_username: 'user', sip_password: 'plaintext-password' },
    });
    sip = String((await rowOf('phone_numbers', sip_number))['phone_number_id']);
  });

  const deleteNumber = (bindings = env) => call(client, 'DELETE', `/api/phone-numbers/${sip}`, { bindings });
  const assign = () =>
    env.DB.prepare(`UPDATE phone_numbers SET status = 'assigned', assigned_agent_id = ? WHERE phone_number_id = ?`)
      .bind(AGENT, sip)
      .run();
  const events = async () => (await actionsOn(sip)).slice(1);

  it.each(['before', 'after'] as const)('is done once where D1 fails once, %s it commits', async (when) => {
    const { bindings } = failingBindings('DB.batch', { when, message: LOST, times: 1 });

    const { status, body } = await deleteNumber(bindings);

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { phone_number_id: sip, phone_number: sip_number } });
    expect(await events()).toEqual(['phone_number.deleted']);
    await expect(rowOf('phone_numbers', sip)).rejects.toThrow('no row');
    expect(Object.keys((await resources()).CREDENTIALS).filter((kv_key) => kv_key.includes(sip))).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('that is refused is refused once, on record once, where the answer is lost', async () => {
    await assign();
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    expect(await deleteNumber(bindings)).toMatchObject({ status: 409, body: { code: 'phone_number_assigned' } });
    expect(await events()).toEqual(['phone_number.delete_refused']);
  });

  it.each([
    [OVERLOADED, 'not_done'],
    [LOST, 'unknown'],
  ])('has done nothing where D1 stays away: %s', async (message, outcome) => {
    const before = await everythingKept();
    const { bindings } = failingBindings('DB.batch', { when: 'before', message });

    expect(await deleteNumber(bindings)).toMatchObject({ status: 503, body: { outcome } });
    expect(await everythingKept()).toEqual(before);
  });

  it('is wholly done where every answer is lost; the outcome is unknown, and the cron cleans up', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST });

    expect(await deleteNumber(bindings)).toMatchObject({ status: 503, body: { outcome: 'unknown' } });

    expect(await events()).toEqual(['phone_number.deleted']);
    await expectNoGarbage();
  });

  it('leaves the number alone that was imported again before its first try lands late', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = nthBatch(1, (carryOut) => {
      late = carryOut;
      return Promise.reject(new Error(LOST));
    });
    expect((await deleteNumber(bindings)).status).toBe(200);
    const again = await importNumber(client, integration_id, sip_number);

    await late?.();

    expect(await rowOf('phone_numbers', sip_number)).toMatchObject({ phone_number_id: again });
    expect(await events()).toEqual(['phone_number.deleted']);
    await expectNoGarbage();
  });

  it('that was refused on its retry is not done by its first try, late, once the number is free', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = nthBatch(1, async (carryOut) => {
      late = carryOut;
      await assign();
      throw new Error(LOST);
    });
    expect((await deleteNumber(bindings)).status).toBe(409);
    await call(client, 'PUT', `/api/phone-numbers/${sip}`, { body: { assigned_agent_id: null } });

    await late?.();

    expect(await rowOf('phone_numbers', sip)).toMatchObject({ status: 'free' });
    expect(await events()).toEqual(['phone_number.delete_refused', 'phone_number.updated']);
    await expectNoGarbage();
  });

  it('leaves the ciphertext to the cron where KV fails after the answer', async () => {
    const { bindings } = failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV DELETE failed: 500' });

    expect((await deleteNumber(bindings)).status).toBe(200);

    expect(await rows('credential_purges')).toHaveLength(1);
    await worker.scheduled(createScheduledController(), env);
    expect(await rows('credential_purges')).toEqual([]);
    await expectNoGarbage();
  });
});
