import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  call,
  createIntegration,
  everythingKept,
  importNumber,
  newClient,
  page,
  rowOf,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const AGENT = 'agent_0123456789ab';
const all = '/api/audit-events';

let client: Client;

beforeEach(async () => {
  client = await newClient();
  await call(client, 'GET', '/api/nothing');
});

const put = (path: string, body: object) => call(client, 'PUT', path, { body });
const remove = (path: string, by = client) => call(by, 'DELETE', path);
const dataOf = async (path: string): Promise<unknown> => JSON.parse((await call(client, 'GET', path)).text).data;

/** Everything that leaves an event, once. */
async function journey() {
  const integration_id = await createIntegration(client);
  const phone_number = unusedNumber();
  const phone_number_id = await importNumber(client, integration_id, phone_number);
  const integration = `/api/integrations/${integration_id}`;
  const number = `/api/phone-numbers/${phone_number_id}`;
  await remove(integration);
  await put(integration, { name: 'Renamed', credentials: { ...twilio, auth_token: 'plaintext-fresh-token' } });
  await put(number, { assigned_agent_id: AGENT });
  await remove(number);
  await put(number, { assigned_agent_id: null });
  await remove(number);
  await remove(integration);
  const sip_number = unusedNumber();
  await call(client, 'POST', '/api/phone-numbers', {
    body: {
      provider: 'sip',
      phone_number: sip_number,
      sip_username: 'user',
      sip_password: 'plaintext-password',
      inbound_pin: '0042',
    },
  });
  const sip_id = String((await rowOf('phone_numbers', sip_number))['phone_number_id']);
  const { text } = await call(client, 'POST', '/api/api-keys', { body: { name: 'CI', role: 'user' } });
  const key_id = String(JSON.parse(text).data.key.key_id);
  await remove(`/api/api-keys/${key_id}`);
  return { integration_id, phone_number_id, sip_id, key_id };
}

describe('the list of audit events', () => {
  it('tells the story of a journey, in its order', async () => {
    const { integration_id, phone_number_id, sip_id, key_id } = await journey();

    const { data, total_count } = await page(client, `${all}?page_size=100`);

    expect(data.map(({ action, outcome, target_id }) => [action, outcome, target_id])).toEqual([
      ['api_key.created', 'succeeded', client.key_id],
      ['integration.created', 'succeeded', integration_id],
      ['phone_number.imported', 'succeeded', phone_number_id],
      ['integration.delete_refused', 'refused', integration_id],
      ['integration.updated', 'succeeded', integration_id],
      ['phone_number.updated', 'succeeded', phone_number_id],
      ['phone_number.delete_refused', 'refused', phone_number_id],
      ['phone_number.updated', 'succeeded', phone_number_id],
      ['phone_number.deleted', 'succeeded', phone_number_id],
      ['integration.deleted', 'succeeded', integration_id],
      ['phone_number.imported', 'succeeded', sip_id],
      ['api_key.created', 'succeeded', key_id],
      ['api_key.revoked', 'succeeded', key_id],
    ]);
    expect(total_count).toBe(13);
    expect(data.map(({ actor_key_id }) => actor_key_id)).toEqual([
      null,
      ...Array.from({ length: 12 }, () => client.key_id),
    ]);
  });

  it('has nothing of what was read, refused without an event, or another organization’s', async () => {
    const integration_id = await createIntegration(client);
    const stranger = await newClient();
    await remove(`/api/integrations/${integration_id}`, stranger);
    await remove('/api/integrations/intg_000000000000');
    await put(`/api/integrations/${integration_id}`, {});
    await call(client, 'GET', '/api/integrations');
    await call(client, 'GET', all);

    expect((await page(client, all)).data.map(({ action }) => action)).toEqual([
      'api_key.created',
      'integration.created',
    ]);
    expect((await page(stranger, all)).data.map(({ target_id }) => target_id)).toEqual([stranger.key_id]);
  });

  it('changes nothing that is stored', async () => {
    await journey();
    const before = await everythingKept();

    await page(client, all);

    expect(await everythingKept()).toEqual(before);
  });

  it('comes by pages that make the whole', async () => {
    await journey();
    const whole = await page(client, `${all}?page_size=100`);

    const parts: unknown[] = [];
    const lengths: number[] = [];
    for (let cursor = ''; cursor !== 'null';) {
      const part = await page(client, `${all}?page_size=4${cursor && `&cursor=${cursor}`}`);
      parts.push(...part.data);
      lengths.push(part.data.length);
      cursor = String(part.next_cursor);
    }

    expect(lengths).toEqual([4, 4, 4, 1]);
    expect(parts).toEqual(whole.data);
  });
});

