/** Every text that clients send, by its kind: names, user names and secrets. What breaks a rule is refused, not repaired. */
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { call, createIntegration, newClient, resources, twilio, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip } from '../mutations.ts';
import { requests } from '../requests.ts';
import type { Member } from '../requests.ts';

interface Field {
  kind: 'name' | 'user name' | 'secret';
  /** The operation and the field's path in the body. */
  field: string;
  body: (value: string) => object;
  /** The provider of the integration that is updated. */
  provider?: keyof typeof credentialsOf;
}

const { account_sid } = twilio;
const api_key_sid = 'SK0123456789abcdef0123456789abcdef';
const auth_id = 'MA0123456789ABCDEFGH';

const credentialsOf = {
  twilio,
  telnyx: { provider: 'telnyx', api_key: 'k' },
  vonage: { provider: 'vonage', api_key: 'k', api_secret: 's' },
  plivo: { provider: 'plivo', auth_id, auth_token: 't' },
};

const credentials = (provider: string, fields: (value: string) => object) => (value: string) => ({
  name: 'x',
  credentials: { provider, ...fields(value) },
});
const sip = (fields: (value: string) => object) => (value: string) => ({
  phone_number: unusedNumber(),
  provider: 'sip',
  ...fields(value),
});

const ofCredentials: [keyof typeof credentialsOf, string, (value: string) => object][] = [
  ['twilio', 'auth_token', credentials('twilio', (auth_token) => ({ account_sid, auth_token }))],
  [
    'twilio',
    'api_key_secret',
    credentials('twilio', (api_key_secret) => ({ account_sid, api_key_sid, api_key_secret })),
  ],
  ['telnyx', 'api_key', credentials('telnyx', (api_key) => ({ api_key }))],
  ['vonage', 'api_key', credentials('vonage', (api_key) => ({ api_key, api_secret: 's' }))],
  ['vonage', 'api_secret', credentials('vonage', (api_secret) => ({ api_key: 'k', api_secret }))],
  [
    'vonage',
    'signature_secret',
    credentials('vonage', (signature_secret) => ({ api_key: 'k', api_secret: 's', signature_secret })),
  ],
  ['plivo', 'auth_token', credentials('plivo', (auth_token) => ({ auth_id, auth_token }))],
];

const ofSipNumbers: [Field['kind'], string, (value: string) => object][] = [
  ['name', 'sip_trunk_name', sip((sip_trunk_name) => ({ sip_trunk_name }))],
  ['name', 'inbound_room_name', sip((inbound_room_name) => ({ inbound_room_name }))],
  ['user name', 'sip_username', sip((sip_username) => ({ sip_username, sip_password: 'p' }))],
  ['secret', 'sip_password', sip((sip_password) => ({ sip_username: 'u', sip_password }))],
];

const fields: Field[] = [
  { kind: 'name', field: 'POST /api/integrations name', body: (name) => ({ name, credentials: twilio }) },
  { kind: 'name', field: 'PUT /api/integrations/{integration_id} name', body: (name) => ({ name }) },
  { kind: 'name', field: 'POST /api/api-keys name', body: (name) => ({ name, role: 'user' }) },
  { kind: 'name', field: 'PUT /api/api-keys/{key_id} name', body: (name) => ({ name }) },
  ...ofSipNumbers.flatMap<Field>(([kind, name, body]) => [
    { kind, field: `POST /api/phone-numbers ${name}`, body },
    { kind, field: `PUT /api/phone-numbers/{phone_number_id} ${name}`, body: (value) => ({ [name]: value }) },
  ]),
  ...ofCredentials.flatMap<Field>(([provider, name, body]) => [
    { kind: 'secret', field: `POST /api/integrations credentials.${name}`, body, provider },
    { kind: 'secret', field: `PUT /api/integrations/{integration_id} credentials.${name}`, body, provider },
  ]),
];

/** The path, of an integration of the provider, of a SIP number that has everything or of the client's own key. */
async function targetOf(client: Client, template: string, provider: keyof typeof credentialsOf) {
  if (template.includes('{integration_id}')) {
    return template.replace('{integration_id}', await createIntegration(client, credentialsOf[provider]));
  }
  if (template.includes('{phone_number_id}')) return template.replace('{phone_number_id}', await importSip(client));
  return template.replace('{key_id}', client.key_id);
}

