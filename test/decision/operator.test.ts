/** What operators do, repeated under an Idempotency-Key. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { app } from '../../src/worker/app.ts';
import { beginsRoute } from '../../src/worker/http/route.ts';
import worker from '../../src/worker/index.ts';
import { interceptedBindings } from '../bindings.ts';
import { actionsOn, call, emptyStorage, everythingKept, everythingStored, newOperator, rows } from '../fixtures.ts';
import type { Operator } from '../fixtures.ts';
import { operations, suspendedCustomer, unusedId } from '../operations.ts';
import type { Operation } from '../operations.ts';

const LOST = 'D1_ERROR: Network connection lost.';

let operator: Operator;

beforeEach(async () => {
  await emptyStorage();
  operator = await newOperator();
});

let keys = 0;
const newKey = () => `repeat-${(keys += 1)}`;

const send = ({ method, path, body }: Operation, key: string, by = operator, bindings = env) =>
  call(by, method, path, { body, headers: { 'Idempotency-Key': key }, bindings });

const runCron = () => worker.scheduled(createScheduledController(), env);

const withoutRequestId = (text: string) => text.replace(/,"request_id":"[^"]*"/, '');

/** Everything in D1, but who was last seen when, and all ciphertext. */
async function everything() {
  const { d1, CREDENTIALS } = await everythingKept();
  const operator_keys = (await rows('operator_keys')).map((row) => ({ ...row, last_used_at: null }));
  return { d1: { ...d1, operator_keys }, CREDENTIALS };
}

const remembered = async (key: string) =>
  (await rows('operator_idempotency_keys')).filter((row) => row['idempotency_key'] === key);

const acting = operations.filter(({ status }) => status < 400);
const refused = operations.filter(({ status }) => status >= 400);

describe('the operations that are repeated', () => {
  it('are those of every route of operators that mutates', async () => {
    const tried = await Promise.all(acting.map(({ prepare }) => prepare(operator)));
    const mutating = app.routes.flatMap(({ method, path, handler }) =>
      beginsRoute(handler) && handler.route.by === 'operator' && handler.route.kind === 'mutates'
        ? [`${method} ${path.replaceAll(/:\w+/g, '[^/]+')}`]
        : [],
    );

    const untried = mutating.filter(
      (pattern) => !tried.some(({ method, path }) => new RegExp(`^${pattern}$`).test(`${method} ${path}`)),
    );

    expect(mutating.length).toBeGreaterThan(8);
    expect(untried).toEqual([]);
  });
});

/** The answer to a repeat: what is the same, without what only the first one has. */
const saidAgain = (text: string) =>
  withoutRequestId(text)
    .replace(/"raw_key":"[^"]*",/, '')
    .replace(/ed successfully"/, (end) =>
      text.includes('"raw_key"')
        ? 'ed successfully; the raw key was shown only in the first response: mint another"'
        : end,
    );

