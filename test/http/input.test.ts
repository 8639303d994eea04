/** What is wrong with a request is said so that its sender can mend it: for every operation of the document. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import {
  call,
  createIntegration,
  emptyStorage,
  importNumber,
  newClient,
  resources,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { deadDelivery } from '../mutations.ts';
import { requests } from '../requests.ts';
import type { Member } from '../requests.ts';

let client: Client;
let before: object;
let isAccepted: boolean;
let ids: Record<string, string>;

// An organization of its own for each test, because the limit of mutations is for each.
beforeEach(async () => {
  await emptyStorage();
  client = await newClient();
  const integration_id = await createIntegration(client);
  const phone_number_id = await importNumber(client, integration_id, unusedNumber());
  const { key_id } = await newClient({ organization_id: client.organization_id, role: 'user' });
  const [, , , endpoint_id = '', , delivery_id = ''] = (await deadDelivery(client)).split('/');
  ids = { integration_id, phone_number_id, key_id, endpoint_id, delivery_id };
  before = await resources();
  isAccepted = false;
});

// A test in which every request was refused has changed nothing.
afterEach(async () => {
  if (isAccepted || JSON.stringify(await resources()) === JSON.stringify(before)) return;
  throw new Error('A request that was refused has changed something.');
});

async function send(method: string, path: string, options: { body?: unknown; headers?: Record<string, string> } = {}) {
  const answer = await call(client, method, path, options);
  if (answer.status < 400 && method !== 'GET') isAccepted = true;
  return answer;
}

const concrete = (path: string) => path.replaceAll(/\{(\w+)\}/g, (_, name: string) => ids[name] ?? '');

const refused = z.object({
  code: z.literal('validation_failed'),
  detail: z.string(),
  errors: z.array(z.object({ path: z.string(), message: z.string() })),
});

async function faultsOf(method: string, path: string, body?: unknown) {
  const answer = await send(method, path, { body });
  expect(answer.status).toBe(422);
  return refused.parse(answer.body);
}

/** The one message for a member. */
async function messageFor(member: string, method: string, path: string, body?: unknown) {
  const { errors } = await faultsOf(method, path, body);
  return errors.filter((error) => error.path === member).map(({ message }) => message);
}

const camelCase = (name: string) => name.replaceAll(/_(.)/g, (_, letter: string) => letter.toUpperCase());

const valid: Record<string, object> = {
  'POST /api/integrations': { name: 'Known', credentials: twilio },
  'PUT /api/integrations/{integration_id}': { name: 'Known' },
  'POST /api/phone-numbers': { phone_number: '+14155550100', provider: 'sip' },
  'POST /api/phone-numbers/bulk': { integration_id: 'intg_000000000000', phone_numbers: ['+14155550100'] },
  'POST /api/phone-numbers/bulk-update': { phone_number_ids: ['phon_000000000000'], set: { supports_inbound: true } },
  'POST /api/phone-numbers/bulk-delete': { phone_number_ids: ['phon_000000000000'] },
  'PUT /api/phone-numbers/{phone_number_id}': { supports_inbound: true },
  'POST /api/api-keys': { name: 'Known', role: 'user' },
  'PUT /api/api-keys/{key_id}': { name: 'Known' },
  'POST /api/api-keys/{key_id}/rotate': { overlap_seconds: 60 },
  'POST /api/webhook-endpoints': { url: 'https://hooks.example.com/', events: ['*'] },
  'PUT /api/webhook-endpoints/{endpoint_id}': { enabled: true },
  'POST /api/webhook-endpoints/{endpoint_id}/rotate-secret': { overlap_seconds: 60 },
};
const withBody = requests.filter(({ fields }) => fields.length > 0);
const ofApi = requests.filter(({ path }) => path.startsWith('/api'));

it('there is a valid body for every operation that has one', () => {
  expect(withBody.map(({ method, path }) => `${method} ${path}`).toSorted()).toEqual(Object.keys(valid).toSorted());
});

