import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import {
  actionsOn,
  call,
  createIntegration,
  fillNumbers,
  importNumber,
  newClient,
  resources,
  rows,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;
let integration_id: string;

beforeEach(async () => {
  client = await newClient();
  integration_id = await createIntegration(client);
});

const deleteIntegration = (by = client, id = integration_id) => call(by, 'DELETE', `/api/integrations/${id}`);

const set = (column: 'status' | 'expires_at' | 'role', value: string | number, of = client) =>
  env.DB.prepare(`UPDATE api_keys SET ${column} = ? WHERE key_id = ?`).bind(value, of.key_id).run();

describe('an integration that no phone number references', () => {
  it('is answered as it stood just before, to the character', async () => {
    await newClient({ organization_id: 'org_abc123' }).then((owner) => (client = owner));
    await env.DB.prepare(
      `UPDATE integrations SET organization_id = 'org_abc123', integration_id = 'intg_a1b2c3d4e5f6',
         created_at = unixepoch('2024-01-15T10:30:00Z'), updated_at = unixepoch('2024-01-15T10:30:00Z')
       WHERE integration_id = ?`,
    )
      .bind(integration_id)
      .run();

    const { status, text, headers } = await deleteIntegration(client, 'intg_a1b2c3d4e5f6');

    expect(status).toBe(200);
    expect(headers.get('Content-Type')).toBe('application/json');
    expect(text).toBe(
      '{"success":true,"message":"Integration deleted successfully","data":{"integration_id":"intg_a1b2c3d4e5f6",' +
        '"client_id":"org_abc123","name":"Twilio Production","provider":"twilio","category":"telephony",' +
        '"status":"active","created_at":"2024-01-15T10:30:00Z","updated_at":"2024-01-15T10:30:00Z"}}',
    );
  });

  it('leaves no row, no ciphertext, no outbox row, and one event of its deletion', async () => {
    const { status } = await deleteIntegration();

    expect(status).toBe(200);
    const { integrations, credential_purges, CREDENTIALS } = await resources();
    expect(integrations.filter((row) => row['integration_id'] === integration_id)).toEqual([]);
    expect(Object.keys(CREDENTIALS).filter((key) => key.includes(integration_id))).toEqual([]);
    expect(credential_purges).toEqual([]);
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
  });

  it('is deleted for a role that holds the permission, whichever it is', async () => {
    const manager = await newClient({ organization_id: client.organization_id, role: 'agent_manager' });

    expect((await deleteIntegration(manager)).status).toBe(200);
  });

  it('is not there a second time', async () => {
    await deleteIntegration();

    const { status, body } = await deleteIntegration();

    expect(status).toBe(404);
    expect(body).toMatchObject({ code: 'integration_not_found' });
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
  });

  it('is deleted while the organization has phone numbers on others', async () => {
    const other = await createIntegration(client);
    await importNumber(client, other, unusedNumber());

    expect((await deleteIntegration()).status).toBe(200);
    expect((await deleteIntegration(client, other)).status).toBe(409);
  });
});

describe('an integration that phone numbers reference', () => {
  const quoted = (numbers: string[]) => numbers.map((number) => `'${number}'`).join(', ');

  it.each([1, 2, 100])('is refused, naming all of its %i numbers', async (count) => {
    const numbers = await fillNumbers(client, integration_id, count);

    const { status, body } = await deleteIntegration();

    expect(status).toBe(409);
    expect(body).toMatchObject({
      detail: `Integration is still referenced by phone numbers: [${quoted(numbers)}]. Remove or reassign them first.`,
      reference_count: count,
      reference_count_exact: true,
    });
  });

  it.each([
    [123, 123, true, ' and 23 more'],
    [1000, 1000, true, ' and 900 more'],
    [1001, 1000, false, ' and more than 900 more'],
  ])('is refused, naming 100 of its %i numbers', async (count, reference_count, reference_count_exact, more) => {
    const numbers = await fillNumbers(client, integration_id, count);

    const { status, body } = await deleteIntegration();

    expect(status).toBe(409);
    expect(body).toMatchObject({
      detail: `Integration is still referenced by phone numbers: [${quoted(numbers.slice(0, 100))}]${more}. Remove or reassign them first.`,
      references: numbers.slice(0, 100).map((phone_number) => ({ phone_number })),
      reference_count,
      reference_count_exact,
    });
  });

  it('is refused with every member in its order, numbers ascending whatever the order of their import', async () => {
    const [first, second] = [unusedNumber(), unusedNumber()];
    const secondId = await importNumber(client, integration_id, second);
    const firstId = await importNumber(client, integration_id, first);

    const { text, headers } = await deleteIntegration();

    expect(headers.get('Content-Type')).toBe('application/problem+json');
    expect(text).toBe(
      '{"type":"urn:patchbay:problem:integration_in_use","title":"Integration is in use","status":409,' +
        `"code":"integration_in_use","detail":"Integration is still referenced by phone numbers: ['${first}', '${second}']. ` +
        `Remove or reassign them first.","references":[{"phone_number_id":"${firstId}","phone_number":"${first}"},` +
        `{"phone_number_id":"${secondId}","phone_number":"${second}"}],"reference_count":2,"reference_count_exact":true,` +
        `"references_url":"/api/integrations/${integration_id}/references","request_id":"${headers.get('X-Request-Id')}"}`,
    );
  });

  it('is whole after the refusal, which is on record', async () => {
    await importNumber(client, integration_id, unusedNumber());
    const before = await resources();

    expect((await deleteIntegration()).status).toBe(409);

    expect(await resources()).toEqual(before);
    expect(before.integrations).toContainEqual(
      expect.objectContaining({ integration_id, data_key: expect.stringMatching(/^.{80}$/) }),
    );
    expect(Object.keys(before.CREDENTIALS).filter((key) => key.includes(integration_id))).toHaveLength(1);
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.delete_refused']);
  });

  it('is refused by the foreign key where the rule fails to see a reference, and nothing happens', async () => {
    await env.DB.batch([
      env.DB.prepare(
        `CREATE TABLE unseen (organization_id TEXT, integration_id TEXT, FOREIGN KEY (organization_id, integration_id)
           REFERENCES integrations (organization_id, integration_id) ON DELETE RESTRICT)`,
      ),
      env.DB.prepare('INSERT INTO unseen VALUES (?, ?)').bind(client.organization_id, integration_id),
    ]);
    const before = await resources();

    const { status, body } = await deleteIntegration();

    expect(status).toBe(409);
    expect(body).toMatchObject({ code: 'integration_in_use', reference_count: 0 });
    expect(await resources()).toEqual(before);
    await env.DB.prepare('DROP TABLE unseen').run();
  });
});

describe('an integration that is not the caller’s', () => {
  it('is answered as one that does not exist, and left alone', async () => {
    const stranger = await newClient();
    const before = await resources();

    const foreign = await deleteIntegration(stranger);
    const missing = await deleteIntegration(stranger, 'intg_000000000000');

    expect(foreign.status).toBe(404);
    const withoutRequestId = ({ text, headers }: typeof foreign) =>
      text.replace(headers.get('X-Request-Id') ?? 'no request id', '');
    expect(withoutRequestId(foreign)).toBe(withoutRequestId(missing));
    const names = ({ headers }: typeof foreign) => [...headers].filter(([name]) => name !== 'x-request-id');
    expect(names(foreign)).toEqual(names(missing));
    expect(await resources()).toEqual(before);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('stays so with a malformed id, which is not valid', async () => {
    const { status, body } = await deleteIntegration(client, 'intg_A1B2C3D4E5F6');

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path: 'integration_id' }] });
  });
});

