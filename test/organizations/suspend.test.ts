/** Suspension and resumption by an operator key. (test/operator/organizations/suspend.test.ts has the commands.) */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  emptyStorage,
  everythingKept,
  newOperator,
  page,
  resources,
  rows,
  twilio,
} from '../fixtures.ts';
import type { Operator } from '../fixtures.ts';
import { customer, setStatus } from '../operations.ts';

const LOST = 'D1_ERROR: Network connection lost.';

let operator: Operator;
let client: Awaited<ReturnType<typeof customer>>;

beforeEach(async () => {
  await emptyStorage();
  operator = await newOperator();
  client = await customer();
  await call(operator, 'GET', '/operator/nothing');
});

afterEach(() => vi.useRealTimers());

const secondsLater = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });

const post = (verb: 'suspend' | 'resume', bindings = env) =>
  call(operator, 'POST', `${client.path}/${verb}`, { bindings });

const statusNow = async () => (await rows('organizations'))[0]?.['status'];
const reads = async () => (await call(client, 'GET', '/api/integrations')).status;
const writes = async () =>
  (await call(client, 'POST', '/api/integrations?verify=false', { body: { name: 'x', credentials: twilio } })).status;

/** Bindings whose batches that act are not answered; the last of them can be carried out later. */
function lateBindings() {
  const late: (() => Promise<unknown>)[] = [];
  const bindings = interceptedBindings(async (name, carryOut, { statements }) => {
    if (name !== 'DB.batch' || !statements.some(({ sql }) => sql.startsWith('insert'))) return carryOut();
    late.push(carryOut);
    throw new Error(LOST);
  });
  return { bindings, late };
}

describe('an organization that an operator suspends', () => {
  it('is answered as it is from then on, with what it has', async () => {
    const { status, body } = await post('suspend');

    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      message: 'Organization suspended successfully',
      data: {
        organization_id: client.organization_id,
        name: null,
        tier: 'enterprise',
        status: 'suspended',
        metadata: {},
        created_at: expect.any(String),
        counts: { integrations: 1, phone_numbers: 1, api_keys: 1, refused_verifications: 0 },
      },
    });
  });

  it('changes nothing from then on, reads for 60 s at most, and keeps all that it has', async () => {
    secondsLater(0);
    expect(await reads()).toBe(200);
    const before = await resources();

    await post('suspend');

    expect(await writes()).toBe(401);
    secondsLater(61);
    expect(await reads()).toBe(401);
    expect(await resources()).toEqual(before);
  });

  it('is read and written again once it is resumed', async () => {
    await post('suspend');

    const { status, body } = await post('resume');

    expect(status).toBe(200);
    expect(body).toMatchObject({
      message: 'Organization resumed successfully',
      data: { status: 'active', counts: { integrations: 1 } },
    });
    expect([await reads(), await writes()]).toEqual([200, 201]);
  });

  it('sees in its own trail which operator key did that', async () => {
    await post('suspend');
    await post('resume');

    const { data } = await page(client, `/api/audit-events?target_id=${client.organization_id}`);

    const actor = { type: 'operator', id: operator.operator_key_id, name: 'Signup service' };
    expect(data).toMatchObject([
      { action: 'organization.suspended', actor, actor_key_id: null, state: { status: 'active' } },
      { action: 'organization.resumed', actor, actor_key_id: null, state: { status: 'suspended' } },
    ]);
  });

  it('is none of the others', async () => {
    const other = await customer();

    await post('suspend');

    await createIntegration(other, undefined, '?verify=false');
    expect(await actionsOn(other.organization_id)).toEqual([]);
  });
});

describe('an organization that is as it shall be already', () => {
  it.each([
    ['suspend', 'suspended'],
    ['resume', 'active'],
  ] as const)('is a 200 to %s and stays %s, with no further event', async (verb, status) => {
    await setStatus(client.organization_id, status);
    const before = await everythingKept();

    const answer = await post(verb);

    expect(answer).toMatchObject({ status: 200, body: { data: { status } } });
    expect(await everythingKept()).toEqual(before);
  });
});