describe.each(withBody)('an unknown field of $method $path', ({ method, path, fields }) => {
  const body = valid[`${method} ${path}`];

  it.each([
    ['frobnicate', '`frobnicate` is not a known field'],
    ['a.b-C_9', '`a.b-C_9` is not a known field'],
    ['x'.repeat(64), `\`${'x'.repeat(64)}\` is not a known field`],
    ['__proto__', '`__proto__` is not a known field'],
    ['constructor', '`constructor` is not a known field'],
  ])('is named: %s', async (name, message) => {
    const { errors, detail } = await faultsOf(
      method,
      concrete(path),
      `${JSON.stringify(body).slice(0, -1)},"${name}":1}`,
    );

    expect(errors).toEqual([{ path: name, message }]);
    expect(detail).toBe(`The request is not valid: ${message}.`);
  });

  it.each(['x'.repeat(65), 'a b', '<script>', 'é', '', 'plaintext secret'])('is not named: %j', async (name) => {
    const message = 'a field whose name is not shown is not a known field';

    const { errors } = await faultsOf(method, concrete(path), { ...body, [name]: 1 });

    expect(errors).toEqual([{ path: '', message }]);
  });

  it('is asked about where it is nearly a known one', async () => {
    // An import by SIP, which is the valid body here, has no integration.
    const names = new Set(fields.map((field) => field.path).filter((name) => !name.includes('.') && name.length > 4));
    const top = [...names].filter((name) => method === 'PUT' || name !== 'integration_id');
    for (const name of top) {
      const variants = [camelCase(name), name.toUpperCase(), name.replaceAll('_', '-'), `${name}s`, name.slice(1)];
      for (const variant of variants.filter((other) => !top.includes(other))) {
        const message = `\`${variant}\` is not a known field; did you mean \`${name}\`?`;
        const { errors } = await faultsOf(method, concrete(path), { ...body, [variant]: 1 });
        expect(errors).toEqual([{ path: variant, message }]);
      }
    }
  });

  it('is one of thousands: the first 10 are named, the others counted', async () => {
    const many = Object.fromEntries(Array.from({ length: 3000 }, (_, index) => [`unknown_${index}`, 1]));

    const { errors } = await faultsOf(method, concrete(path), { ...body, ...many });

    expect(errors).toHaveLength(11);
    expect(errors.at(-1)).toEqual({ path: '', message: '2990 more fields are not known' });
  });
});

it('an unknown field is named by its path, in credentials too', async () => {
  const credentials = { ...twilio, authToken: 'plaintext' };

  const { errors } = await faultsOf('POST', '/api/integrations', { name: 'x', credentials });

  const message = '`credentials.authToken` is not a known field; did you mean `auth_token`?';
  expect(errors).toEqual([{ path: 'credentials.authToken', message }]);
});

describe('one fault', () => {
  const AC = 'AC0123456789abcdef0123456789abcdef';
  const sip = { phone_number: '+14155550100', provider: 'sip' };

  it.each<[string, string, object, string]>([
    ['PUT', '/api/integrations/{integration_id}', { nam: 'x' }, '`nam` is not a known field; did you mean `name`?'],
    ['PUT', '/api/phone-numbers/{phone_number_id}', { colour: 1 }, '`colour` is not a known field.'],
    [
      'POST',
      '/api/integrations',
      { Name: 'x', credentials: twilio },
      '`Name` is not a known field; did you mean `name`?',
    ],
    [
      'POST',
      '/api/integrations',
      { name: 'x', credentials: { provider: 'twilio', account_sid: AC, authToken: 'x' } },
      '`credentials.authToken` is not a known field; did you mean `auth_token`?',
    ],
    [
      'POST',
      '/api/phone-numbers',
      { ...sip, sip_username: 'u', sipPassword: 'p' },
      '`sipPassword` is not a known field; did you mean `sip_password`?',
    ],
    ['POST', '/api/phone-numbers', { ...sip, integrationId: 'intg_1' }, '`integrationId` is not a known field.'],
    [
      'POST',
      '/api/phone-numbers',
      { ...sip, provider: 'twilio', integration_id: 'intg_000000000000', sipUsername: 'u' },
      '`sipUsername` is not a known field.',
    ],
  ])('of %s %s has one message: %j', async (method, path, body, message) => {
    const { errors, detail } = await faultsOf(method, concrete(path), body);

    expect(errors).toHaveLength(1);
    expect(detail).toBe(`The request is not valid: ${message}`);
  });

  it('of a query string is not said to be of a body', async () => {
    const { errors, detail } = await faultsOf('GET', '/api/integrations?page%5Bsize%5D=1');

    const message = 'a parameter whose name is not shown is not a known parameter';
    expect(errors).toEqual([{ path: '', message }]);
    expect(detail).toBe(`The request is not valid: ${message}.`);
  });

  it('is told from the next one', async () => {
    const { detail } = await faultsOf('POST', '/api/integrations', { Name: 'x', credentials: {}, nothing: 1 });

    expect(detail).toBe(
      'The request is not valid: credentials.provider: is required; `Name` is not a known field; did you mean `name`? ' +
        '`nothing` is not a known field.',
    );
  });
});

