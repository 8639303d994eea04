/** DELETE /api/integrations/{integration_id}, as its section of the contract says it, over HTTP. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { newRawKey } from '../../src/worker/callers/raw-key.ts';
import { unixNow } from '../../src/worker/core/time.ts';
import { joinServer, newNumbers, problem } from './server.ts';
import type { Answer, Client, Key } from './server.ts';

const EXAMPLE = 'intg_a1b2c3d4e5f6';
const MISSING = 'intg_000000000000';

const server = joinServer();
let admin: Key;
/** Of the contract's example, in an organization of its own. */
let abc123: Key;
let manager: Key;
let user: Key;
/** A key that no test uses while it is alive, so that no cache has seen it. */
let unused: Key;

beforeAll(async () => {
  admin = await server.newOrganization();
  abc123 = await server.newOrganization({ organization_id: 'org_abc123' });
  manager = await server.newKey(admin.organization_id, 'agent_manager');
  user = await server.newKey(admin.organization_id, 'user');
  unused = await server.newKey(admin.organization_id, 'admin');
});

const remove = (integration_id: string, client: Client = admin, headers: Record<string, string | null> = {}) =>
  server.call(client, 'DELETE', `/api/integrations/${integration_id}`, { headers });

/** A refusal leaves the resources in D1 and the ciphertext in KV as they were. */
async function refused(request: () => Promise<Answer>): Promise<Answer> {
  const before = await server.stored();
  const answer = await request();
  expect(await server.stored()).toEqual(before);
  return answer;
}

const setKey = (key: Key, { status = 'active', role = 'agent_manager', expires_at = null }: Partial<KeyState>) =>
  server.query(
    `UPDATE api_keys SET status = ?1 ->> 'status', role = ?1 ->> 'role', expires_at = ?1 ->> 'expires_at' WHERE key_id = ?2`,
    JSON.stringify({ status, role, expires_at }),
    key.key_id,
  );

interface KeyState {
  status: 'active' | 'revoked';
  role: 'agent_manager' | 'user';
  expires_at: number | null;
}

async function writeExample({ referenced }: { referenced: boolean }): Promise<void> {
  const time = String(Date.parse('2024-01-15T10:30:00Z') / 1000);
  await server.query('DELETE FROM phone_numbers WHERE integration_id = ?', EXAMPLE);
  await server.query('DELETE FROM integrations WHERE integration_id = ?', EXAMPLE);
  await server.query(
    `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status,
       credentials_version, data_key, kek_id, created_at, updated_at)
     VALUES ('org_abc123', ?1, 'Twilio Production', 'twilio', 'telephony', 'active', 'v', 'd', 'k', ?2, ?2)`,
    EXAMPLE,
    time,
  );
  if (!referenced) return;
  await server.query(
    `INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
       supports_inbound, supports_outbound, created_at, updated_at)
     VALUES ('phon_a1b2c3d4e5f6', 'org_abc123', ?1, '+1234567890', 'twilio', 'free', 0, 0, ?2, ?2)`,
    EXAMPLE,
    time,
  );
}

/** Puts many numbers on an integration, ascending; no call of the API would be quick enough. */
async function fillNumbers(integration_id: string, count: number): Promise<string[]> {
  const numbers = newNumbers(count);
  await server.query(
    `INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
       supports_inbound, supports_outbound, created_at, updated_at)
     SELECT 'phon_' || printf('%012x', substr(value, 2)), ?1, ?2, value, 'twilio', 'free', 0, 0, 0, 0 FROM json_each(?3)`,
    admin.organization_id,
    integration_id,
    JSON.stringify(numbers),
  );
  return numbers;
}

const quoted = (numbers: string[]) => numbers.map((number) => `'${number}'`).join(', ');

