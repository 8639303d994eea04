import { env } from 'cloudflare:workers';
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
  await env.DB.prepare(
    `UPDATE phone_numbers SET created_at = unixepoch('2024-01-15T10:30:00Z'), updated_at = unixepoch('2024-01-15T10:30:00Z')
     WHERE phone_number_id = ?`,
  )
    .bind(phone_number_id)
    .run();
});

const update = (body: unknown, by = client, id = phone_number_id) =>
  call(by, 'PUT', `/api/phone-numbers/${id}?verify=false`, { body });

const row = (id = phone_number_id) => rowOf('phone_numbers', id);

async function importSip(members: object = {}): Promise<string> {
  const sip_number = unusedNumber();
  await call(client, 'POST', '/api/phone-numbers', { body: { provider: 'sip', phone_number: sip_number, ...members } });
  return String((await row(sip_number))['phone_number_id']);
}

type Members = Record<string, unknown>;

/** Updates, and tells what is different. The answer and a read agree, and what no answer shows is as it was. */
async function changedBy(changes: object, id = phone_number_id): Promise<Members> {
  const { data: before }: { data: Members } = JSON.parse((await call(client, 'GET', `/api/phone-numbers/${id}`)).text);
  const rowBefore = await row(id);
  const others = async () => (await resources()).phone_numbers.filter((found) => found['phone_number_id'] !== id);
  const othersBefore = await others();

  const { status, text } = await update(changes, client, id);

  expect(status).toBe(200);
  const { data: after }: { data: Members } = JSON.parse(text);
  expect(JSON.parse((await call(client, 'GET', `/api/phone-numbers/${id}`)).text).data).toEqual(after);
  const { credentials_version, data_key, kek_id } = rowBefore;
  const revision = Number(rowBefore['revision']) + 1;
  expect(await row(id)).toMatchObject({ credentials_version, data_key, kek_id, revision });
  expect(Date.parse(String(after['updated_at']))).toBeGreaterThan(Date.now() - 60_000);
  expect(await others()).toEqual(othersBefore);
  const different = Object.entries(after).filter(([name, value]) => name !== 'updated_at' && before[name] !== value);
  return Object.fromEntries(different);
}