/** What is wrong with a parameter that is a number, if it is none. */
const ofNumbers: Record<string, string> = {
  page_size: 'must be an integer from 1 to 100, given once',
  expect_references: 'must be a whole number of phone numbers, 0 or more, given once',
};

/** The parameters that a call needs. */
const needed: Record<string, string> = {
  'POST /api/webhook-endpoints/{endpoint_id}/replay': '&since=2024-01-15T10:30:00Z',
};

describe.each(ofApi)('the query string of $method $path', ({ method, path, query }) => {
  const body = valid[`${method} ${path}`];
  const others = needed[`${method} ${path}`] ?? '';

  it('names an unknown parameter, once, however often it is given', async () => {
    const { errors } = await faultsOf(method, `${concrete(path)}?frobnicate=1&frobnicate=2${others}`, body);

    expect(errors).toEqual([{ path: 'frobnicate', message: '`frobnicate` is not a known parameter' }]);
  });

  it('asks about a parameter that is nearly a known one', async () => {
    for (const { path: name } of query.filter((member) => camelCase(member.path) !== member.path)) {
      const { errors } = await faultsOf(method, `${concrete(path)}?${camelCase(name)}=1`, body);
      const message = `\`${camelCase(name)}\` is not a known parameter; did you mean \`${name}\`?`;
      expect(errors).toEqual([{ path: camelCase(name), message }]);
    }
  });

  it('has each parameter once', async () => {
    for (const { path: name } of query) {
      const message = await messageFor(name, method, `${concrete(path)}?${name}=1&${name}=1`, body);
      expect(message).toEqual([ofNumbers[name] ?? 'must be given once']);
    }
  });
});

describe.each(ofApi.filter(({ query }) => query.some(({ path }) => path === 'page_size')))(
  'page_size of $path',
  ({ path }) => {
    it.each(['0', '101', '-1', '1.5', '1e2', '0x10', '20abc', ' 5', '5 ', '+5', '05', '', 'ten', '٥', '9'.repeat(400)])(
      'is one and the same message for %j',
      async (value) => {
        const { errors } = await faultsOf('GET', `${concrete(path)}?page_size=${encodeURIComponent(value)}`);

        expect(errors).toEqual([{ path: 'page_size', message: 'must be an integer from 1 to 100, given once' }]);
      },
    );
  },
);

/** Every member with a fixed set of values, but for `provider`, on which the other fields depend. */
const enumerations = ofApi
  .flatMap(({ method, path, query, fields }) => [
    ...query.map((member) => ({ method, path, place: 'query', ...enumeration(member) })),
    ...fields.map((member) => ({ method, path, place: 'body', ...enumeration(member) })),
  ])
  .filter(({ values, member, place }) => values.length > 0 && (place === 'query' || !member.endsWith('provider')));

function enumeration({ path, schema }: Member) {
  const values = z.array(z.string().nullable()).default([]).parse(schema['enum']);
  return { member: path, values: values.filter((value) => value !== null) };
}

