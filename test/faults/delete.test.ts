/** A delete whose bindings fail: before they act, or after they did. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import worker from '../../src/worker/index.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  emptyStorage,
  importNumber,
  newClient,
  resources,
  rows,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { withoutBackOff } from './every-call.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const OVERLOADED = 'D1_ERROR: D1 DB is overloaded. Requests queued for too long.';

let client: Client;
let integration_id: string;

beforeEach(withoutBackOff);

beforeEach(async () => {
  await emptyStorage();
  client = await newClient();
  integration_id = await createIntegration(client);
});

const deleteWith = ({ bindings }: ReturnType<typeof failingBindings>) =>
  call(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings });

const batches = ({ calls }: ReturnType<typeof failingBindings>) => calls.filter((name) => name === 'DB.batch').length;

const ciphertexts = async () =>
  Object.keys((await resources()).CREDENTIALS).filter((key) => key.includes(integration_id));

describe('D1 that fails before it commits', () => {
  it('once, is asked again, and the integration is deleted', async () => {
    const faults = failingBindings('DB.batch', { when: 'before', message: LOST, times: 1 });

    expect((await deleteWith(faults)).status).toBe(200);
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
  });

  it('by overload, is asked once more and no harder; the answer says that nothing was done, and nothing was', async () => {
    const before = await resources();
    const faults = failingBindings('DB.batch', { when: 'before', message: OVERLOADED });

    const { status, body, headers } = await deleteWith(faults);

    expect(status).toBe(503);
    expect(body).toMatchObject({ code: 'temporarily_unavailable', outcome: 'not_done' });
    expect(headers.get('Retry-After')).toMatch(/^[3-8]$/);
    expect(batches(faults)).toBe(2);
    expect(await resources()).toEqual(before);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('by a lost connection each time, is asked three times; the answer admits that the outcome is unknown', async () => {
    const before = await resources();
    const faults = failingBindings('DB.batch', { when: 'before', message: LOST });

    const { status, body } = await deleteWith(faults);

    expect(status).toBe(503);
    expect(body).toMatchObject({ code: 'temporarily_unavailable', outcome: 'unknown' });
    expect(batches(faults)).toBe(3);
    expect(await resources()).toEqual(before);
  });

  it('by not even taking a statement, has nothing done', async () => {
    const DB = new Proxy(env.DB, {
      get() {
        return () => {
          throw new Error(LOST);
        };
      },
    });

    const { status, body } = await call(client, 'DELETE', `/api/integrations/${integration_id}`, {
      bindings: { ...env, DB },
    });

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'not_done' });
  });

  it('is not asked about the key before it acts: what became of the call is unknown', async () => {
    const stranger = await newClient();
    const faults = failingBindings('DB.batch', { when: 'before', message: LOST });

    const { status, body } = await call(stranger, 'DELETE', `/api/integrations/${integration_id}`, faults);

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'unknown' });
  });
});

describe('D1 that fails after it committed', () => {
  it('is given the identical batch again, and the client gets its one 200, on record once', async () => {
    const faults = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    const { status, body } = await deleteWith(faults);

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { integration_id, name: 'Twilio Production' } });
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
    expect(await ciphertexts()).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('of a refusal, is given the identical batch again, and the refusal is on record once', async () => {
    await importNumber(client, integration_id, unusedNumber());
    const faults = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    const { status, body } = await deleteWith(faults);

    expect(status).toBe(409);
    expect(body).toMatchObject({ code: 'integration_in_use', reference_count: 1 });
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.delete_refused']);
  });

  it('of a refusal whose last reference is gone by then, has nothing done, and is to be asked again', async () => {
    await importNumber(client, integration_id, unusedNumber());
    let failures = 1;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name !== 'DB.batch' || (failures -= 1) < 0) return result;
      await env.DB.prepare('DELETE FROM phone_numbers WHERE integration_id = ?').bind(integration_id).run();
      throw new Error(LOST);
    });

    const { status, body } = await call(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings });

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'not_done' });
    expect(await ciphertexts()).toHaveLength(1);
  });

  it('each time, is wholly done, and the answer admits that the outcome is unknown', async () => {
    const faults = failingBindings('DB.batch', { when: 'after', message: LOST });

    const { status, body } = await deleteWith(faults);

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'unknown' });
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
    expect(await rows('credential_purges')).toHaveLength(1);
    await worker.scheduled(createScheduledController(), env);
    expect(await ciphertexts()).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  });
});

describe('D1 that may yet carry out an earlier try', () => {
  it('is not overtaken by a refusal: the outcome is unknown, and so it is', async () => {
    const set = (role: string) =>
      env.DB.prepare('UPDATE api_keys SET role = ? WHERE key_id = ?').bind(role, client.key_id).run();
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'DB.batch' || late) return carryOut();
      late = carryOut;
      await set('user');
      throw new Error(LOST);
    });

    const { status, body } = await call(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings });
    await set('admin');
    await late?.();

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'unknown' });
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
    await worker.scheduled(createScheduledController(), env);
    expect(await ciphertexts()).toEqual([]);
  });
});

describe('an outbox row that is there already', () => {
  it('does not keep an integration from being deleted', async () => {
    const [kv_key] = await ciphertexts();
    await env.DB.prepare(
      `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at) VALUES (?, ?, unixepoch() + 3600, 0, unixepoch() + 3600)`,
    )
      .bind(kv_key, client.organization_id)
      .run();

    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);

    expect(await ciphertexts()).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  });
});

describe('D1 that fails by the SQL itself', () => {
  it('is not asked again, and the client learns no word of it', async () => {
    const message = 'D1_ERROR: no such column: secret_column: SQLITE_ERROR';
    const faults = failingBindings('DB.batch', { when: 'before', message });

    const { status, text } = await deleteWith(faults);

    expect(status).toBe(500);
    expect(text).toContain('"code":"internal_error"');
    expect(text).not.toContain('secret_column');
    expect(batches(faults)).toBe(1);
  });
});
