import { beforeEach, describe, expect, it } from 'vitest';
import { countedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  eventsOn,
  everythingKept,
  importNumber,
  keyChanges,
  newClient,
  resources,
  rowOf,
  rows,
  start,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const AGENT = 'agent_0123456789ab';

let client: Client;
let integration_id: string;
let phone_number: string;
let phone_number_id: string;

beforeEach(async () => {
  client = await newClient();
  integration_id = await createIntegration(client);
  phone_number = unusedNumber();
  phone_number_id = await importNumber(client, integration_id, phone_number);
});

const deleteNumber = (by = client, id = phone_number_id) => call(by, 'DELETE', `/api/phone-numbers/${id}`);

const assign = (assigned_agent_id: string | null) =>
  call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, { body: { assigned_agent_id } });

async function importSip(members: object = {}): Promise<string> {
  const sip_number = unusedNumber();
  await call(client, 'POST', '/api/phone-numbers', { body: { provider: 'sip', phone_number: sip_number, ...members } });
  return String((await rowOf('phone_numbers', sip_number))['phone_number_id']);
}

const idsLeft = async () => (await rows('phone_numbers')).map((row) => row['phone_number_id']);

const ciphertextsOf = async (id: string) =>
  Object.keys((await resources()).CREDENTIALS).filter((kv_key) => kv_key.includes(id));

describe('a phone number that no agent holds', () => {
  it('is answered as it stood just before, to the character', async () => {
    const { text: read } = await call(client, 'GET', `/api/phone-numbers/${phone_number_id}`);

    const { status, text } = await deleteNumber();

    expect(status).toBe(200);
    expect(text).toBe(
      read.replace('{"success":true,', '{"success":true,"message":"Phone number deleted successfully",'),
    );
  });

  it('leaves no row, and one event of its deletion with its last state; others stay', async () => {
    const other = await importNumber(client, integration_id, unusedNumber());
    const { data_key: _, kek_id: __, ownership_due_at: ___, ...state } = await rowOf('phone_numbers', phone_number_id);
    const { integrations, CREDENTIALS } = await resources();
    const oneLess = integrations.map((row) =>
      row['integration_id'] === integration_id ? { ...row, phone_number_count: 1 } : row,
    );

    const { headers } = await deleteNumber();

    const left = await idsLeft();
    expect(left).not.toContain(phone_number_id);
    expect(left).toContain(other);
    expect(await resources()).toMatchObject({ integrations: oneLess, CREDENTIALS, credential_purges: [] });
    expect((await eventsOn(phone_number_id)).slice(1)).toEqual([
      expect.objectContaining({
        action: 'phone_number.deleted',
        actor_key_id: client.key_id,
        request_id: headers.get('X-Request-Id'),
        state,
      }),
    ]);
  });

  it('is not there a second time', async () => {
    await deleteNumber();

    expect(await deleteNumber()).toMatchObject({ status: 404, body: { code: 'phone_number_not_found' } });
    expect((await call(client, 'GET', `/api/phone-numbers/${phone_number_id}`)).status).toBe(404);
    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.deleted']);
  });

  it('can be imported again, by anybody, and is a new one', async () => {
    await deleteNumber();
    const stranger = await newClient();

    const again = await importNumber(stranger, await createIntegration(stranger), phone_number);

    expect(again).not.toBe(phone_number_id);
    expect(await rowOf('phone_numbers', phone_number)).toMatchObject({
      phone_number_id: again,
      organization_id: stranger.organization_id,
      revision: 1,
    });
    expect((await deleteNumber()).status).toBe(404);
    expect(await idsLeft()).toContain(again);
  });

  it('leaves an integration that is then deleted', async () => {
    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(409);

    await deleteNumber();

    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
  });

  it('is deleted for every role that holds the permission', async () => {
    const manager = await newClient({ organization_id: client.organization_id, role: 'agent_manager' });

    expect((await deleteNumber(manager)).status).toBe(200);
  });

  it('costs a warm isolate one batch, and nothing after the answer', async () => {
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'DELETE', `/api/phone-numbers/${phone_number_id}`, { bindings });
    await answer.settle();

    expect(answer.status).toBe(200);
    expect(calls).toEqual(['DB.batch']);
  });
});

describe('a SIP number', () => {
  it('with credentials leaves no ciphertext and an empty outbox', async () => {
    const id = await importSip({ sip_username: 'user', sip_password: 'plaintext-password', inbound_pin: '0042' });
    expect(await ciphertextsOf(id)).toHaveLength(1);
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'DELETE', `/api/phone-numbers/${id}`, { bindings });
    expect(answer.status).toBe(200);
    expect(answer.text).not.toMatch(/plaintext|pin|credentials/);
    expect(calls[0]).toBe('DB.batch');
    await answer.settle();

    expect(calls).toEqual(['DB.batch', 'CREDENTIALS.delete', 'DB.batch']);
    expect(await ciphertextsOf(id)).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
    expect(await idsLeft()).not.toContain(id);
  });

  it('without credentials has nothing to leave', async () => {
    const id = await importSip();
    const { bindings, calls } = countedBindings();

    expect((await call(client, 'DELETE', `/api/phone-numbers/${id}`, { bindings })).status).toBe(200);

    expect(calls).toEqual(['DB.batch']);
    expect(await rows('credential_purges')).toEqual([]);
  });
});