/** A body's member, or one of the credentials of twilio. */
function withMember(member: string, value: string): object {
  const [, credential] = /^credentials\.(.+)$/.exec(member) ?? [];
  return credential === undefined ? { [member]: value } : { credentials: { ...twilio, [credential]: value } };
}

describe.each(enumerations)('$member in the $place of $method $path', ({ method, path, place, member, values }) => {
  it.each(['no-such-value', '', 'NO'])('lists its values for %j', async (value) => {
    const body = valid[`${method} ${path}`];
    const message = await (place === 'query'
      ? messageFor(member, method, `${concrete(path)}?${member}=${value}`, body)
      : messageFor(member, method, concrete(path), { ...body, ...withMember(member, value) }));

    expect(message).toEqual([`must be one of ${values.join(', ')}`]);
  });
});

describe.each([
  ['POST /api/integrations', 'credentials.provider', 'must be one of twilio, telnyx, vonage, plivo'],
  ['PUT /api/integrations/{integration_id}', 'credentials.provider', 'must be one of twilio, telnyx, vonage, plivo'],
  ['POST /api/phone-numbers', 'provider', 'must be one of twilio, telnyx, vonage, plivo, sip'],
])('the provider of %s', (operation, member, message) => {
  const [method = '', path = ''] = operation.split(' ');

  it.each([
    ['absent', {}, 'is required'],
    ['null', { provider: null }, 'must not be null'],
    ['unknown', { provider: 'nexmo' }, message],
    ['in capitals', { provider: 'Twilio' }, message],
    ['a number', { provider: 1 }, message],
    ['what every object has', { provider: 'constructor' }, message],
  ])('is told where it is %s', async (_, given, expected) => {
    const body = member === 'provider' ? given : { name: 'x', credentials: given };

    expect(await messageFor(member, method, concrete(path), body)).toEqual([expected]);
  });
});