describe('an integration that no phone number references', () => {
  it('is returned by its deletion exactly as it was before', async () => {
    await writeExample({ referenced: false });

    const { status, headers, text } = await remove(EXAMPLE, abc123);

    expect(status).toBe(200);
    expect(headers.get('Content-Type')).toBe('application/json');
    expect(text).toBe(
      JSON.stringify({
        success: true,
        message: 'Integration deleted successfully',
        data: {
          integration_id: 'intg_a1b2c3d4e5f6',
          client_id: 'org_abc123',
          name: 'Twilio Production',
          provider: 'twilio',
          category: 'telephony',
          status: 'active',
          created_at: '2024-01-15T10:30:00Z',
          updated_at: '2024-01-15T10:30:00Z',
        },
      }),
    );
  });

  it('is gone with its credentials: no row, no ciphertext, nothing left to purge, one event', async () => {
    const integration_id = await server.createIntegration(admin);
    const ciphertextKeys = async () => {
      const keys = Object.keys(await server.ciphertexts());
      return keys.filter((key) => key.startsWith(`v1/${admin.organization_id}/${integration_id}/`));
    };
    expect(await ciphertextKeys()).toHaveLength(1);

    expect((await remove(integration_id)).status).toBe(200);

    const integrations = await server.rows('integrations');
    expect(integrations.filter((row) => row['integration_id'] === integration_id)).toEqual([]);
    await server.purged();
    expect(await ciphertextKeys()).toEqual([]);
    const events = await server.query(
      `SELECT action FROM audit_events WHERE target_id = ? AND action LIKE 'integration.delete%'`,
      integration_id,
    );
    expect(events).toEqual([{ action: 'integration.deleted' }]);
  });

  it('is deleted for an agent_manager as for an admin', async () => {
    const integration_id = await server.createIntegration(admin);

    expect((await remove(integration_id, manager)).status).toBe(200);
  });

  it('gets 404 from a second DELETE', async () => {
    const integration_id = await server.createIntegration(admin);
    await remove(integration_id);

    expect(await refused(() => remove(integration_id))).toMatchObject(problem(404, 'integration_not_found'));
  });
});

describe('an integration that phone numbers reference', () => {
  it('is refused with exactly this body, and stays with its number', async () => {
    await writeExample({ referenced: true });

    const { status, headers, text } = await refused(() => remove(EXAMPLE, abc123));

    expect(status).toBe(409);
    expect(headers.get('Content-Type')).toBe('application/problem+json');
    expect(text).toBe(
      JSON.stringify({
        type: 'urn:patchbay:problem:integration_in_use',
        title: 'Integration is in use',
        status: 409,
        code: 'integration_in_use',
        detail: "Integration is still referenced by phone numbers: ['+1234567890']. Remove or reassign them first.",
        references: [{ phone_number_id: 'phon_a1b2c3d4e5f6', phone_number: '+1234567890' }],
        reference_count: 1,
        reference_count_exact: true,
        references_url: `/api/integrations/${EXAMPLE}/references`,
        request_id: headers.get('X-Request-Id'),
      }),
    );
  });

  it('is refused naming two numbers in ascending order, whatever the order of their import', async () => {
    const integration_id = await server.createIntegration(admin);
    const [lower = '', higher = ''] = newNumbers(2);
    const higherId = await server.importNumber(admin, integration_id, higher);
    const lowerId = await server.importNumber(admin, integration_id, lower);

    expect(await refused(() => remove(integration_id))).toMatchObject(
      problem(409, 'integration_in_use', {
        detail: `Integration is still referenced by phone numbers: ['${lower}', '${higher}']. Remove or reassign them first.`,
        references: [
          { phone_number_id: lowerId, phone_number: lower },
          { phone_number_id: higherId, phone_number: higher },
        ],
        reference_count: 2,
        reference_count_exact: true,
      }),
    );
  });

  it.each([
    { count: 100, reference_count: 100, reference_count_exact: true, more: '' },
    { count: 123, reference_count: 123, reference_count_exact: true, more: ' and 23 more' },
    { count: 1001, reference_count: 1000, reference_count_exact: false, more: ' and more than 900 more' },
  ])('is refused naming the first 100 of $count numbers', async ({ count, more, ...counted }) => {
    const integration_id = await server.createIntegration(admin);
    const named = (await fillNumbers(integration_id, count)).slice(0, 100);

    expect(await refused(() => remove(integration_id))).toMatchObject(
      problem(409, 'integration_in_use', {
        detail: `Integration is still referenced by phone numbers: [${quoted(named)}]${more}. Remove or reassign them first.`,
        references: named.map((phone_number) => ({ phone_number })),
        ...counted,
      }),
    );
  });

  it('is deleted once its last number is gone', async () => {
    const integration_id = await server.createIntegration(admin);
    await fillNumbers(integration_id, 1);
    expect((await remove(integration_id)).status).toBe(409);
    await server.query('DELETE FROM phone_numbers WHERE integration_id = ?', integration_id);

    expect((await remove(integration_id)).status).toBe(200);
  });
});