describe('the feed of audit events', () => {
  /** One page after the cursor. */
  const follow = (after: string, query = '') => page(client, `${all}?after=${after}${query}`);

  it('begins with the oldest event, and goes on behind the last page with what has come since', async () => {
    await journey();
    const { data: whole } = await page(client, `${all}?page_size=100`);

    const followed = [];
    let { data, has_more, next_cursor } = await follow('', '&page_size=4');
    followed.push(...data);
    while (has_more) {
      ({ data, has_more, next_cursor } = await follow(String(next_cursor), '&page_size=4'));
      followed.push(...data);
    }
    expect(followed).toEqual(whole);

    const end = String(next_cursor);
    const nothing = await follow(end);
    expect(nothing).toMatchObject({ data: [], has_more: false, total_count: 0 });

    const integration_id = await createIntegration(client);
    for (const cursor of [end, String(nothing.next_cursor)]) {
      const { data: newer, total_count } = await follow(cursor);
      expect(newer.map(({ action, target_id }) => [action, target_id])).toEqual([
        ['integration.created', integration_id],
      ]);
      expect(total_count).toBe(1);
    }
  });

  it('counts, with every page, the events of that page and those after it', async () => {
    await journey();
    const { total_count: all_of_them } = await page(client, all);

    const first = await follow('', '&page_size=5');
    const second = await follow(String(first.next_cursor), '&page_size=5');

    expect(first.total_count).toBe(all_of_them);
    expect(second.total_count).toBe(all_of_them - 5);
  });

  it('has the same filters on every page: a cursor of others is a 422', async () => {
    await journey();
    const first = await follow('', '&action=integration.created');
    expect(first.data.map(({ action }) => action)).toEqual(['integration.created']);

    const cursor = String(first.next_cursor);
    expect((await follow(cursor, '&action=integration.created')).data).toEqual([]);
    const { status, body } = await call(client, 'GET', `${all}?after=${cursor}`);

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed' });
  });

  it.each([
    ['with a cursor', 'after=&cursor=x', 'must not be given with cursor'],
    ['from the end of the list', 'after=&order=desc', 'must be given with order=asc'],
  ])('is not asked for %s: a 422', async (_, query, message) => {
    const { status, body } = await call(client, 'GET', `${all}?${query}`);

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path: 'after', message }] });
  });
});