describe.each(acting)('$name', ({ status, prepare }) => {
  it('answers the same again, marked as a replay and without a raw key, and happens once', async () => {
    const operation = await prepare(operator);
    const key = newKey();

    const first = await send(operation, key);
    // An offboarding goes on after its answer; a repeat tells what is left.
    const counted = /"counts":\{[^}]*\}/;
    const before = await everything();
    const second = await send(operation, key);

    expect([first.status, second.status]).toEqual([status, status]);
    expect(first.headers.get('Idempotency-Replayed')).toBeNull();
    expect(second.headers.get('Idempotency-Replayed')).toBe('true');
    expect(second.text).not.toContain('raw_key"');
    const ofOffboarding = (text: string) => text.replace('"offboarding"', '"offboarded"').replace(counted, '');
    const compared = operation.path.endsWith('/offboard') ? ofOffboarding : (text: string) => text;
    expect(compared(withoutRequestId(second.text))).toBe(compared(saidAgain(first.text)));
    expect(await everything()).toEqual(before);
  });

  it('happens once where it is sent five times at once, and shows a raw key at most once', async () => {
    const operation = await prepare(operator);
    const key = newKey();

    const answers = await Promise.all(Array.from({ length: 5 }, () => send(operation, key)));

    expect(answers.map((answer) => answer.status)).toEqual(answers.map(() => status));
    expect(answers.filter(({ headers }) => headers.has('Idempotency-Replayed'))).toHaveLength(4);
    const shown = answers.filter(({ text }) => text.includes('"raw_key"'));
    expect(shown.length).toBeLessThanOrEqual(1);
    expect(shown.map(({ headers }) => headers.get('Idempotency-Replayed'))).toEqual(shown.map(() => null));
    expect(await remembered(key)).toHaveLength(1);
    const before = await everything();
    await send(operation, key);
    expect(await everything()).toEqual(before);
  });

  it('is answered by a repeat after a commit whose answer was lost every time, and is on record once', async () => {
    const operation = await prepare(operator);
    await call(operator, 'GET', '/operator/nothing');
    const key = newKey();
    let deciding = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name !== 'DB.batch' || (await remembered(key)).length === 0) return result;
      deciding += 1;
      throw new Error(LOST);
    });

    const lost = await send(operation, key, operator, bindings);
    const stored = (await everything()).d1;
    const repeated = await send(operation, key);

    expect(deciding).toBe(3);
    expect(lost).toMatchObject({ status: 503, body: { outcome: 'unknown' } });
    expect(repeated.status).toBe(status);
    expect(repeated.headers.get('Idempotency-Replayed')).toBe('true');
    expect(repeated.text).not.toContain('raw_key"');
    // An offboarding goes on after its answer.
    const told = (tables: Record<string, unknown>) =>
      operation.path.endsWith('/offboard') ? [] : [tables['audit_events'], tables['organizations'], tables['api_keys']];
    expect(told((await everything()).d1)).toEqual(told(stored));
  });

  it('stores no raw key, neither what was answered nor anything long of it', async () => {
    const operation = await prepare(operator);
    const key = newKey();

    const answers = [await send(operation, key), await send(operation, key)];

    const raw = answers.flatMap(({ text }) => /"raw_key":"([^"]+)"/.exec(text)?.slice(1) ?? []);
    const stored = JSON.stringify(await everythingStored());
    for (const raw_key of [...raw, operator.raw_key]) {
      expect(stored).not.toContain(raw_key);
      expect(stored).not.toContain(raw_key.slice(-40));
      expect(stored).not.toContain(raw_key.slice(0, -30));
    }
  });

  it.each([
    ['was revoked', `status = 'revoked'`, 401, 'invalid_operator_key'],
    ['has expired', 'expires_at = unixepoch() - 60', 401, 'invalid_operator_key'],
    ['lost its permissions', `permissions = '[]'`, 403, 'operator_permission_denied'],
  ])('is not replayed to a key that %s', async (_, assignment, refusal, code) => {
    const operation = await prepare(operator);
    const key = newKey();
    await send(operation, key);
    await env.DB.prepare(`UPDATE operator_keys SET ${assignment}`).run();
    const before = await everything();

    const { status: now, body, headers, text } = await send(operation, key);

    expect(now).toBe(refusal);
    expect(body).toMatchObject({ code });
    expect(headers.get('Idempotency-Replayed')).toBeNull();
    expect(text).not.toContain('"data"');
    expect(await everything()).toEqual(before);
  });
});

const withOtherBodies = operations.flatMap(({ name, prepare, otherBody }) =>
  otherBody ? [{ name, prepare, otherBody }] : [],
);

describe.each(withOtherBodies)('$name', ({ prepare, otherBody }) => {
  it('with another body under the same key is a 422, and nothing happens', async () => {
    const operation = await prepare(operator);
    const key = newKey();
    await send(operation, key);
    const before = await everything();

    const other = await send({ ...operation, body: otherBody }, key);

    expect(other).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
    expect(other.headers.get('Idempotency-Replayed')).toBeNull();
    expect(await everything()).toEqual(before);
  });
});

describe.each(refused)('$name, which is refused', ({ status, prepare }) => {
  it('changes nothing and is not remembered: its repeat is judged anew', async () => {
    const operation = await prepare(operator);
    const key = newKey();
    const before = await everything();

    const answers = [await send(operation, key), await send(operation, key)];

    expect(answers.map((answer) => answer.status)).toEqual([status, status]);
    expect(answers.map(({ headers }) => headers.get('Idempotency-Replayed'))).toEqual([null, null]);
    expect(await everything()).toEqual(before);
  });
});