describe('an updated phone number', () => {
  it('is answered as it is stored, to the character', async () => {
    const { status, text } = await update({ supports_inbound: true, assigned_agent_id: AGENT });

    const time = new Date(Number((await row())['updated_at']) * 1000).toISOString().replace('.000Z', 'Z');
    expect(status).toBe(200);
    expect(text).toBe(
      `{"success":true,"message":"Phone number updated successfully","data":{"phone_number_id":"${phone_number_id}",` +
        `"client_id":"${client.organization_id}","phone_number":"${phone_number}","provider":"twilio",` +
        `"integration_id":"${integration_id}","status":"assigned","assigned_agent_id":"${AGENT}",` +
        '"supports_inbound":true,"supports_outbound":false,"sip_trunk_name":null,"sip_username":null,' +
        '"sip_server_address":null,"sip_transport":null,"inbound_room_name":null,"media_encryption":null,' +
        `"ownership":"unconfirmed","created_at":"2024-01-15T10:30:00Z","updated_at":"${time}"}}`,
    );
  });

  it('goes to another integration of the organization and provider', async () => {
    const other = await createIntegration(client);

    expect(await changedBy({ integration_id: other })).toEqual({ integration_id: other });
  });

  it('may stay at its integration', async () => {
    expect(await changedBy({ integration_id })).toEqual({});
  });

  it.each(['supports_inbound', 'supports_outbound'])('supports what it is told by %s, and back', async (member) => {
    expect(await changedBy({ [member]: true })).toEqual({ [member]: true });
    expect(await changedBy({ [member]: true })).toEqual({});
    expect(await changedBy({ [member]: false })).toEqual({ [member]: false });
  });

  it('is assigned to an agent, to another, and freed', async () => {
    const another = 'agent_ba9876543210';

    expect(await changedBy({ assigned_agent_id: AGENT })).toEqual({ assigned_agent_id: AGENT, status: 'assigned' });
    expect(await changedBy({ assigned_agent_id: another })).toEqual({ assigned_agent_id: another });
    expect(await changedBy({ assigned_agent_id: null })).toEqual({ assigned_agent_id: null, status: 'free' });
    expect(await changedBy({ assigned_agent_id: null })).toEqual({});
  });

  it('keeps its agent while it changes otherwise', async () => {
    await update({ assigned_agent_id: AGENT });
    const other = await createIntegration(client);

    expect(await changedBy({ supports_inbound: true })).toEqual({ supports_inbound: true });
    expect(await changedBy({ integration_id: other })).toEqual({ integration_id: other });
  });

  it('takes all changes in one update', async () => {
    const other = await createIntegration(client);
    const flags = { supports_inbound: true, supports_outbound: true };
    const changes = { integration_id: other, ...flags, assigned_agent_id: AGENT };

    expect(await changedBy(changes)).toEqual({ ...changes, status: 'assigned' });
    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.updated']);
  });

  it('by SIP takes every change but an integration, and keeps its credentials', async () => {
    const id = await importSip({
      sip_server_address: 'sip.example.com',
      sip_username: 'user',
      sip_password: 'plaintext-password',
    });
    const { CREDENTIALS, credential_purges } = await resources();
    const changes = { supports_inbound: true, supports_outbound: true, assigned_agent_id: AGENT };

    expect(await changedBy(changes, id)).toEqual({ ...changes, status: 'assigned' });

    expect(await resources()).toMatchObject({ CREDENTIALS, credential_purges });
  });

  it('by SIP without a server may be told not to dial out', async () => {
    expect(await changedBy({ supports_outbound: false }, await importSip())).toEqual({});
  });

  it('leaves an integration, which is then deleted, once the last of its numbers has gone elsewhere', async () => {
    const second = await importNumber(client, integration_id, unusedNumber());
    const other = await createIntegration(client);
    const deleteIntegration = () => call(client, 'DELETE', `/api/integrations/${integration_id}`);

    await update({ integration_id: other });
    expect((await deleteIntegration()).status).toBe(409);
    await update({ integration_id: other }, client, second);

    expect((await deleteIntegration()).status).toBe(200);
    expect((await call(client, 'DELETE', `/api/integrations/${other}`)).status).toBe(409);
  });

  it('costs a warm isolate one batch, and nothing after the answer', async () => {
    const other = await createIntegration(client);
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'PUT', `/api/phone-numbers/${phone_number_id}?verify=false`, {
      body: { integration_id: other },
      bindings,
    });
    await answer.settle();

    expect(calls).toEqual(['DB.batch']);
  });

  it('has an event for each update, with the state before it', async () => {
    const { data_key: _, kek_id: __, ownership_due_at: ___, ...before } = await row();

    const { headers } = await update({ assigned_agent_id: AGENT });
    await update({ assigned_agent_id: null });

    expect((await eventsOn(phone_number_id)).slice(1)).toEqual([
      expect.objectContaining({
        action: 'phone_number.updated',
        actor_key_id: client.key_id,
        request_id: headers.get('X-Request-Id'),
        state: before,
      }),
      expect.objectContaining({
        action: 'phone_number.updated',
        state: expect.objectContaining({ status: 'assigned', assigned_agent_id: AGENT, revision: 2 }),
      }),
    ]);
  });
});

