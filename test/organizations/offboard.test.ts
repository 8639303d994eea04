/** Offboarding by an operator key, and by the cron. (test/operator/organizations/offboard.test.ts has the command.) */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import worker from '../../src/worker/index.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  emptyStorage,
  everythingKept,
  everythingStored,
  fillKeys,
  fillNumbers,
  newOperator,
  page,
  rowOf,
  rows,
  start,
} from '../fixtures.ts';
import type { Operator } from '../fixtures.ts';
import { setStatus, suspendedCustomer } from '../operations.ts';

const LOST = 'D1_ERROR: Network connection lost.';

let operator: Operator;
let client: Awaited<ReturnType<typeof suspendedCustomer>>;

beforeEach(async () => {
  await emptyStorage();
  operator = await newOperator();
  client = await suspendedCustomer();
  await call(operator, 'GET', '/operator/nothing');
});

const offboard = (bindings = env, body: unknown = { organization_id: client.organization_id }) =>
  call(operator, 'POST', `${client.path}/offboard`, { body, bindings });

/** Without what runs after the answer. */
const begin = (bindings = env) =>
  start(operator, 'POST', `${client.path}/offboard`, { body: { organization_id: client.organization_id }, bindings });

const runCron = () => worker.scheduled(createScheduledController(), env);

const counted = z.object({ data: z.object({ status: z.string(), counts: z.record(z.string(), z.number()) }) });

const look = async () => counted.parse((await call(operator, 'GET', client.path)).body).data;

const integrationOf = async () => String((await rows('integrations'))[0]?.['integration_id']);

const nothing = { integrations: 0, phone_numbers: 0, api_keys: 0, refused_verifications: 0 };

/** Bindings that carry out the call itself, and nothing of what runs after its answer. */
function endedBindings() {
  let ended = false;
  const bindings = interceptedBindings((_, carryOut) => {
    if (ended) throw new Error('the invocation ended');
    return carryOut();
  });
  return { bindings, end: () => (ended = true) };
}

describe('an organization that an operator offboards', () => {
  it('is answered at once as offboarding, with what is left of it', async () => {
    const answer = await begin();

    expect(answer.status).toBe(202);
    expect(answer.body).toEqual({
      success: true,
      message: 'Offboarding has begun; status and counts tell how far it is',
      data: {
        organization_id: client.organization_id,
        name: null,
        tier: 'enterprise',
        status: 'offboarding',
        metadata: {},
        created_at: expect.any(String),
        counts: { integrations: 1, phone_numbers: 1, api_keys: 1, refused_verifications: 0 },
      },
    });
    await answer.settle();
  });

  it('has nothing left after the answer but its trail, each end of it by the operator key', async () => {
    const integration_id = await integrationOf();
    const { phone_number_id } = await rowOf('phone_numbers', client.phone_number);
    const { headers } = await offboard();

    expect(await look()).toEqual({ status: 'offboarded', counts: nothing });
    expect([await rows('integrations'), await rows('phone_numbers')]).toEqual([[], []]);
    expect(await rows('api_keys')).toMatchObject([{ status: 'revoked' }]);
    const { data } = await page(operator, `/operator/audit-events?organization_id=${client.organization_id}`);
    const ends = data.slice(0, 4).map(({ action, target_id }) => `${String(action)} ${String(target_id)}`);
    expect(ends.toSorted()).toEqual([
      `api_key.revoked ${client.key_id}`,
      `integration.deleted ${integration_id}`,
      `organization.offboarded ${client.organization_id}`,
      `phone_number.deleted ${String(phone_number_id)}`,
    ]);
    for (const event of data.slice(0, 4)) {
      expect(event).toMatchObject({
        actor: { type: 'operator', id: operator.operator_key_id, name: 'Signup service' },
        request_id: headers.get('X-Request-Id'),
      });
    }
  });

  it('has no ciphertext once the cron had its turn', async () => {
    expect(Object.keys((await everythingStored()).CREDENTIALS)).toHaveLength(1);
    await offboard();
    await env.DB.prepare('UPDATE credential_purges SET due_at = 0')
      .run()
      .catch(() => {});

    await runCron();

    expect((await everythingStored()).CREDENTIALS).toEqual({});
  });

  it('changes no other organization', async () => {
    const other = await suspendedCustomer();
    const stored = async () => [
      await rowOf('phone_numbers', other.phone_number),
      await rowOf('api_keys', other.key_id),
      (await rows('organizations')).find((row) => row['organization_id'] === other.organization_id),
    ];
    const before = await stored();

    await offboard();
    await runCron();

    expect(await stored()).toEqual(before);
    expect(await actionsOn(other.organization_id)).toEqual([]);
  });
});