describe('an audit event', () => {
  it('is answered to the character', async () => {
    const integration_id = await createIntegration(client);
    await env.DB.prepare(
      `UPDATE integrations SET created_at = unixepoch('2024-01-15T10:30:00Z'), updated_at = unixepoch('2024-01-15T10:30:01Z'),
         verification_checked_at = unixepoch('2024-01-15T10:30:00Z') WHERE integration_id = ?`,
    )
      .bind(integration_id)
      .run();
    const { headers } = await remove(`/api/integrations/${integration_id}`);
    await env.DB.prepare(
      `UPDATE audit_events SET created_at = unixepoch('2024-01-15T10:30:02Z') WHERE action = 'integration.deleted' AND target_id = ?`,
    )
      .bind(integration_id)
      .run();

    const { text } = await call(client, 'GET', `${all}?action=integration.deleted`);

    const event_id = String(JSON.parse(text).data[0].event_id);
    expect(event_id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(text).toBe(
      `{"success":true,"data":[{"event_id":"${event_id}","client_id":"${client.organization_id}",` +
        `"action":"integration.deleted","outcome":"succeeded","target_id":"${integration_id}",` +
        `"actor":{"type":"api_key","id":"${client.key_id}","name":"Test"},` +
        `"actor_key_id":"${client.key_id}","request_id":"${headers.get('X-Request-Id')}","state":{` +
        `"integration_id":"${integration_id}","client_id":"${client.organization_id}","name":"Twilio Production",` +
        '"provider":"twilio","category":"telephony","status":"active","created_at":"2024-01-15T10:30:00Z",' +
        '"updated_at":"2024-01-15T10:30:01Z","account_hint":"AC…cdef","verification":{"status":"verified",' +
        '"checked_at":"2024-01-15T10:30:00Z","provider_status":200,"provider_code":null,' +
        '"detail":"The provider accepted the credentials."}},"changes":null,"reason":null,"created_at":"2024-01-15T10:30:02Z"}],' +
        '"pagination":{"next_cursor":null,"has_more":false,"page_size":20,"total_count":1,"total_count_exact":true}}',
    );
  });

  const statesOf = async (target_id: string, action: string) =>
    (await page(client, `${all}?target_id=${target_id}`)).data
      .filter((event) => event['action'] === action)
      .map(({ state }) => state);

  it('has an integration as clients see it: as it was created, before an update, at a refusal and before its deletion', async () => {
    const integration_id = await createIntegration(client);
    const path = `/api/integrations/${integration_id}`;
    const created = await dataOf(path);
    await put(path, { name: 'Renamed' });
    const renamed = await dataOf(path);
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    await remove(path);
    await remove(`/api/phone-numbers/${phone_number_id}`);
    await remove(path);

    expect(await statesOf(integration_id, 'integration.created')).toEqual([created]);
    expect(await statesOf(integration_id, 'integration.updated')).toEqual([created]);
    expect(await statesOf(integration_id, 'integration.delete_refused')).toEqual([renamed]);
    expect(await statesOf(integration_id, 'integration.deleted')).toEqual([renamed]);
  });

  it('has a phone number as clients see it, its flags as booleans', async () => {
    const phone_number = unusedNumber();
    await call(client, 'POST', '/api/phone-numbers', {
      body: {
        provider: 'sip',
        phone_number,
        supports_inbound: true,
        sip_username: 'user',
        sip_password: 'plaintext-password',
      },
    });
    const phone_number_id = String((await rowOf('phone_numbers', phone_number))['phone_number_id']);
    const path = `/api/phone-numbers/${phone_number_id}`;
    const imported = await dataOf(path);
    await put(path, { assigned_agent_id: AGENT });
    const assigned = await dataOf(path);
    await remove(path);

    expect(await statesOf(phone_number_id, 'phone_number.imported')).toEqual([imported]);
    expect(await statesOf(phone_number_id, 'phone_number.updated')).toEqual([imported]);
    expect(await statesOf(phone_number_id, 'phone_number.delete_refused')).toEqual([assigned]);
    expect(imported).toMatchObject({ supports_inbound: true, supports_outbound: false });
  });

  it('has an API key as clients see it', async () => {
    const { text } = await call(client, 'POST', '/api/api-keys', { body: { name: 'CI', role: 'user' } });
    const { key } = JSON.parse(text).data;

    await remove(`/api/api-keys/${key.key_id}`);

    expect(await statesOf(key.key_id, 'api_key.created')).toEqual([key]);
    expect(await statesOf(key.key_id, 'api_key.revoked')).toEqual([key]);
  });

  it('never has what leads to credentials or to a key', async () => {
    const { key_id } = await journey();
    const { key_hash } = await rowOf('api_keys', key_id);

    const { text } = await call(client, 'GET', `${all}?page_size=100`);

    expect(text).not.toMatch(/data_key|kek_id|credentials_version|key_hash|raw_key|revision|organization_id/);
    expect(text).not.toMatch(/plaintext|0042|AC0123456789abcdef/);
    expect(text).not.toContain(String(key_hash));
  });

  it('names its actor as it was then, also when the key is gone', async () => {
    const { text } = await call(client, 'POST', '/api/api-keys', { body: { name: 'Deploys', role: 'admin' } });
    const { raw_key, key } = JSON.parse(text).data;
    const integration_id = await createIntegration({ ...client, raw_key, key_id: key.key_id });
    await env.DB.prepare('DELETE FROM api_keys WHERE key_id = ?').bind(key.key_id).run();

    const { data } = await page(client, `${all}?target_id=${integration_id}`);

    expect(data).toMatchObject([
      { actor: { type: 'api_key', id: key.key_id, name: 'Deploys' }, actor_key_id: key.key_id },
    ]);
  });

  it('of an operator’s command names no key', async () => {
    const { data } = await page(client, `${all}?target_id=${client.key_id}`);

    expect(data).toMatchObject([{ actor: { type: 'operator', id: null, name: null }, actor_key_id: null }]);
  });

  it.each([
    ['an API key', 'apikey_000000000000', { type: 'api_key', id: 'apikey_000000000000', name: null }],
    ['an operator', null, { type: 'operator', id: null, name: null }],
  ])('from before actors were recorded is of %s', async (_, actor_key_id, actor) => {
    const integration_id = await createIntegration(client);
    await env.DB.prepare(
      'UPDATE audit_events SET actor_type = NULL, actor_id = NULL, actor_name = NULL, actor_key_id = ? WHERE target_id = ?',
    )
      .bind(actor_key_id, integration_id)
      .run();

    const { data } = await page(client, `${all}?target_id=${integration_id}`);

    expect(data).toMatchObject([{ actor, actor_key_id }]);
  });

  const changesOf = async (target_id: string) =>
    (await page(client, `${all}?target_id=${target_id}`)).data.map(({ action, changes }) => [action, changes]);

  it('of an integration’s update tells what changed, and of its credentials only that they did', async () => {
    const integration_id = await createIntegration(client);
    const path = `/api/integrations/${integration_id}`;
    const credentials = { ...twilio, auth_token: 'plaintext-fresh-token' };
    await put(path, { name: 'Renamed' });
    await put(path, { name: 'Renamed' });
    await env.DB.prepare(`UPDATE integrations SET status = 'credentials_missing' WHERE integration_id = ?`)
      .bind(integration_id)
      .run();
    await put(path, { name: 'Again', credentials });
    await remove(path);

    const redacted = { from: '[redacted]', to: '[redacted]' };
    expect(await changesOf(integration_id)).toEqual([
      ['integration.created', null],
      ['integration.updated', { name: { from: 'Twilio Production', to: 'Renamed' } }],
      ['integration.updated', {}],
      [
        'integration.updated',
        {
          name: { from: 'Renamed', to: 'Again' },
          status: { from: 'credentials_missing', to: 'active' },
          credentials: redacted,
        },
      ],
      ['integration.deleted', null],
    ]);
  });

  it('of a phone number’s update tells what changed, as clients see it', async () => {
    const [from, to] = [await createIntegration(client), await createIntegration(client)];
    const phone_number_id = await importNumber(client, from, unusedNumber());
    const path = `/api/phone-numbers/${phone_number_id}`;
    await put(`${path}?verify=false`, { integration_id: to, supports_inbound: true });
    await put(path, { assigned_agent_id: AGENT });
    await put(path, { assigned_agent_id: null, supports_inbound: true });

    expect(await changesOf(phone_number_id)).toEqual([
      ['phone_number.imported', null],
      ['phone_number.updated', { integration_id: { from, to }, supports_inbound: { from: false, to: true } }],
      [
        'phone_number.updated',
        { assigned_agent_id: { from: null, to: AGENT }, status: { from: 'free', to: 'assigned' } },
      ],
      [
        'phone_number.updated',
        { assigned_agent_id: { from: AGENT, to: null }, status: { from: 'assigned', to: 'free' } },
      ],
    ]);
  });

  it('of an organization’s new tier tells the old one', async () => {
    await newClient({ organization_id: client.organization_id, tier: 'pro' });

    expect(await changesOf(client.organization_id)).toEqual([
      ['organization.updated', { tier: { from: 'enterprise', to: 'pro' } }],
    ]);
  });

  it('outlives its subject and its actor', async () => {
    const { key_id, integration_id } = await journey();
    await env.DB.prepare('DELETE FROM api_keys WHERE key_id = ?').bind(key_id).run();

    expect(await statesOf(key_id, 'api_key.revoked')).toHaveLength(1);
    expect((await call(client, 'GET', `/api/integrations/${integration_id}`)).status).toBe(404);
    expect(await statesOf(integration_id, 'integration.deleted')).toHaveLength(1);
  });
});

describe('a filter of audit events', () => {
  it('by action, target or actor selects exactly theirs', async () => {
    const { integration_id, phone_number_id, key_id } = await journey();
    const second = await newClient({ organization_id: client.organization_id });
    await remove(
      `/api/phone-numbers/${await importNumber(second, await createIntegration(second), unusedNumber())}`,
      second,
    );
    const { data: whole } = await page(client, `${all}?page_size=100`);
    const wanted = {
      action: ['phone_number.deleted', 'integration.created', 'api_key.revoked'],
      target_id: [integration_id, phone_number_id, key_id, 'intg_000000000000'],
      actor_key_id: [client.key_id, second.key_id, 'apikey_000000000000'],
    };

    for (const [name, values] of Object.entries(wanted)) {
      for (const value of values) {
        const selected = whole.filter((event) => event[name] === value);
        const { data, total_count } = await page(client, `${all}?page_size=100&${name}=${value}`);
        expect(data).toEqual(selected);
        expect(total_count).toBe(selected.length);
      }
    }
  });

  it('by another organization’s target or actor finds nothing', async () => {
    const stranger = await newClient();
    const theirs = await createIntegration(stranger);

    expect((await page(client, `${all}?target_id=${theirs}`)).data).toEqual([]);
    expect((await page(client, `${all}?actor_key_id=${stranger.key_id}`)).data).toEqual([]);
  });

  it.each([
    ['an unknown action', 'action=integration.exploded', 'action'],
    ['half an action', 'action=integration', 'action'],
    ['an empty action', 'action=', 'action'],
    ['a malformed target', 'target_id=intg_1', 'target_id'],
    ['an agent as target', 'target_id=agent_0123456789ab', 'target_id'],
    ['a malformed actor', 'actor_key_id=apikey_1', 'actor_key_id'],
    ['an integration as actor', 'actor_key_id=intg_000000000000', 'actor_key_id'],
    ['a date as since', 'since=2024-01-15', 'since'],
    ['a number as since', 'since=1705314600', 'since'],
    ['a local time as since', 'since=2024-01-15T10:30:00', 'since'],
    ['a day that does not exist as until', 'until=2024-02-30T10:30:00Z', 'until'],
    ['an empty until', 'until=', 'until'],
    ['an unknown parameter', 'outcome=refused', 'outcome'],
    ['a repeated action', 'action=integration.created&action=integration.created', 'action'],
    ['a repeated since', 'since=2024-01-15T10:30:00Z&since=2024-01-15T10:30:00Z', 'since'],
  ])('is a 422 by %s', async (_, filter, path) => {
    expect(await call(client, 'GET', `${all}?${filter}`)).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path, message: expect.any(String) }] },
    });
  });
});