/** What the rows of a table are answered with: `201`, or `422` and the message for the field. */
async function answersTo({ field, body, provider = 'twilio' }: Field, texts: string[]) {
  const [method = '', template = '', path] = field.split(' ');
  // An organization of its own, because the limit of mutations is for each.
  const client = await newClient();
  const target = await targetOf(client, template, provider);
  const before = await resources();
  const answers: [string, string][] = [];
  for (const value of texts) {
    const { status, body: answer } = await call(client, method, target, { body: body(value) });
    const { errors } = problem.parse(answer);
    expect(errors.map((error) => error.path)).toEqual(errors.map(() => path));
    answers.push([value, [status, ...errors.map(({ message }) => message)].join(' ')]);
  }
  return { answers, before };
}

const problem = z.object({ errors: z.array(z.object({ path: z.string(), message: z.string() })).default([]) });

/** The texts that are not refused with this message, or of which something is left. */
async function notRefused(field: Field, texts: string[], message: string) {
  const { answers, before } = await answersTo(field, texts);
  expect(await resources()).toEqual(before);
  return answers.filter(([, answer]) => answer !== `422 ${message}`);
}

async function notAccepted(field: Field, texts: string[]) {
  const { answers } = await answersTo(field, texts);
  return answers.filter(([, answer]) => !/^(?:200|201)$/.test(answer));
}

const of = (...kinds: Field['kind'][]) => fields.filter(({ kind }) => kinds.includes(kind));

describe.each(fields)('$field', (field) => {
  it('must not begin or end with white space or invisible characters', async () => {
    const invisible = Array.from(' \u00A0\u3000\u200B\u200D\uFEFF\u00AD\u200E\u3164\u2800\u{1D159}\uFE0F\u{E0020}');
    expect(
      await notRefused(
        field,
        invisible.map((character, index) => (index % 2 ? `${character}x` : `x${character}`)),
        'must not begin or end with white space or invisible characters',
      ),
    ).toEqual([]);
  });

  it('must not hold control characters, line separators or lone surrogates', async () => {
    const maximum = field.kind === 'secret' ? 256 : 100;
    const texts = [
      '',
      'a\nb',
      'a\tb',
      'a\0b',
      'a\u007Fb',
      'a\u0085b',
      'a\u2028b',
      'a\u2029b',
      'a\uD83Db',
      'x'.repeat(maximum + 1),
    ];
    expect(
      await notRefused(field, texts, `must be 1 to ${maximum} characters long, without control characters`),
    ).toEqual([]);
  });

  it('may have odd characters inside, and an emoji at its end', async () => {
    expect(
      await notAccepted(field, [
        'x',
        'a$%"\\b\'ü€',
        'O’Brien',
        '東京',
        'x👩‍👩‍👧',
        'x☎️',
        '🏴󠁧󠁢󠁥󠁮󠁧󠁿',
        '辻\u{E0100}',
        'نمونه‌ها',
        'മോഹന്\u200D',
      ]),
    ).toEqual([]);
  });
});

describe.each(of('name', 'user name'))('$field', (field) => {
  it('must be visible', async () => {
    const texts = [
      ' ',
      '   ',
      '\u200B\u200B',
      '\u3164',
      '\u2800\u2800',
      '\u{1D159}',
      '\u00AD',
      '\u0301',
      '\uFE0F',
      '\u{E0061}',
    ];
    expect(await notRefused(field, texts, 'must have at least one visible character')).toEqual([]);
  });

  it('must not change the direction of text', async () => {
    expect(
      await notRefused(
        field,
        Array.from('\u202A\u202B\u202C\u202D\u202E\u2066\u2067\u2068\u2069', (character) => `Main ${character}evil`),
        'must not contain characters that change the direction of text (U+202A to U+202E, U+2066 to U+2069)',
      ),
    ).toEqual([]);
  });
});