describe('an integration that is not there', () => {
  it('gets the same answer as one of another organization', async () => {
    await writeExample({ referenced: false });

    const missing = await refused(() => remove(MISSING));
    const foreign = await refused(() => remove(EXAMPLE));

    expect(missing).toMatchObject(problem(404, 'integration_not_found'));
    expect(withoutRequestId(foreign)).toEqual(withoutRequestId(missing));
  });

  it('gets the same answer as one of another organization that is in use', async () => {
    await writeExample({ referenced: true });

    const missing = await refused(() => remove(MISSING));
    const foreign = await refused(() => remove(EXAMPLE));

    expect(withoutRequestId(foreign)).toEqual(withoutRequestId(missing));
  });

  it.each([
    'intg_a1b2c3d4e5f',
    'intg_a1b2c3d4e5f6a',
    'intg_A1B2C3D4E5F6',
    'intg_g1b2c3d4e5f6',
    'phon_a1b2c3d4e5f6',
    'a1b2c3d4e5f6',
    'intg_a1b2c3d4e5f6%0A',
    "intg_'%20OR%20''='",
  ])('gets 422 where its id is malformed: %s', async (integration_id) => {
    const answer = await refused(() => remove(integration_id));

    expect(answer).toMatchObject(
      problem(422, 'validation_failed', {
        errors: [{ path: 'integration_id', message: expect.stringMatching(/./) }],
      }),
    );
    expect(answer.text).not.toMatch(/b2c3d4e5|B2C3D4E5|OR/);
  });
});

describe('a delete is refused and changes nothing for a caller who', () => {
  /** Deletable. */
  let target: string;

  beforeEach(async () => {
    target = await server.createIntegration(admin);
  });

  it.each([
    {
      who: 'has no key',
      request: () => remove(target, admin, { 'X-API-Key': null }),
      status: 401,
      code: 'missing_api_key',
    },
    {
      who: 'names no organization',
      request: () => remove(target, admin, { 'X-Organization-Id': null }),
      status: 400,
      code: 'missing_organization_id',
    },
    {
      who: 'names no organization but something else',
      request: () => remove(target, admin, { 'X-Organization-Id': 'demo' }),
      status: 400,
      code: 'invalid_organization_id',
    },
    {
      who: 'names another organization than that of the key',
      request: () => remove(EXAMPLE, admin, { 'X-Organization-Id': 'org_abc123' }),
      status: 403,
      code: 'organization_mismatch',
    },
    {
      who: 'has a key of another organization',
      request: () => remove(target, abc123, { 'X-Organization-Id': admin.organization_id }),
      status: 403,
      code: 'organization_mismatch',
    },
  ])('$who', async ({ request, status, code }) => {
    await writeExample({ referenced: false });

    expect(await refused(request)).toMatchObject(problem(status, code));
  });

  it('has the role user', async () => {
    expect(await refused(() => remove(target, user))).toMatchObject(
      problem(403, 'permission_denied', { required_permission: 'integrations:delete' }),
    );
  });

  it('has a key that is unknown, malformed, revoked or expired, with the same answer for each', async () => {
    const { organization_id } = admin;
    const unknown = newRawKey();
    const wrongChecksum = unknown.slice(0, -1) + (unknown.endsWith('0') ? '1' : '0');
    const answer = await refused(() => remove(target, { organization_id, raw_key: unknown }));
    const others = [
      await refused(() => remove(target, { organization_id, raw_key: wrongChecksum })),
      await refused(() => remove(target, { organization_id, raw_key: 'not a key' })),
    ];
    await setKey(unused, { status: 'revoked' });
    others.push(await refused(() => remove(target, unused)));
    await setKey(unused, { expires_at: unixNow() });
    others.push(await refused(() => remove(target, unused)));

    expect(answer).toMatchObject(problem(401, 'invalid_api_key'));
    for (const other of others) expect(withoutRequestId(other)).toEqual(withoutRequestId(answer));
  });

  it.each([
    { what: 'revoked', state: { status: 'revoked' }, status: 401, code: 'invalid_api_key', members: {} },
    { what: 'expired', state: { expires_at: 1 }, status: 401, code: 'invalid_api_key', members: {} },
    {
      what: 'downgraded',
      state: { role: 'user' },
      status: 403,
      code: 'permission_denied',
      members: { required_permission: 'integrations:delete' },
    },
  ] as const)(
    'has a key that was $what a moment ago and is still cached as valid',
    async ({ state, status, code, members }) => {
      await setKey(manager, {});
      expect((await remove(MISSING, manager)).status).toBe(404);
      await setKey(manager, state);
      // The premise: a cache still admits the key, to the check of the path.
      expect((await remove('malformed', manager)).status).toBe(422);

      expect(await refused(() => remove(target, manager))).toMatchObject(problem(status, code, members));
      expect(await refused(() => remove(target, manager))).toMatchObject(problem(status, code, members));
    },
  );
});

/** An answer as it is on the wire, but for what differs from call to call. */
function withoutRequestId({ status, headers, text }: Answer) {
  const { 'x-request-id': request_id = '', date: _, ...others } = Object.fromEntries(headers);
  return { status, headers: others, text: text.replace(request_id, '') };
}