describe('a window of audit events', () => {
  const SECOND = Date.parse('2030-01-15T10:30:00Z') / 1000;
  /** In the order of their sequence. */
  const events = {
    longBefore: 0,
    justBefore: SECOND - 1,
    first: SECOND,
    within: SECOND,
    last: SECOND,
    next: SECOND + 1,
    nextLast: SECOND + 1,
    afterNext: SECOND + 2,
  };
  const names = Object.keys(events);
  const idOf = (place: number) => `018d0cab-c440-7abc-9def-00000000000${place}`;

  beforeEach(async () => {
    await env.DB.prepare('DELETE FROM audit_events WHERE organization_id = ?').bind(client.organization_id).run();
    await env.DB.prepare(
      `INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id, state, created_at, sequence) SELECT ?1, '018d0cab-c440-7abc-9def-00000000000' || key, 'integration.created', 'intg_000000000001', NULL, 'request',
         '{"integration_id":"intg_000000000001","organization_id":"org_x","name":"x","provider":"twilio",
           "category":"telephony","status":"active","credentials_version":"v","created_at":0,"updated_at":0}', value, key + 1
       FROM json_each(?2)`,
    )
      .bind(client.organization_id, JSON.stringify(Object.values(events)))
      .run();
  });

  const shown = async (query: string) =>
    (await page(client, `${all}?${query}`)).data.map(({ event_id }) => names[Number(String(event_id).slice(-1))]);

  const at = '2030-01-15T10:30:00Z';
  const next = '2030-01-15T10:30:01Z';
  const inSecond = ['first', 'within', 'last'];
  const inNext = ['next', 'nextLast'];

  it('begins with the first event of its second', async () => {
    expect(await shown(`since=${at}`)).toEqual([...inSecond, ...inNext, 'afterNext']);
    expect(await shown(`since=${next}`)).toEqual([...inNext, 'afterNext']);
  });

  it('ends before the first event of its second', async () => {
    expect(await shown(`until=${at}`)).toEqual(['longBefore', 'justBefore']);
    expect(await shown(`until=${next}`)).toEqual(['longBefore', 'justBefore', ...inSecond]);
  });

  it('of one second has the events of that second', async () => {
    expect(await shown(`since=${at}&until=${next}`)).toEqual(inSecond);
  });

  it.each([
    ['that begins where it ends', `since=${at}&until=${at}`],
    ['that begins after its end', `since=${next}&until=${at}`],
    ['that ends before there were computers', 'until=1000-01-01T00:00:00Z'],
    ['that begins at the end of time', 'since=9999-12-31T23:59:59Z'],
  ])('%s is empty', async (_, query) => {
    expect(await shown(query)).toEqual([]);
  });

  it('that begins before there were computers begins with the first event', async () => {
    expect(await shown('since=1000-01-01T00:00:00Z')).toEqual(names);
    expect(await shown('since=1969-12-31T23:59:59Z')).toEqual(names);
    expect(await shown('since=1970-01-01T00:00:00Z&until=9999-12-31T23:59:59Z')).toEqual(names);
  });

  it('drops the fraction of a second at both ends', async () => {
    expect(await shown('since=2030-01-15T10:30:00.999Z&until=2030-01-15T10:30:01.999Z')).toEqual(inSecond);
  });

  it('is counted and paged as any list, within its bounds', async () => {
    const query = `since=${at}&until=2030-01-15T10:30:02Z`;

    const first = await page(client, `${all}?${query}&page_size=2`);
    const second = await page(client, `${all}?${query}&page_size=2&cursor=${first.next_cursor}`);
    const third = await page(client, `${all}?${query}&page_size=2&cursor=${second.next_cursor}`);

    expect(
      [first, second, third].map(({ data, has_more, total_count }) => [data.length, has_more, total_count]),
    ).toEqual([
      [2, true, 5],
      [2, true, 5],
      [1, false, 5],
    ]);
    expect(third.data).toMatchObject([{ event_id: idOf(names.indexOf('nextLast')) }]);
  });

  it('joins any other filter', async () => {
    expect(await shown(`action=integration.created&since=${at}&until=${next}`)).toEqual(inSecond);
    expect(await shown(`target_id=intg_000000000001&since=${at}&until=${next}`)).toEqual(inSecond);
    expect(await shown(`action=integration.deleted&since=${at}`)).toEqual([]);
  });
});

it('the window of the last minute and the next has the events of now', async () => {
  const integration_id = await createIntegration(client);
  const now = Math.floor(Date.now() / 1000);
  const iso = (seconds: number) => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');

  const { data } = await page(client, `${all}?since=${iso(now - 60)}&until=${iso(now + 60)}`);

  expect(data.map(({ target_id }) => target_id)).toEqual([client.key_id, integration_id]);
});