describe('an offboarding whose invocation ends at its answer', () => {
  beforeEach(async () => {
    await fillNumbers(client, await integrationOf(), 250);
    await fillKeys(client, 20);
    const { bindings, end } = endedBindings();
    const answer = await begin(bindings);
    end();
    await answer.settle();
  });

  const left = { integrations: 1, phone_numbers: 251, api_keys: 21, refused_verifications: 0 };

  it('shows what is left, and a GET only reads', async () => {
    expect(await look()).toEqual({ status: 'offboarding', counts: left });
    const before = await everythingKept();

    await look();
    await page(operator, '/operator/organizations?status=offboarding');
    await page(operator, `/operator/audit-events?organization_id=${client.organization_id}`);

    expect(await everythingKept()).toEqual(before);
    expect(await look()).toEqual({ status: 'offboarding', counts: left });
  });

  it('is ended by the cron, in the name of who began it', async () => {
    await runCron();

    expect(await look()).toEqual({ status: 'offboarded', counts: nothing });
    const events = (await rows('audit_events')).filter(({ action }) => action === 'phone_number.deleted');
    expect(events).toHaveLength(251);
    expect(new Set(events.map(({ actor_type, actor_id }) => `${String(actor_type)} ${String(actor_id)}`))).toEqual(
      new Set([`operator ${operator.operator_key_id}`]),
    );
  });

  it('is ended by the same POST again, which is no second offboarding', async () => {
    const { status, body } = await offboard();

    expect(status).toBe(202);
    expect(body).toMatchObject({ data: { status: 'offboarding', counts: left } });
    expect(await look()).toEqual({ status: 'offboarded', counts: nothing });
    expect(await actionsOn(client.organization_id)).toEqual(['organization.offboarded']);
  });

  it('is ended once by the cron and several POSTs at the same time: each row is on record once', async () => {
    await Promise.all([runCron(), offboard(), offboard(), runCron()]);

    expect(await look()).toEqual({ status: 'offboarded', counts: nothing });
    const ended = (await rows('audit_events'))
      .filter(({ action }) => /deleted|revoked/.test(String(action)))
      .map(({ target_id }) => String(target_id));
    expect(new Set(ended).size).toBe(ended.length);
    expect(ended.filter((id) => !id.startsWith('apikey_'))).toHaveLength(252);
  });

  it('lets nothing new appear meanwhile', async () => {
    const before = await everythingKept();

    const attempts = [
      await call(operator, 'POST', `${client.path}/api-keys`, { body: { name: 'Late', role: 'admin' } }),
      await call(operator, 'POST', `${client.path}/resume`),
      await call(operator, 'PUT', client.path, { body: { tier: 'pro' } }),
    ];

    expect(attempts.map(({ status, body }) => [status, Object(body).code])).toEqual(
      attempts.map(() => [409, 'organization_offboarded']),
    );
    expect(await everythingKept()).toEqual(before);
  });
});

describe('an offboarding that was ended', () => {
  it('is a 202 to the same POST again, and stays as it is', async () => {
    await offboard();
    await runCron();
    const before = await everythingKept();

    const { status, body } = await offboard();
    await runCron();

    expect(status).toBe(202);
    expect(body).toMatchObject({ data: { status: 'offboarded', counts: nothing } });
    expect(await everythingKept()).toEqual(before);
  });
});

describe('an offboarding that cannot be', () => {
  it('is a 409 of an organization that is active, which says what to do first', async () => {
    await setStatus(client.organization_id, 'active');
    const before = await everythingKept();

    expect(await offboard()).toMatchObject({
      status: 409,
      body: {
        code: 'organization_not_suspended',
        detail: 'Only a suspended organization can be offboarded. Suspend it first.',
      },
    });

    expect(await everythingKept()).toEqual(before);
  });

  it('is a 404 of no organization', async () => {
    const before = await everythingKept();

    const body = { organization_id: 'org_nobody' };
    expect(await call(operator, 'POST', '/operator/organizations/org_nobody/offboard', { body })).toMatchObject({
      status: 404,
      body: { code: 'organization_not_found' },
    });

    expect(await everythingKept()).toEqual(before);
  });

  it.each<[string, (id: string) => unknown, string, string]>([
    ['another id', () => ({ organization_id: 'org_other' }), 'organization_id', 'must be the organization of the path'],
    [
      'its id in capitals',
      (id) => ({ organization_id: id.toUpperCase() }),
      'organization_id',
      'must be the organization of the path',
    ],
    ['no id', () => ({}), 'organization_id', 'is required'],
    ['null', () => ({ organization_id: null }), 'organization_id', 'must not be null'],
    ['a number', () => ({ organization_id: 1 }), 'organization_id', 'must be a string'],
    ['a list of ids', (id) => ({ organization_id: [id] }), 'organization_id', 'must be a string'],
    ['more than the id', (id) => ({ organization_id: id, force: true }), 'force', '`force` is not a known field'],
  ])('is a 422 with %s in the body, and everything stays', async (_, body, path, message) => {
    const before = await everythingKept();

    expect(await offboard(env, body(client.organization_id))).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path, message }] },
    });

    expect(await everythingKept()).toEqual(before);
  });

  it('is a 415 without a body, and everything stays', async () => {
    const before = await everythingKept();

    expect(await call(operator, 'POST', `${client.path}/offboard`)).toMatchObject({ status: 415 });

    expect(await everythingKept()).toEqual(before);
  });
});

describe('an offboarding whose answer is lost', () => {
  it('is tried again, and is on record once', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    expect(await offboard(bindings)).toMatchObject({ status: 202, body: { data: { status: 'offboarding' } } });

    expect(await actionsOn(client.organization_id)).toEqual(['organization.offboarded']);
    expect(await look()).toEqual({ status: 'offboarded', counts: nothing });
  });

  it.each([
    ['resumed', ['resume']],
    ['resumed and suspended again', ['resume', 'suspend']],
  ])('does nothing where it lands after the organization was %s', async (_, verbs) => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings(async (name, carryOut, { statements }) => {
      if (name !== 'DB.batch' || !statements.some(({ sql }) => sql.startsWith('insert'))) return carryOut();
      late = carryOut;
      throw new Error(LOST);
    });
    expect(await offboard(bindings)).toMatchObject({ status: 503, body: { outcome: 'unknown' } });
    for (const verb of verbs) await call(operator, 'POST', `${client.path}/${verb}`);
    const before = await everythingKept();

    await late?.();

    expect(late).toBeDefined();
    expect(await everythingKept()).toEqual(before);
  });
});