describe.each(['suspend', 'resume'] as const)('%s', (verb) => {
  it('is a 404 of no organization, and nothing is made', async () => {
    const before = await everythingKept();

    const { status, body } = await call(operator, 'POST', `/operator/organizations/org_nobody/${verb}`);

    expect([status, Object(body).code]).toEqual([404, 'organization_not_found']);
    expect(await everythingKept()).toEqual(before);
  });

  it.each([0, 1])('is a 409 of an organization that is offboarded (is_offboarding %i)', async (isOffboarding) => {
    await setStatus(client.organization_id, 'offboarded', isOffboarding);
    const before = await everythingKept();

    expect(await post(verb)).toMatchObject({ status: 409, body: { code: 'organization_offboarded' } });

    expect(await everythingKept()).toEqual(before);
  });

  it('is a 422 by an id of another form', async () => {
    expect(await call(operator, 'POST', `/operator/organizations/acme/${verb}`)).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'organization_id' }] },
    });
  });

  it.each(['GET', 'PUT', 'DELETE'])('is not done by %s', async (method) => {
    const before = await everythingKept();

    const { status, headers } = await call(operator, method, `${client.path}/${verb}`);

    expect([status, headers.get('Allow')]).toEqual([405, 'POST']);
    expect(await everythingKept()).toEqual(before);
  });
});

describe('a suspension whose answer is lost', () => {
  it('is tried again, and is on record once', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 2 });

    expect(await post('suspend', bindings)).toMatchObject({ status: 200, body: { data: { status: 'suspended' } } });

    expect(await actionsOn(client.organization_id)).toEqual(['organization.suspended']);
  });

  it('says that its outcome is unknown where D1 stays away', async () => {
    const { bindings, late } = lateBindings();

    expect(await post('suspend', bindings)).toMatchObject({ status: 503, body: { outcome: 'unknown' } });

    expect(late.length).toBeGreaterThan(0);
    expect(await statusNow()).toBe('active');
  });

  it('is told again to its repeat as it was, though the organization was resumed since', async () => {
    const headers = { 'Idempotency-Key': crypto.randomUUID() };
    const first = await call(operator, 'POST', `${client.path}/suspend`, { headers });
    await post('resume');
    const before = await everythingKept();

    const again = await call(operator, 'POST', `${client.path}/suspend`, { headers });

    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
    expect(again.body).toEqual(first.body);
    expect(await everythingKept()).toEqual(before);
  });

  it('does not undo what was done since, however late it lands', async () => {
    const { bindings, late } = lateBindings();
    await post('suspend', bindings);
    await post('suspend');
    await post('resume');
    const before = await everythingKept();

    for (const land of late) await land();

    expect(late.length).toBeGreaterThan(0);
    expect(await everythingKept()).toEqual(before);
  });

  it('does not undo an offboarding, however late it lands', async () => {
    await post('suspend');
    const { bindings, late } = lateBindings();
    await post('resume', bindings);
    const { organization_id } = client;
    await call(operator, 'POST', `${client.path}/offboard`, { body: { organization_id } });
    const before = await everythingKept();

    for (const land of late) await land();

    expect(late.length).toBeGreaterThan(0);
    expect(await everythingKept()).toEqual(before);
  });

  it('lands late as the operator asked, if nothing was done since and its key still may', async () => {
    const { bindings, late } = lateBindings();
    await post('suspend', bindings);

    await late.at(-1)?.();

    expect(await statusNow()).toBe('suspended');
    expect(await actionsOn(client.organization_id)).toEqual(['organization.suspended']);
  });

  it('lands late for nothing once its key was revoked', async () => {
    const { bindings, late } = lateBindings();
    await post('suspend', bindings);
    await env.DB.prepare(`UPDATE operator_keys SET status = 'revoked'`).run();
    const before = await everythingKept();

    for (const land of late) await land();

    expect(late.length).toBeGreaterThan(0);
    expect(await everythingKept()).toEqual(before);
  });
});

describe('suspensions and resumptions at the same time', () => {
  it('leave the organization as the last of them did, with an event for each', async () => {
    const answers = await Promise.all(
      (['suspend', 'resume', 'suspend', 'resume', 'suspend'] as const).map((verb) => post(verb)),
    );

    for (const { status, body } of answers) {
      expect([200, 503]).toContain(status);
      expect(status === 200 || Object(body).outcome === 'not_done').toBe(true);
    }
    const actions = await actionsOn(client.organization_id);
    const expected = actions.map((_, index) => (index % 2 === 0 ? 'organization.suspended' : 'organization.resumed'));
    expect(actions).toEqual(expected);
    expect(await statusNow()).toBe(actions.length % 2 === 1 ? 'suspended' : 'active');
  });
});