describe('a field that is null', () => {
  const mayBeNull = ({ schema }: Member) => [schema['type']].flat().includes('null') || 'anyOf' in schema;
  /** Null as if they were absent: another alternative has no such field. */
  const ofOneAlternative = ['integration_id', 'phone_number_ids'];
  const never = withBody.flatMap(({ method, path, fields }) =>
    fields
      .filter((field) => !field.path.includes('.') && !mayBeNull(field) && !ofOneAlternative.includes(field.path))
      .map((field) => ({ method, path, field: field.path })),
  );

  it.each(never)('is refused where it cannot be null: $field of $method $path', async ({ method, path, field }) => {
    const { errors } = await faultsOf(method, concrete(path), { ...valid[`${method} ${path}`], [field]: null });

    expect(errors.filter((error) => error.path === field)).toEqual([{ path: field, message: 'must not be null' }]);
  });

  const sip = { phone_number: '', provider: 'sip' };
  const ofSip = [
    'integration_id',
    'supports_inbound',
    'supports_outbound',
    'sip_trunk_name',
    'sip_username',
    'sip_password',
    'sip_server_address',
    'sip_transport',
    'inbound_room_name',
    'inbound_pin',
    'media_encryption',
  ];
  const created = z.object({ data: z.record(z.string(), z.unknown()) });
  const shown = async (path: string, body: object) => {
    const { status, body: answer } = await send('POST', path, { body });
    expect(status).toBe(201);
    const {
      phone_number_id: _,
      phone_number: __,
      created_at: ___,
      updated_at: ____,
      ...rest
    } = created.parse(answer).data;
    return rest;
  };

  it.each(ofSip)('is as if absent in an import by SIP: %s', async (field) => {
    const absent = await shown('/api/phone-numbers', { ...sip, phone_number: unusedNumber() });

    expect(await shown('/api/phone-numbers', { ...sip, phone_number: unusedNumber(), [field]: null })).toEqual(absent);
  });

  it('is as if absent in an import through an integration: those of SIP', async () => {
    const { integration_id } = ids;
    const number = { provider: 'twilio', integration_id };
    const nulls = Object.fromEntries(ofSip.filter((name) => name !== 'integration_id').map((name) => [name, null]));
    const absent = await shown('/api/phone-numbers?verify=false', { ...number, phone_number: unusedNumber() });

    const withNulls = await shown('/api/phone-numbers?verify=false', {
      ...nulls,
      ...number,
      phone_number: unusedNumber(),
    });

    expect(withNulls).toEqual(absent);
  });

  it.each([
    [{ ...twilio, api_key_sid: null, api_key_secret: null }],
    [{ ...twilio, auth_token: null, api_key_sid: 'SK0123456789abcdef0123456789abcdef', api_key_secret: 'x' }],
  ])('is as if absent in credentials', async (credentials) => {
    const { status } = await send('POST', '/api/integrations', { body: { name: 'x', credentials } });

    expect(status).toBe(201);
  });

  it('is as if absent as the expiry of a key', async () => {
    const body = { name: 'x', role: 'user', expires_at: null };

    expect(await send('POST', '/api/api-keys', { body })).toMatchObject({
      status: 201,
      body: { data: { key: { expires_at: null } } },
    });
  });

  it('is the same request under an Idempotency-Key as one without the field', async () => {
    const headers = { 'Idempotency-Key': crypto.randomUUID() };
    const body = { ...sip, phone_number: unusedNumber() };
    await send('POST', '/api/phone-numbers', { headers, body });

    const again = await send('POST', '/api/phone-numbers', { headers, body: { ...body, sip_username: null } });

    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
  });

  it('empties what may be empty, and changes nothing where that is empty already', async () => {
    const { body } = await send('POST', '/api/phone-numbers', {
      body: { ...sip, phone_number: unusedNumber() },
    });
    const path = `/api/phone-numbers/${String(created.parse(body).data['phone_number_id'])}`;
    const changed = { integration_id: null, assigned_agent_id: 'agent_1', supports_inbound: true };

    for (const [sent, data] of [
      [changed, { integration_id: null, assigned_agent_id: 'agent_1', status: 'assigned', supports_inbound: true }],
      [{ integration_id: null }, { integration_id: null, assigned_agent_id: 'agent_1', supports_inbound: true }],
      [{ assigned_agent_id: null }, { integration_id: null, assigned_agent_id: null, status: 'free' }],
      [
        { assigned_agent_id: null, integration_id: null },
        { assigned_agent_id: null, status: 'free' },
      ],
    ]) {
      expect(await send('PUT', path, { body: sent })).toMatchObject({ status: 200, body: { data } });
    }
  });

  it('does not take a number away from its integration', async () => {
    const path = `/api/phone-numbers/${ids['phone_number_id']}`;

    for (const body of [{ integration_id: null }, { integration_id: null, supports_inbound: true }]) {
      const { errors } = await faultsOf('PUT', path, body);
      expect(errors).toEqual([{ path: 'integration_id', message: 'must not be null' }]);
    }
  });
});