describe('a phone number that an agent holds', () => {
  it('is refused, and whole after the refusal, which is on record with its state', async () => {
    await assign(AGENT);
    const { data_key: _, kek_id: __, ownership_due_at: ___, ...state } = await rowOf('phone_numbers', phone_number_id);
    const before = await resources();

    const { status, text, headers } = await deleteNumber();

    expect(status).toBe(409);
    expect(headers.get('Content-Type')).toBe('application/problem+json');
    expect(text).toBe(
      '{"type":"urn:patchbay:problem:phone_number_assigned","title":"Phone number is assigned","status":409,' +
        `"code":"phone_number_assigned","detail":"The phone number is assigned to agent '${AGENT}'. Unassign it first: ` +
        `set assigned_agent_id to null.","assigned_agent_id":"${AGENT}","request_id":"${headers.get('X-Request-Id')}"}`,
    );
    expect(await resources()).toEqual(before);
    expect((await eventsOn(phone_number_id)).slice(2)).toEqual([
      expect.objectContaining({
        action: 'phone_number.delete_refused',
        actor_key_id: client.key_id,
        request_id: headers.get('X-Request-Id'),
        state,
      }),
    ]);
  });

  it('keeps its SIP credentials', async () => {
    phone_number_id = await importSip({ sip_username: 'user', sip_password: 'plaintext-password' });
    await assign(AGENT);
    const before = await resources();

    expect((await deleteNumber()).status).toBe(409);

    expect(await resources()).toEqual(before);
    expect(await ciphertextsOf(phone_number_id)).toHaveLength(1);
  });

  it('is deleted once it is freed', async () => {
    await assign(AGENT);
    await deleteNumber();
    await assign(null);

    expect((await deleteNumber()).status).toBe(200);
    expect(await actionsOn(phone_number_id)).toEqual([
      'phone_number.imported',
      'phone_number.updated',
      'phone_number.delete_refused',
      'phone_number.updated',
      'phone_number.deleted',
    ]);
  });

  it('is refused to a stranger no otherwise than a missing one', async () => {
    await assign(AGENT);
    const stranger = await newClient();
    await call(stranger, 'GET', '/api/nothing');
    const before = await everythingKept();

    const foreign = await deleteNumber(stranger);
    const missing = await deleteNumber(stranger, 'phon_000000000000');

    expect(foreign).toMatchObject({ status: 404, body: { code: 'phone_number_not_found' } });
    const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
    expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
    expect(await everythingKept()).toEqual(before);
  });
});

describe('a phone number that is not to be deleted', () => {
  it.each(keyChanges)('survives a key that, cached as alive, %s', async (_, assignment, status, code) => {
    await changeKey(client, assignment);
    const before = await everythingKept();

    expect(await deleteNumber()).toMatchObject({ status, body: { code } });

    expect(await everythingKept()).toEqual(before);
  });

  it.each(keyChanges)('is not even refused on record to a key that %s', async (_, assignment, status) => {
    await assign(AGENT);
    await changeKey(client, assignment);

    expect((await deleteNumber()).status).toBe(status);

    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.updated']);
  });

  it('tells a downgraded key which permission it lost', async () => {
    await changeKey(client, `role = 'user'`);

    expect((await deleteNumber()).body).toMatchObject({ required_permission: 'phone_numbers:delete' });
  });

  it('is a 422 by a malformed id', async () => {
    expect(await deleteNumber(client, 'phon_A1B2C3D4E5F6')).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'phone_number_id' }] },
    });
  });
});

describe('simultaneous calls', () => {
  it('delete a number once: one 200, eleven 404, one event', async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => deleteNumber()));

    const statuses = answers.map(({ status }) => status).toSorted((a, b) => a - b);
    expect(statuses).toEqual([200, ...Array.from({ length: 11 }, () => 404)]);
    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.deleted']);
  });

  it('never delete a number that an agent was given, in 60 races', async () => {
    const outcomes = new Set<string>();
    for (let race = 0; race < 60; race += 1) {
      phone_number_id = await importNumber(client, integration_id, unusedNumber());
      const assigning = assign(AGENT);
      if (race % 2 === 0) await scheduler.wait(0);
      const [assigned, deleted] = await Promise.all([assigning, deleteNumber()]);
      outcomes.add(`${deleted.status} ${assigned.status}`);
    }

    expect([...outcomes].toSorted()).toEqual(['200 404', '409 200']);
  });
});
