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
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const all = '/api/phone-numbers';
const read = (phone_number_id: string, by = client) => call(by, 'GET', `${all}/${phone_number_id}`);

const sip = {
  provider: 'sip',
  supports_outbound: true,
  sip_trunk_name: 'Trunk',
  sip_username: 'user',
  sip_password: 'plaintext-password',
  sip_server_address: 'sip.example.com',
  sip_transport: 'tls',
  inbound_room_name: 'room',
  inbound_pin: '0042',
  media_encryption: 'require',
};

async function importSip(by = client): Promise<string> {
  const phone_number = unusedNumber();
  await call(by, 'POST', all, { body: { ...sip, phone_number } });
  return String((await rowOf('phone_numbers', phone_number))['phone_number_id']);
}

describe('a phone number', () => {
  const date = (id: string) =>
    env.DB.prepare(
      `UPDATE phone_numbers SET created_at = unixepoch('2024-01-15T10:30:00Z'), updated_at = unixepoch('2024-01-15T10:30:01Z')
       WHERE phone_number_id = ?`,
    )
      .bind(id)
      .run();

  it('of an integration is answered as it is stored, to the character', async () => {
    const integration_id = await createIntegration(client);
    const phone_number = unusedNumber();
    const phone_number_id = await importNumber(client, integration_id, phone_number);
    await date(phone_number_id);

    const { status, text } = await read(phone_number_id);

    expect(status).toBe(200);
    expect(text).toBe(
      `{"success":true,"data":{"phone_number_id":"${phone_number_id}","client_id":"${client.organization_id}",` +
        `"phone_number":"${phone_number}","provider":"twilio","integration_id":"${integration_id}","status":"free",` +
        '"assigned_agent_id":null,"supports_inbound":false,"supports_outbound":false,"sip_trunk_name":null,' +
        '"sip_username":null,"sip_server_address":null,"sip_transport":null,"inbound_room_name":null,"media_encryption":null,' +
        '"ownership":"unconfirmed","created_at":"2024-01-15T10:30:00Z","updated_at":"2024-01-15T10:30:01Z"}}',
    );
  });

  it('by SIP is answered without its credentials and what leads to them', async () => {
    const phone_number_id = await importSip();
    const row = await rowOf('phone_numbers', phone_number_id);

    const { status, body, text } = await read(phone_number_id);

    expect(status).toBe(200);
    const { sip_password: _, inbound_pin: __, ...visible } = sip;
    expect(body).toMatchObject({ data: { ...visible, integration_id: null, supports_inbound: false } });
    expect(text).not.toMatch(/password|pin|0042|credentials|data_key|kek_id|revision/);
    expect(text).not.toContain(String(row['credentials_version']));
  });

  it('by SIP has any transport where it was imported before there was a choice', async () => {
    const phone_number_id = await importSip();
    await env.DB.prepare('UPDATE phone_numbers SET sip_transport = NULL').run();

    expect(await read(phone_number_id)).toMatchObject({ body: { data: { sip_transport: 'auto' } } });
    expect(await page(client, all)).toMatchObject({ data: [{ phone_number_id, sip_transport: 'auto' }] });
  });

  it.each(['admin', 'agent_manager', 'user'] as const)('is read by a key of role %s', async (role) => {
    const phone_number_id = await importSip();
    const reader = await newClient({ organization_id: client.organization_id, role });

    expect(await read(phone_number_id, reader)).toMatchObject({ status: 200, body: { data: { phone_number_id } } });
  });

  it('is a 404 where it is missing or another organization’s, told apart by nothing', async () => {
    const phone_number_id = await importSip();
    const stranger = await newClient();

    const foreign = await read(phone_number_id, stranger);
    const missing = await read('phon_000000000000', stranger);

    expect(foreign).toMatchObject({ status: 404, body: { code: 'phone_number_not_found' } });
    const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
    expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
  });

  it.each(['phon_', 'phon_A1B2C3D4E5F6', 'phon_00000000000', 'intg_000000000000', '+14155550100'])(
    'is a 422 by the malformed id %s',
    async (malformed) => {
      expect(await read(malformed)).toMatchObject({
        status: 422,
        body: { code: 'validation_failed', errors: [{ path: 'phone_number_id' }] },
      });
    },
  );
});