describe('a time', () => {
  const times: [string, string][] = [
    ['2029-01-15T10:30:00Z', '2029-01-15T10:30:00Z'],
    ['2029-01-15T10:30:00+00:00', '2029-01-15T10:30:00Z'],
    ['2029-01-15T10:30:00-00:00', '2029-01-15T10:30:00Z'],
    ['2029-01-15T12:30:00+02:00', '2029-01-15T10:30:00Z'],
    ['2029-01-15T00:30:00-10:00', '2029-01-15T10:30:00Z'],
    ['2029-01-16T00:15:00+13:45', '2029-01-15T10:30:00Z'],
    ['2029-01-15t10:30:00z', '2029-01-15T10:30:00Z'],
    ['2029-01-15T10:30:00.999999999Z', '2029-01-15T10:30:00Z'],
    ['2028-12-31T23:59:60Z', '2029-01-01T00:00:00Z'],
    ['2029-01-01T01:59:60.5+02:00', '2029-01-01T00:00:00Z'],
  ];

  it.each(times)('may be %s, which is kept in UTC', async (time, kept) => {
    const body = { name: 'x', role: 'user', expires_at: time };

    expect(await send('POST', '/api/api-keys', { body })).toMatchObject({
      status: 201,
      body: { data: { key: { expires_at: kept } } },
    });
  });

  it.each(times)('may be %s in a query string, where it means the same', async (time, kept) => {
    const read = async (since: string) =>
      (
        await call(
          client,
          'GET',
          `/api/audit-events?since=${encodeURIComponent(since)}&until=${encodeURIComponent(since)}`,
        )
      ).text;

    expect(await read(time)).toBe(await read(kept));
  });

  const wrong = [
    '2029-01-15',
    '2029-01-15T10:30:00',
    '2029-01-15 10:30:00Z',
    '2029-01-15T10:30Z',
    '2029-01-15T24:00:00Z',
    '2029-01-15T10:60:00Z',
    '2029-01-15T10:30:61Z',
    '2029-01-15T10:30:60Z',
    '2029-02-29T10:30:00Z',
    '2029-13-01T10:30:00Z',
    '2029-01-15T10:30:00+24:00',
    '2029-01-15T10:30:00+0200',
    '2029-01-15T10:30:00+02',
    '2029-01-15T10:30:00 +02:00',
    'Mon, 15 Jan 2029 10:30:00 GMT',
    '1863167400',
    '12029-01-15T10:30:00Z',
    '9999-12-31T23:59:60Z',
    '9999-12-31T23:59:59-01:00',
    '0000-01-01T00:00:00+01:00',
    '',
  ];
  it.each(wrong)('must not be %j', async (time) => {
    const message = 'must be an RFC 3339 time, like 2030-01-15T10:30:00Z or 2030-01-15T12:30:00+02:00';

    expect(
      await messageFor('expires_at', 'POST', '/api/api-keys', { name: 'x', role: 'user', expires_at: time }),
    ).toEqual([message]);
    for (const name of ['since', 'until']) {
      const { errors } = await faultsOf('GET', `/api/audit-events?${name}=${encodeURIComponent(time)}`);
      expect(errors).toEqual([{ path: name, message: `${message.replace('+', '%2B')}, with + written as %2B` }]);
    }
  });
});

describe('a body', () => {
  const sendWith = (headers: Record<string, string>) =>
    send('POST', '/api/integrations', { body: { name: 'x', credentials: twilio }, headers });

  it.each([
    { 'Content-Type': 'application/json; charset=utf-8' },
    { 'Content-Type': 'application/json;charset=UTF-8' },
    { 'Content-Type': 'application/json; charset="utf-8"' },
    { 'Content-Type': 'Application/JSON; version=1; Charset=UTF8' },
    { 'Content-Encoding': 'identity' },
    { 'Content-Encoding': '' },
  ])('may be sent with %j', async (headers) => {
    expect((await sendWith(headers)).status).toBe(201);
  });

  it.each([
    [{ 'Content-Encoding': 'gzip' }, 'identity'],
    [{ 'Content-Encoding': 'GZIP' }, 'identity'],
    [{ 'Content-Encoding': 'br' }, 'identity'],
    [{ 'Content-Encoding': 'deflate, gzip' }, 'identity'],
    [{ 'Content-Encoding': 'identity, gzip' }, 'identity'],
    [{ 'Content-Type': 'application/json; charset=utf-16' }, null],
    [{ 'Content-Type': 'application/json; charset=iso-8859-1' }, null],
    [{ 'Content-Type': 'application/json; charset="latin1"' }, null],
    [{ 'Content-Type': 'application/json; charset=' }, null],
    [{ 'Content-Type': 'application/json; charset=utf-8; charset=latin1' }, null],
    [{ 'Content-Type': 'application/json; charset = latin1' }, null],
    [{ 'Content-Type': 'text/json' }, null],
    [{ 'Content-Type': 'application/merge-patch+json' }, null],
    [{ 'Content-Type': 'application/json, application/json' }, null],
  ])('is not supported with %j', async (headers, accepted) => {
    const answer = await sendWith(headers);

    expect(answer.status).toBe(415);
    expect(answer.body).toMatchObject({ code: 'unsupported_media_type' });
    expect(answer.headers.get('Accept-Encoding')).toBe(accepted);
  });
});

