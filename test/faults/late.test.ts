/** A create or an import, one try of whose batch lands late: after the deletion of what another try of it made. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import worker from '../../src/worker/index.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import { actionsOn, call, newClient, rows, start, twilio, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { sip } from '../mutations.ts';
import { assertInvariants, ciphertextsOf } from './invariants.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const unwilling = failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV GET failed: 503' }).bindings;

beforeEach(() => {
  // Back-off without waiting.
  vi.spyOn(Math, 'random').mockReturnValue(0);
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation(() => {});
  return () => vi.restoreAllMocks();
});

/** What makes a subject with credentials, by a client that sends no Idempotency-Key. */
const subjects = [
  ['an integration', '/api/integrations', () => ({ name: 'Twilio Production', credentials: twilio }), 'integration'],
  ['a SIP number', '/api/phone-numbers', () => sip(unusedNumber()), 'phone_number'],
] as const;

const made = z.object({ data: z.record(z.string(), z.unknown()) });

/** The deciding batch: the second one, behind the intent's. */
const DECIDING = 2;

async function drainEverything(): Promise<void> {
  await env.DB.prepare('UPDATE credential_purges SET due_at = 0').run();
  await worker.scheduled(createScheduledController(), env);
}

describe.each(subjects)('%s', (_, collection, newBody, table) => {
  let client: Client;
  const idOf = (body: unknown) => String(made.parse(body).data[`${table}_id`]);
  const remove = (id: string, bindings = env) => call(client, 'DELETE', `${collection}/${id}`, { bindings });
  const createThrough = (bindings: typeof env) => call(client, 'POST', collection, { body: newBody(), bindings });

  /** Makes it by the second try of its deciding batch; the first is held, to land when it is told to. */
  async function madeWithLateTry() {
    let batches = 0;
    let land = async (): Promise<unknown> => undefined;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name === 'DB.batch') batches += 1;
      if (name !== 'DB.batch' || batches !== DECIDING) return carryOut();
      land = carryOut;
      throw new Error(LOST);
    });
    const { status, body } = await createThrough(bindings);
    expect(status).toBe(201);
    return { id: idOf(body), land: () => land() };
  }

  async function assertGone(id: string): Promise<void> {
    expect((await call(client, 'GET', `${collection}/${id}`)).status).toBe(404);
    expect((await rows(`${table}s`)).filter((row) => row[`${table}_id`] === id)).toEqual([]);
    await assertInvariants(client.organization_id);
  }

  async function assertDrained(id: string): Promise<void> {
    await drainEverything();
    await assertGone(id);
    expect(await ciphertextsOf(client.organization_id)).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  }

  beforeEach(async () => {
    client = await newClient();
    await call(client, 'GET', '/api/nothing');
  });

  it('stays deleted where the late try lands before its ciphertext is removed', async () => {
    const { id, land } = await madeWithLateTry();
    const deletion = await start(client, 'DELETE', `${collection}/${id}`);

    await land();
    await deletion.settle();

    expect(deletion.status).toBe(200);
    await assertGone(id);
    expect((await actionsOn(id)).length).toBe(2);
    await assertDrained(id);
  });

  it('stays deleted, and its ciphertext in the outbox, where KV refuses the removal meanwhile', async () => {
    const { id, land } = await madeWithLateTry();
    expect((await remove(id, unwilling)).status).toBe(200);

    await land();

    await assertGone(id);
    expect(await rows('credential_purges')).toMatchObject([{ state: 'owed' }]);
    await assertDrained(id);
  });

  it('stays deleted where the late try lands once all is drained', async () => {
    const { id, land } = await madeWithLateTry();
    expect((await remove(id)).status).toBe(200);
    await drainEverything();

    await land();

    await assertDrained(id);
  });

  it('stays deleted where it is deleted between a commit whose answer is lost and the ordinary retry', async () => {
    let batches = 0;
    let id = '';
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'DB.batch') batches += 1;
      const result = await carryOut();
      if (name !== 'DB.batch' || batches !== DECIDING) return result;
      id = String((await rows(`${table}s`)).at(-1)?.[`${table}_id`]);
      expect((await remove(id, unwilling)).status).toBe(200);
      throw new Error(LOST);
    });

    const { status, body } = await createThrough(bindings);

    expect(status).toBe(201);
    expect(idOf(body)).toBe(id);
    await assertGone(id);
    await assertDrained(id);
  });
});