describe.each(of('name'))('a name, $field,', (field) => {
  it('must not hold a password', async () => {
    expect(
      await notRefused(
        field,
        ['sip:trunk:S3cr3t@sip.example.com', 'SIPS:trunk:S3cr3t@x', 'see https://user:S3cr3t@example.com/ first'],
        'must not contain a password',
      ),
    ).toEqual([]);
  });

  it('may be any real name', async () => {
    expect(
      await notAccepted(field, [
        'Café ☕ 東京',
        '👩‍👩‍👧 family line',
        'שלום \u200Eabc',
        '“Main” line: support@example.com',
        'https://example.com:8443/@x',
        'sip:trunk@sip.example.com',
        '••••',
        'Bearer line',
      ]),
    ).toEqual([]);
  });
});

describe.each(of('secret', 'user name'))('$field', (field) => {
  it('must not be in typographic quotation marks', async () => {
    expect(
      await notRefused(
        field,
        ['“x”', '„x“', '‘x’', '«x»', '‹x›', '“x', 'x”'],
        'must not begin or end with typographic quotation marks',
      ),
    ).toEqual([]);
  });
});

describe.each(of('secret'))('a secret, $field,', (field) => {
  it('must come without Bearer', async () => {
    expect(
      await notRefused(
        field,
        ['Bearer KEY0123', 'bearer KEY0123', 'BEARER  KEY0123', 'Authorization: Bearer KEY0123', 'Bearer', 'Bearer:x'],
        'must be the key alone, without Bearer',
      ),
    ).toEqual([]);
  });

  it('must not be masked', async () => {
    expect(
      await notRefused(
        field,
        ['••••', '●●●●●●', '****', '••••••••cdef', '****cdef', '····', 'x∙∙∙∙'],
        'must be the secret itself, not the dots that hide it',
      ),
    ).toEqual([]);
  });

  it('may look like many things', async () => {
    expect(
      await notAccepted(field, ['"quoted"', "'x'", 'p•ss', 'a**b', 'Bearerish', 'xxxxxxxx', 'a b', 'x'.repeat(256)]),
    ).toEqual([]);
  });
});

describe.each(of('secret').filter(({ field }) => field.includes('credentials')))('$field', (field) => {
  it.each([
    [account_sid, 'an Account SID'],
    [api_key_sid, 'an API key SID'],
    [auth_id, 'a Plivo Auth ID'],
  ])('must not be %s, which is an id', async (id, name) => {
    expect(await notRefused(field, [id], `must be the secret; this is ${name}`)).toEqual([]);
  });
});

describe.each(of('user name'))('a user name, $field,', (field) => {
  it('must not hold a password', async () => {
    expect(
      await notRefused(
        field,
        ['trunk:S3cr3t', ':x', 'x:', 'trunk%3AS3cr3t', 'trunk%3aS3cr3t', 'sip:trunk@example.com'],
        'must not contain a colon; put the password in sip_password',
      ),
    ).toEqual([]);
  });

  it('must not have white space', async () => {
    expect(await notRefused(field, ['front desk', 'front\u00A0desk'], 'must not contain white space')).toEqual([]);
  });

  it('may be an address, a number or a word', async () => {
    expect(
      await notAccepted(field, ['alice@sip.example.com', '+14155550100', '1001', 'front-desk_1.x', 'Bearer', '••••']),
    ).toEqual([]);
  });
});

describe('the tables', () => {
  it('have every text that the document has in the body of a request', () => {
    const isText = ({ schema: { type, pattern, format, enum: values, const: constant } }: Member) =>
      [type].flat().includes('string') && !pattern && !values && !constant && format !== 'date-time';
    const documented = requests.flatMap(({ method, path, fields: known }) =>
      known.filter(isText).map((member) => `${method} ${path} ${member.path}`),
    );
    const elsewhere = [
      'POST /api/phone-numbers sip_server_address',
      'PUT /api/phone-numbers/{phone_number_id} sip_server_address',
      'POST /api/integrations credentials.private_key',
      'PUT /api/integrations/{integration_id} credentials.private_key',
      ...['url', 'description'].flatMap((name) => [
        `POST /api/webhook-endpoints ${name}`,
        `PUT /api/webhook-endpoints/{endpoint_id} ${name}`,
      ]),
    ];

    expect(new Set(documented)).toEqual(new Set([...fields.map(({ field }) => field), ...elsewhere]));
  });
});
