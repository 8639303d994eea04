/** Phone numbers as operators find and release them, whatever organization has them. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  emptyStorage,
  everythingKept,
  everythingStored,
  newClient,
  newOperator,
  page,
  rowOf,
  rows,
  unusedNumber,
} from '../fixtures.ts';
import type { Operator } from '../fixtures.ts';
import { importSip } from '../mutations.ts';
import { customer, setStatus } from '../operations.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const FIND = '/operator/phone-numbers';
const RELEASE = '/operator/phone-numbers/release';

let operator: Operator;
let client: Awaited<ReturnType<typeof customer>>;
let phone_number: string;
let phone_number_id: string;

beforeEach(async () => {
  await emptyStorage();
  operator = await newOperator();
  client = await customer();
  ({ phone_number } = client);
  phone_number_id = String((await rowOf('phone_numbers', phone_number))['phone_number_id']);
  await call(operator, 'GET', '/operator/nothing');
});

const find = (number: string) => call(operator, 'GET', `${FIND}?phone_number=${encodeURIComponent(number)}`);
const release = (body: unknown = { phone_number }, bindings = env) =>
  call(operator, 'POST', RELEASE, { body, bindings });
const asItsClient = async () => Object(await call(client, 'GET', `/api/phone-numbers/${phone_number_id}`)).body.data;

describe('a phone number that some organization has', () => {
  it('is found by operators as its organization sees it', async () => {
    const { status, body } = await find(phone_number);

    expect(status).toBe(200);
    expect(body).toEqual({ success: true, data: await asItsClient() });
    expect(body).toMatchObject({ data: { phone_number, client_id: client.organization_id } });
  });

  it('is told without what leads to credentials', async () => {
    const sip = unusedNumber();
    await importSip(client, sip);

    const { text, status } = await find(sip);

    expect(status).toBe(200);
    expect(text).not.toMatch(/plaintext|data_key|kek_id|credentials_version|4711/);
  });

  it('is one row to read, among all numbers', async () => {
    let rowsRead = 0;
    const bindings = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if (Array.isArray(result)) for (const { meta } of result) rowsRead += meta.rows_read;
      return result;
    });
    for (const _ of [1, 2, 3]) await customer();

    await call(operator, 'GET', `${FIND}?phone_number=${encodeURIComponent(phone_number)}`, { bindings });

    expect(rowsRead).toBeLessThanOrEqual(2);
  });
});

describe('a release that names the organization', () => {
  const ofClient = () => ({ phone_number, organization_id: client.organization_id });

  it('takes the number from it', async () => {
    expect(await release(ofClient())).toMatchObject({
      status: 200,
      body: { data: { phone_number, client_id: client.organization_id } },
    });

    expect(await find(phone_number)).toMatchObject({ status: 404 });
  });

  it('leaves the number to whoever got it since, however often it is repeated', async () => {
    await release(ofClient());
    const heir = await newClient();
    await importSip(heir, phone_number);
    const before = await everythingKept();

    expect(await release(ofClient())).toMatchObject({ status: 404, body: { code: 'phone_number_not_held' } });

    expect(await everythingKept()).toEqual(before);
  });
});

const faulty: [string, string][] = [
  ['4155550100', 'phone_number'],
  ['+1 415 555 0100', 'phone_number'],
  ['', 'phone_number'],
  ['+0123456789', 'phone_number'],
];

describe('a phone number that nobody has', () => {
  it('is a 404 to find and to release', async () => {
    const before = await everythingKept();
    const number = unusedNumber();

    for (const answer of [await find(number), await release({ phone_number: number })]) {
      expect(answer).toMatchObject({
        status: 404,
        body: {
          code: 'phone_number_not_held',
          detail: 'No organization has this phone number, or not the one that organization_id names.',
        },
      });
    }

    expect(await everythingKept()).toEqual(before);
  });

  it.each(faulty)('is a 422 if it is none: %j', async (number, path) => {
    const before = await everythingKept();

    for (const answer of [await find(number), await release({ phone_number: number })]) {
      expect(answer).toMatchObject({
        status: 422,
        body: { errors: [{ path, message: expect.stringContaining('E.164') }] },
      });
    }

    expect(await everythingKept()).toEqual(before);
  });

  it('is a 422 if none is named, two are, or more than can be', async () => {
    const encoded = encodeURIComponent(phone_number);
    const before = await everythingKept();

    const answers = [
      await call(operator, 'GET', FIND),
      await call(operator, 'GET', `${FIND}?phone_number=${encoded}&phone_number=${encoded}`),
      await call(operator, 'GET', `${FIND}?phone_number=${encoded}&organization_id=org_a`),
      await release({}),
      await release({ phone_number: null }),
      await release({ phone_number: [phone_number] }),
      await release({ phone_number, integration_id: 'intg_000000000000' }),
    ];

    expect(answers.map(({ status, body }) => [status, Object(body).errors[0].message])).toEqual([
      [422, 'is required'],
      [422, 'must be given once'],
      [422, '`organization_id` is not a known parameter'],
      [422, 'is required'],
      [422, 'must not be null'],
      [422, 'must be a string'],
      [422, '`integration_id` is not a known field'],
    ]);
    expect(await everythingKept()).toEqual(before);
  });
});

describe('a phone number that an operator releases', () => {
  it('is answered as it was just before, and is gone', async () => {
    const data = await asItsClient();

    const { status, body } = await release();

    expect(status).toBe(200);
    expect(body).toEqual({ success: true, message: 'Phone number released successfully', data });
    expect(await rows('phone_numbers')).toEqual([]);
    expect((await call(client, 'GET', `/api/phone-numbers/${phone_number_id}`)).status).toBe(404);
  });

  it('can be another organization’s at once', async () => {
    const other = await newClient();
    await release();

    await importSip(other, phone_number);

    expect((await find(phone_number)).body).toMatchObject({ data: { client_id: other.organization_id } });
  });

  it('may be assigned to an agent', async () => {
    await call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, {
      body: { assigned_agent_id: 'agent_a1b2c3d4e5f6' },
    });

    expect(await release()).toMatchObject({ status: 200, body: { data: { assigned_agent_id: 'agent_a1b2c3d4e5f6' } } });
    expect(await rows('phone_numbers')).toEqual([]);
  });

  it('takes its SIP credentials with it', async () => {
    const sip = unusedNumber();
    await importSip(client, sip);
    const ciphertexts = () => everythingStored().then(({ CREDENTIALS }) => Object.keys(CREDENTIALS));
    const kept = await ciphertexts();

    await release({ phone_number: sip });

    const owed = (await rows('credential_purges')).map(({ kv_key }) => String(kv_key));
    const left = await ciphertexts();
    expect(kept).toHaveLength(2);
    expect(kept.filter((name) => !left.includes(name) || owed.includes(name))).toHaveLength(1);
    expect(await everythingStored().then(({ d1 }) => d1['integrations'])).toHaveLength(1);
  });

  it('is on record in its organization’s trail, with the operator key', async () => {
    const data = await asItsClient();
    const { headers } = await release();

    const events = await page(client, `/api/audit-events?target_id=${phone_number_id}`);

    expect(events.data.at(-1)).toMatchObject({
      action: 'phone_number.released',
      actor: { type: 'operator', id: operator.operator_key_id, name: 'Signup service' },
      request_id: headers.get('X-Request-Id'),
      reason: null,
      state: data,
    });
  });

  it.each(['suspended', 'active'] as const)('may be of an organization that is %s', async (status) => {
    await setStatus(client.organization_id, status);

    expect((await release()).status).toBe(200);
  });

  it('is released once: the second time it is a 404', async () => {
    await release();
    const before = await everythingKept();

    expect(await release()).toMatchObject({ status: 404, body: { code: 'phone_number_not_held' } });

    expect(await everythingKept()).toEqual(before);
  });

  it('is on record once where an answer is lost', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 2 });

    expect(await release(undefined, bindings)).toMatchObject({ status: 200, body: { data: { phone_number } } });

    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.released']);
  });

  it('is not taken from who has imported it since, however late a try lands', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings(async (name, carryOut, { statements }) => {
      if (name !== 'DB.batch' || !statements.some(({ sql }) => sql.startsWith('insert'))) return carryOut();
      late = carryOut;
      throw new Error(LOST);
    });
    await release(undefined, bindings);
    await release();
    const other = await newClient();
    await importSip(other, phone_number);
    const before = await everythingKept();

    await late?.();

    expect(late).toBeDefined();
    expect(await everythingKept()).toEqual(before);
  });

  it('is not taken from who has got it between the look and the act: nothing is done, and that is said', async () => {
    const other = await newClient();
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'DB.batch' && (batches += 1) === 2) {
        await release();
        await importSip(other, phone_number);
      }
      return carryOut();
    });

    const answer = await release(undefined, bindings);

    expect(answer).toMatchObject({ status: 503, body: { outcome: 'not_done' } });
    expect((await find(phone_number)).body).toMatchObject({ data: { client_id: other.organization_id } });
  });

  it('is released once by a repeat under its Idempotency-Key, also if another has it by then', async () => {
    const headers = { 'Idempotency-Key': 'once' };
    const first = await call(operator, 'POST', RELEASE, { body: { phone_number }, headers });
    const other = await newClient();
    await importSip(other, phone_number);

    const second = await call(operator, 'POST', RELEASE, { body: { phone_number }, headers });

    expect(second.headers.get('Idempotency-Replayed')).toBe('true');
    expect(second.text).toBe(first.text);
    expect((await find(phone_number)).body).toMatchObject({ data: { client_id: other.organization_id } });
  });
});