describe('an update that is refused', () => {
  async function refusal(body: unknown, by = client, id = phone_number_id) {
    const before = await everythingKept();
    const answer = await update(body, by, id);
    expect(await everythingKept()).toEqual(before);
    return answer;
  }

  it.each<[string, unknown, string]>([
    ['nothing', {}, ''],
    ['no object', [], ''],
    ['null', null, ''],
    ['an integration that is null', { integration_id: null }, 'integration_id'],
    ['a malformed integration', { integration_id: 'intg_1' }, 'integration_id'],
    ['a malformed agent', { assigned_agent_id: 'agent_' }, 'assigned_agent_id'],
    ['an agent of 65 characters', { assigned_agent_id: `agent_${'a'.repeat(65)}` }, 'assigned_agent_id'],
    ['an agent that is empty', { assigned_agent_id: '' }, 'assigned_agent_id'],
    ['an id of something else as agent', { assigned_agent_id: 'phon_0123456789ab' }, 'assigned_agent_id'],
    ['a flag that is no boolean', { supports_inbound: 1 }, 'supports_inbound'],
    ['a flag that is null', { supports_outbound: null }, 'supports_outbound'],
    ['another number', { supports_inbound: true, phone_number: '+14155550100' }, 'phone_number'],
    ['a status', { supports_inbound: true, status: 'free' }, 'status'],
    ['a provider', { supports_inbound: true, provider: 'telnyx' }, 'provider'],
    ['a password', { supports_inbound: true, sip_password: 'plaintext' }, 'sip_password'],
  ])('is a 422 by %s', async (_, body, path) => {
    const { status, body: problem, text } = await refusal(body);

    expect(status).toBe(422);
    expect(problem).toMatchObject({ code: 'validation_failed', errors: [{ path, message: expect.any(String) }] });
    expect(text).not.toContain('plaintext');
  });

  it('is one and the same 404 where the target is missing and where it is another organization’s', async () => {
    const theirs = await createIntegration(await newClient());

    const foreign = await refusal({ integration_id: theirs });
    const missing = await refusal({ integration_id: 'intg_000000000000' });

    expect(foreign).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
    const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
    expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
  });

  it('is a 422 where the target is of another provider', async () => {
    const telnyx = await createIntegration(client, { provider: 'telnyx', api_key: 'k' });

    expect(await refusal({ integration_id: telnyx, assigned_agent_id: AGENT })).toMatchObject({
      status: 422,
      body: {
        code: 'validation_failed',
        errors: [{ path: 'integration_id', message: "must be an integration of the phone number's provider" }],
      },
    });
  });

  it('is a 422 where a SIP number is to go to an integration, and a 404 where there is none', async () => {
    const id = await importSip();

    expect(await refusal({ integration_id }, client, id)).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path: 'integration_id' }] },
    });
    expect(await refusal({ integration_id: 'intg_000000000000' }, client, id)).toMatchObject({
      status: 404,
      body: { code: 'integration_not_found' },
    });
  });

  it('is a 422 where a SIP number without a server is to dial out', async () => {
    const id = await importSip();

    expect(await refusal({ supports_outbound: true, supports_inbound: true }, client, id)).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path: 'supports_outbound' }] },
    });
  });

  it.each([{ supports_inbound: true }, { assigned_agent_id: AGENT }, { integration_id: 'intg_000000000000' }])(
    'is one and the same 404 where the number is missing and where it is another organization’s: %j',
    async (body) => {
      const stranger = await newClient();
      await call(stranger, 'GET', '/api/nothing');

      const foreign = await refusal(body, stranger);
      const missing = await refusal(body, stranger, 'phon_000000000000');

      expect(foreign).toMatchObject({ status: 404, body: { code: 'phone_number_not_found' } });
      const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
      expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
    },
  );

  it('is a 404 where a stranger would take the number to an integration of its own', async () => {
    const stranger = await newClient();
    const theirs = await createIntegration(stranger);

    expect(await refusal({ integration_id: theirs }, stranger)).toMatchObject({
      status: 404,
      body: { code: 'phone_number_not_found' },
    });
  });

  it('is a 422 by a malformed id', async () => {
    expect(await refusal({ supports_inbound: true }, client, 'phon_A1B2C3D4E5F6')).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'phone_number_id' }] },
    });
  });

  it.each(keyChanges)('is so by a key that, cached as alive, %s', async (_, assignment, status, code) => {
    const other = await createIntegration(client);
    await changeKey(client, assignment);

    for (const body of [{ supports_inbound: true }, { assigned_agent_id: AGENT }, { integration_id: other }]) {
      expect(await refusal(body)).toMatchObject({ status, body: { code } });
    }
    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported']);
  });

  it('tells a downgraded key which permission it lost', async () => {
    await changeKey(client, `role = 'user'`);

    expect((await refusal({ supports_inbound: true })).body).toMatchObject({
      required_permission: 'phone_numbers:update',
    });
  });
});

describe('simultaneous updates', () => {
  it('are all done, one after the other, each on record', async () => {
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, index) => update({ assigned_agent_id: index % 2 ? AGENT : null })),
    );

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(await row()).toMatchObject({ revision: 13 });
    const states = (await eventsOn(phone_number_id)).slice(1).map(({ state }) => Number(Object(state).revision));
    expect(states.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
  });

  it('never take a number to an integration that is deleted meanwhile, in 60 races', async () => {
    const outcomes = new Set<string>();
    for (let race = 0; race < 60; race += 1) {
      const contested = await createIntegration(client);
      const moving = update({ integration_id: contested });
      if (race % 2 === 0) await scheduler.wait(0);
      const [moved, deleted] = await Promise.all([moving, call(client, 'DELETE', `/api/integrations/${contested}`)]);
      outcomes.add(`${deleted.status} ${moved.status}`);
      await update({ integration_id });
    }

    expect([...outcomes].toSorted()).toEqual(['200 404', '409 200']);
  });
});