describe('a caller whose key is cached as alive', () => {
  const lastMinute = () => Math.floor(Date.now() / 1000) - 60;

  it.each([
    ['was revoked', () => set('status', 'revoked'), 401, { code: 'invalid_api_key' }],
    ['has expired', () => set('expires_at', lastMinute()), 401, { code: 'invalid_api_key' }],
    [
      'lost the permission',
      () => set('role', 'user'),
      403,
      { code: 'permission_denied', required_permission: 'integrations:delete' },
    ],
  ])('deletes nothing once the key %s in D1', async (_, change, expectedStatus, problem) => {
    await change();
    const before = await resources();

    const { status, body } = await deleteIntegration();

    expect(status).toBe(expectedStatus);
    expect(body).toMatchObject(problem);
    expect(await resources()).toEqual(before);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('deletes nothing in the very second of the key’s expiry', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await set('expires_at', Math.floor(Date.now() / 1000));

    expect((await deleteIntegration()).status).toBe(401);

    vi.useRealTimers();
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('deletes nothing with a key that D1 knows as another organization’s', async () => {
    const stranger = await newClient();
    await env.DB.prepare('UPDATE api_keys SET organization_id = ? WHERE key_id = ?')
      .bind(stranger.organization_id, client.key_id)
      .run();

    expect((await deleteIntegration()).status).toBe(401);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });
});

describe('simultaneous calls', () => {
  it('delete an integration once: one 200, eleven 404, one event', async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => deleteIntegration()));

    const statuses = answers.map(({ status }) => status).toSorted((a, b) => a - b);
    expect(statuses).toEqual([200, ...Array.from({ length: 11 }, () => 404)]);
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
  });

  it('never both delete an integration and import a number on it, in 100 races', async () => {
    const outcomes = new Set<string>();
    for (let race = 0; race < 100; race += 1) {
      const contested = await createIntegration(client);
      const importing = call(client, 'POST', '/api/phone-numbers?verify=false', {
        body: { phone_number: unusedNumber(), provider: 'twilio', integration_id: contested },
      });
      // Every other import has a head start, so that each of the two wins some of the races.
      if (race % 2 === 0) await scheduler.wait(0);
      const [imported, deleted] = await Promise.all([importing, deleteIntegration(client, contested)]);
      outcomes.add(`${deleted.status} ${imported.status}`);
    }

    expect([...outcomes].toSorted()).toEqual(['200 404', '409 201']);
    const { results: orphans } = await env.DB.prepare(
      `SELECT * FROM phone_numbers AS p WHERE p.integration_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM integrations AS i
         WHERE i.organization_id = p.organization_id AND i.integration_id = p.integration_id)`,
    ).all();
    expect(orphans).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  });
});