describe('the id of an agent', () => {
  const assign = (assigned_agent_id: string) =>
    send('PUT', `/api/phone-numbers/${ids['phone_number_id']}`, { body: { assigned_agent_id } });

  it.each([
    'agent_1',
    'agent_7b1b5b2e-1c1d-4a3b-9a53-0123456789ab',
    'agent_0123456789ab',
    'agent_Ab-9_',
    `agent_${'x'.repeat(64)}`,
  ])('may be %s', async (agent) => {
    expect(await assign(agent)).toMatchObject({ status: 200, body: { data: { assigned_agent_id: agent } } });
  });

  it.each([
    'agent_',
    `agent_${'x'.repeat(65)}`,
    'agent-1',
    'Agent_1',
    'phon_0123456789ab',
    'agent_a b',
    'agent_é',
    'agent_a\n',
    'agent_a/b',
    '',
  ])('must not be %j', async (agent) => {
    const { errors } = await faultsOf('PUT', `/api/phone-numbers/${ids['phone_number_id']}`, {
      assigned_agent_id: agent,
    });

    const message = 'must be agent_ followed by 1 to 64 of A–Z, a–z, 0–9, _ and -';
    expect(errors).toEqual([{ path: 'assigned_agent_id', message }]);
  });
});

describe('an id of a provider', () => {
  const AC = 'AC0123456789abcdef0123456789abcdef';
  const SK = 'SK0123456789ABCDEF0123456789abcdef';
  const MA = 'MA0123456789ABCDEFGH';
  const isAccount = 'must be AC followed by 32 hex digits';
  const isKey = 'must be SK followed by 32 hex digits';
  const isAuthId = 'must be MA or SA followed by 18 of A–Z and 0–9';
  const byToken = (account_sid: string) => ({ provider: 'twilio', account_sid, auth_token: 'x' });
  const byKey = (api_key_sid: string) => ({ provider: 'twilio', account_sid: AC, api_key_sid, api_key_secret: 'x' });
  const plivo = (auth_id: string) => ({ provider: 'plivo', auth_id, auth_token: 'x' });

  it.each([byToken(AC), byKey(SK), plivo(MA), plivo('SA0123456789ABCDEFGH')])('may be in %j', async (credentials) => {
    expect((await send('POST', '/api/integrations', { body: { name: 'x', credentials } })).status).toBe(201);
  });

  it.each([
    [byToken('foo'), 'account_sid', isAccount],
    [byToken(AC.toLowerCase()), 'account_sid', isAccount],
    [byToken(` ${AC}`), 'account_sid', isAccount],
    [byToken(AC.slice(1)), 'account_sid', isAccount],
    [byToken(AC + AC), 'account_sid', isAccount],
    [byToken(AC.replace('f', 'g')), 'account_sid', isAccount],
    [byToken(SK), 'account_sid', `${isAccount}: this is an API key SID; an Account SID begins with AC`],
    [byToken(MA), 'account_sid', `${isAccount}: this is a Plivo Auth ID; an Account SID begins with AC`],
    [byKey('foo'), 'api_key_sid', isKey],
    [byKey(''), 'api_key_sid', isKey],
    [byKey(`${SK}\n`), 'api_key_sid', isKey],
    [byKey(AC), 'api_key_sid', `${isKey}: this is an Account SID; an API key SID begins with SK`],
    [plivo('+14155550100'), 'auth_id', isAuthId],
    [plivo('MA0123456789abcdefgh'), 'auth_id', isAuthId],
    [plivo(MA.slice(1)), 'auth_id', isAuthId],
    [plivo(AC), 'auth_id', `${isAuthId}: this is an Account SID; a Plivo Auth ID begins with MA or SA`],
  ])('is told from what is none in %j', async (credentials, field, message) => {
    for (const [method, path] of [
      ['POST', '/api/integrations'],
      ['PUT', `/api/integrations/${ids['integration_id']}`],
    ] as const) {
      const { errors } = await faultsOf(method, path, { name: 'x', credentials });
      expect(errors).toEqual([{ path: `credentials.${field}`, message }]);
    }
  });
});