describe('the list of phone numbers', () => {
  const imported = async (integration_id: string, agent: string | null) => {
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    if (agent) await call(client, 'PUT', `${all}/${phone_number_id}`, { body: { assigned_agent_id: agent } });
    return { phone_number_id, integration_id, status: agent ? 'assigned' : 'free' };
  };

  it('is empty in an organization that has none, whatever others have', async () => {
    await importSip(await newClient());

    expect(await page(client, all)).toMatchObject({
      data: [],
      has_more: false,
      total_count: 0,
      total_count_exact: true,
    });
  });

  it('shows each number as it is read alone', async () => {
    const ids = [await importSip(), await importNumber(client, await createIntegration(client), unusedNumber())];
    const alone = await Promise.all(ids.map(async (id) => JSON.parse((await read(id)).text).data));

    expect((await page(client, all)).data).toEqual(alone);
  });

  it('is in ascending order, whatever the order of the imports', async () => {
    const integration_id = await createIntegration(client);
    const numbers = ['+4930901820', '+14155550100', '+999999999999999', '+10000000', '+14155550100000'];
    for (const phone_number of numbers) await importNumber(client, integration_id, phone_number);

    const { data } = await page(client, all);

    expect(data.map(({ phone_number }) => phone_number)).toEqual(numbers.toSorted());
  });

  it('shows and counts exactly what its filters select, each and both', async () => {
    const [one, other] = [await createIntegration(client), await createIntegration(client)];
    const agent = 'agent_000000000001';
    const numbers = [
      await imported(one, null),
      await imported(one, agent),
      await imported(other, null),
      await imported(other, agent),
      await imported(other, agent),
      { phone_number_id: await importSip(), integration_id: null, status: 'free' },
    ];
    const unused = await createIntegration(client);

    for (const integration_id of [undefined, one, other, unused]) {
      for (const status of [undefined, 'free', 'assigned']) {
        const selected = numbers.filter(
          (number) =>
            (integration_id === undefined || number.integration_id === integration_id) &&
            (status === undefined || number.status === status),
        );
        const query = new URLSearchParams(
          Object.entries({ integration_id, status }).flatMap(([name, value]) => (value ? [[name, value]] : [])),
        );
        const { data, total_count } = await page(client, `${all}?${query.toString()}`);
        expect(data).toEqual(selected.map((number) => expect.objectContaining(number)));
        expect(total_count).toBe(selected.length);
      }
    }
  });

  const shown = async (query: string, by = client) => {
    const { data, total_count } = await page(by, `${all}?${query}`);
    expect(total_count).toBe(data.length);
    return data.map(({ phone_number }) => phone_number);
  };

  it('has a number alone by phone_number, and those that begin alike by phone_number_prefix', async () => {
    const integration_id = await createIntegration(client);
    const numbers = ['+13999999', '+1400000', '+14000000', '+140000009', '+14099999999', '+14100000', '+5400000'];
    for (const phone_number of numbers) await importNumber(client, integration_id, phone_number);

    expect(await shown('phone_number=%2B14000000')).toEqual(['+14000000']);
    expect(await shown('phone_number=%2B140000001')).toEqual([]);
    expect(await shown('phone_number_prefix=%2B140')).toEqual(numbers.slice(1, 5));
    expect(await shown('phone_number_prefix=%2B140&order=desc')).toEqual(numbers.slice(1, 5).toReversed());
    expect(await shown('phone_number_prefix=%2B14000000')).toEqual(['+14000000', '+140000009']);
    expect(await shown('phone_number_prefix=%2B140000009')).toEqual(['+140000009']);
    expect(await shown('phone_number_prefix=%2B9')).toEqual([]);
    expect(await shown('phone_number_prefix=%2B1')).toEqual(numbers.slice(0, 6));
  });

  it('keeps within the prefix from page to page, in both orders', async () => {
    const integration_id = await createIntegration(client);
    for (const phone_number of ['+2700000', '+2710000', '+2710001', '+2720000']) {
      await importNumber(client, integration_id, phone_number);
    }

    for (const [order, numbers] of [
      ['asc', ['+2710000', '+2710001']],
      ['desc', ['+2710001', '+2710000']],
    ] as const) {
      const filtered = `${all}?phone_number_prefix=%2B271&order=${order}&page_size=1`;
      const first = await page(client, filtered);
      const second = await page(client, `${filtered}&cursor=${first.next_cursor}`);
      expect([...first.data, ...second.data].map(({ phone_number }) => phone_number)).toEqual(numbers);
      expect(second).toMatchObject({ next_cursor: null, total_count: 2 });
    }
  });

  it('has the numbers of a provider, sip among them, and those of an agent', async () => {
    const integration_id = await createIntegration(client);
    const [free, held] = [await imported(integration_id, null), await imported(integration_id, 'agent_1')];
    const other = await imported(integration_id, 'agent_2');
    const sipId = await importSip();
    const ids = async (query: string) =>
      (await page(client, `${all}?${query}`)).data.map(({ phone_number_id }) => phone_number_id);

    expect(await ids('provider=twilio')).toEqual([free, held, other].map(({ phone_number_id }) => phone_number_id));
    expect(await ids('provider=sip')).toEqual([sipId]);
    expect(await ids('provider=vonage')).toEqual([]);
    expect(await ids('assigned_agent_id=agent_1')).toEqual([held.phone_number_id]);
    expect(await ids('assigned_agent_id=agent_3')).toEqual([]);
  });

  it('has a number by itself only where the other filters hold too', async () => {
    const phone_number = unusedNumber();
    const integration_id = await createIntegration(client);
    await importNumber(client, integration_id, phone_number);
    const number = `phone_number=${encodeURIComponent(phone_number)}`;

    expect(await shown(`${number}&provider=twilio&status=free&integration_id=${integration_id}`)).toEqual([
      phone_number,
    ]);
    expect(await shown(`${number}&provider=sip`)).toEqual([]);
    expect(await shown(`${number}&status=assigned`)).toEqual([]);
    expect(await shown(`${number}&assigned_agent_id=agent_1`)).toEqual([]);
  });

  it('has no number of another organization, whatever it is asked by', async () => {
    const stranger = await newClient();
    const phone_number = unusedNumber();
    await importNumber(stranger, await createIntegration(stranger), phone_number);

    for (const query of [
      `phone_number=${encodeURIComponent(phone_number)}`,
      `phone_number_prefix=${encodeURIComponent(phone_number.slice(0, 6))}`,
      'provider=twilio',
    ]) {
      expect(await shown(query)).toEqual([]);
      expect(await shown(query, stranger)).toEqual([phone_number]);
    }
  });

  it('says how a plus is written where it came as a space', async () => {
    for (const name of ['phone_number', 'phone_number_prefix']) {
      const { status, body } = await call(client, 'GET', `${all}?${name}=+14155550100`);

      expect(status).toBe(422);
      expect(body).toMatchObject({ errors: [{ path: name, message: expect.stringContaining('(in a URL %2B)') }] });
    }
  });

  it('has nothing of another organization’s integration', async () => {
    const stranger = await newClient();
    const theirs = await createIntegration(stranger);
    await importNumber(stranger, theirs, unusedNumber());

    expect(await page(client, `${all}?integration_id=${theirs}`)).toMatchObject({ data: [], total_count: 0 });
  });

  it.each([
    ['an unknown status', 'status=active', 'status'],
    ['an empty status', 'status=', 'status'],
    ['a malformed integration', 'integration_id=intg_1', 'integration_id'],
    ['an integration that is null', 'integration_id=null', 'integration_id'],
    ['an unknown parameter', 'number=%2B14155550100', 'number'],
    ['another list’s parameter', 'category=telephony', 'category'],
    ['a number without its plus', 'phone_number=14155550100', 'phone_number'],
    ['a number whose plus is not encoded', 'phone_number=+14155550100', 'phone_number'],
    ['a number that is too short', 'phone_number=%2B141555', 'phone_number'],
    ['a prefix without its plus', 'phone_number_prefix=1415', 'phone_number_prefix'],
    ['a prefix whose plus is not encoded', 'phone_number_prefix=+1415', 'phone_number_prefix'],
    ['a plus alone', 'phone_number_prefix=%2B', 'phone_number_prefix'],
    ['a prefix that begins with 0', 'phone_number_prefix=%2B01', 'phone_number_prefix'],
    ['a prefix of 16 digits', 'phone_number_prefix=%2B1234567890123456', 'phone_number_prefix'],
    ['a prefix with a wildcard', 'phone_number_prefix=%2B1%25', 'phone_number_prefix'],
    ['an unknown provider', 'provider=acme', 'provider'],
    ['an agent of another form', 'assigned_agent_id=a1', 'assigned_agent_id'],
    ['an unknown order', 'order=descending', 'order'],
    ['a repeated order', 'order=asc&order=asc', 'order'],
    ['a repeated status', 'status=free&status=free', 'status'],
    ['a repeated integration', 'integration_id=intg_000000000000&integration_id=intg_000000000000', 'integration_id'],
  ])('is a 422 by %s', async (_, filter, path) => {
    await call(client, 'GET', all);
    const before = await everythingKept();

    const { status, body } = await call(client, 'GET', `${all}?${filter}`);

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path, message: expect.any(String) }] });
    expect(await everythingKept()).toEqual(before);
  });

  it('never shows what leads to credentials', async () => {
    await importSip();
    const row = await rowOf('phone_numbers', client.organization_id);

    const { text } = await call(client, 'GET', all);

    expect(text).not.toMatch(/password|pin|0042|credentials|data_key|kek_id|revision/);
    expect(text).not.toContain(String(row['data_key']));
  });
});