describe('an Idempotency-Key', () => {
  const creation = (organization_id: string): Operation => ({
    method: 'POST',
    path: '/operator/organizations',
    body: { organization_id, name: 'Acme' },
  });

  it('counts for one operator key', async () => {
    const other = await newOperator();
    const key = newKey();
    const { organization_id, path } = await suspendedCustomer();
    const resumption: Operation = { method: 'POST', path: `${path}/resume` };

    await send(resumption, key);
    const theirs = await send(resumption, key, other);

    expect(theirs.status).toBe(200);
    expect(theirs.headers.get('Idempotency-Replayed')).toBeNull();
    expect(await actionsOn(organization_id)).toEqual(['organization.resumed']);
  });

  it('counts for one path: the same key resumes two organizations', async () => {
    const key = newKey();
    const both = [await suspendedCustomer(), await suspendedCustomer()];

    for (const { path } of both) {
      const { status, headers } = await send({ method: 'POST', path: `${path}/resume` }, key);
      expect([status, headers.get('Idempotency-Replayed')]).toEqual([200, null]);
    }

    for (const { organization_id } of both) {
      expect(await actionsOn(organization_id)).toEqual(['organization.resumed']);
    }
  });

  it('counts for all organizations: one that made another organization makes no second one', async () => {
    const [one, other] = [unusedId(), unusedId()];
    const key = newKey();
    await send(creation(one), key);
    const before = await everything();

    const answer = await send(creation(other), key);

    expect(answer).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
    expect(await everything()).toEqual(before);
  });

  it('makes one organization of several requests that leave the id to us', async () => {
    const key = newKey();
    const body = { name: 'Acme', first_key: { name: 'First', role: 'admin' } };

    const answers = await Promise.all(
      [1, 2, 3].map(() => send({ method: 'POST', path: '/operator/organizations', body }, key)),
    );

    expect(new Set(answers.map(({ text }) => /"organization_id":"([^"]+)"/.exec(text)?.[1])).size).toBe(1);
    expect(await rows('organizations')).toHaveLength(1);
    expect(await rows('api_keys')).toHaveLength(1);
  });

  it('repeats a creation also where the organization has changed since', async () => {
    const organization_id = unusedId();
    const key = newKey();
    const first = await send(creation(organization_id), key);
    await call(operator, 'PUT', `/operator/organizations/${organization_id}`, { body: { name: 'Renamed' } });
    await call(operator, 'POST', `/operator/organizations/${organization_id}/suspend`);

    const second = await send(creation(organization_id), key);

    expect(second.status).toBe(201);
    expect(second.text).toBe(first.text);
  });

  it('is the same request where its members come in another order', async () => {
    const organization_id = unusedId();
    const key = newKey();
    await send(
      { ...creation(organization_id), body: { organization_id, name: 'A', metadata: { a: '1', b: '2' } } },
      key,
    );

    const again = await send(
      { ...creation(organization_id), body: { metadata: { b: '2', a: '1' }, name: 'A', organization_id } },
      key,
    );

    expect(again.status).toBe(201);
    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
  });

  it('is free again after a refusal: what stood in the way is gone', async () => {
    const { organization_id, path } = await suspendedCustomer();
    await env.DB.prepare(`UPDATE organizations SET status = 'active'`).run();
    const offboarding: Operation = { method: 'POST', path: `${path}/offboard`, body: { organization_id } };
    const key = newKey();

    const first = await send(offboarding, key);
    await send({ method: 'POST', path: `${path}/suspend` }, newKey());
    const second = await send(offboarding, key);

    expect([first.status, second.status]).toEqual([409, 202]);
    expect(second.headers.get('Idempotency-Replayed')).toBeNull();
  });

  it.each(['', 'ü', 'x'.repeat(256)])('that is not valid is a 422, and nothing happens: %j', async (key) => {
    const before = await everything();

    const { status, body } = await send(creation(unusedId()), key);

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path: 'Idempotency-Key' }] });
    expect(await everything()).toEqual(before);
  });

  it('is remembered for 24 hours, and no longer', async () => {
    const organization_id = unusedId();
    const key = newKey();
    await send(creation(organization_id), key);

    await env.DB.prepare('UPDATE operator_idempotency_keys SET created_at = unixepoch() - 86400 + 30').run();
    await runCron();
    expect(await remembered(key)).toHaveLength(1);
    await env.DB.prepare('UPDATE operator_idempotency_keys SET created_at = unixepoch() - 86400').run();
    await runCron();
    expect(await remembered(key)).toEqual([]);

    expect(await send(creation(organization_id), key)).toMatchObject({
      status: 409,
      body: { code: 'organization_exists', organization_id },
    });
  });
});
