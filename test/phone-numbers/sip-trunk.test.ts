/** What a SIP trunk has: the address of its server, its user and password, and its PIN. */
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { call, newClient, resources, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const importing = (fields: object) =>
  call(client, 'POST', '/api/phone-numbers', { body: { phone_number: unusedNumber(), provider: 'sip', ...fields } });

const refused = z.object({ code: z.literal('validation_failed'), errors: z.array(z.unknown()) });

/** What is wrong with an import, which leaves nothing behind. */
async function faultsOf(fields: object) {
  const before = await resources();
  const { status, body } = await importing(fields);
  expect(status).toBe(422);
  expect(await resources()).toEqual(before);
  return refused.parse(body).errors;
}

const imported = z.object({ data: z.object({ sip_server_address: z.string() }) });

const FORM =
  'must be a host name, an IPv4 address or an [IPv6] address, which may be followed by : and a port from 1 to 65535';
const ALABEL = `${FORM}; write an international name in its A-label form (xn--…)`;
const USER = 'must be a host; put the user in sip_username and the password in sip_password';
const FORBIDDEN = 'must not be a loopback, link-local, multicast, metadata or unspecified address';
const EMBEDDED = 'must have an IPv4 address in its own form, not inside an IPv6 address';
const EDGE_LENGTH = 'must be 1 to 259 characters long, without control characters';

const longestName = `${`${'a'.repeat(62)}.`.repeat(4)}x`;

describe('sip_server_address', () => {
  it.each([
    ['sip.example.com'],
    ['sip.example.com:1'],
    ['sip.example.com:65535'],
    ['sipserver'],
    ['3cx.example.com'],
    ['a-b.example'],
    ['xn--bcher-kva.example'],
    ['example.c0m'],
    ['1.2.3.4.example'],
    [`${'a'.repeat(63)}.example`],
    [longestName],
    [`${longestName}:65535`],
    ['203.0.113.5'],
    ['203.0.113.5:5060'],
    ['10.0.0.1'],
    ['172.16.0.1'],
    ['192.168.1.1:5060'],
    ['100.64.0.1'],
    ['[2001:db8::1]'],
    ['[2001:db8::1]:5060'],
    ['[fd12:3456::1]'],
    ['metadata.example.com'],
    ['localhost.example.com'],
  ])('may be %s', async (sip_server_address) => {
    const { status, body } = await importing({ sip_server_address });

    expect(status).toBe(201);
    expect(imported.parse(body).data.sip_server_address).toBe(sip_server_address);
  });

  it.each([
    ['SIP.Example.COM:5061', 'sip.example.com:5061'],
    ['[2001:DB8::A]', '[2001:db8::a]'],
  ])('is kept in lower case: %s', async (sip_server_address, kept) => {
    expect(imported.parse((await importing({ sip_server_address })).body).data.sip_server_address).toBe(kept);
  });

  it.each([
    ['', EDGE_LENGTH],
    ['sip.example.com\n', EDGE_LENGTH],
    [`x${longestName}:65535`, EDGE_LENGTH],
    [' ', FORM],
    ['not a host', FORM],
    [' sip.example.com', FORM],
    ['sip.example.com ', FORM],
    ['https://sip.example.com', FORM],
    ['//sip.example.com', FORM],
    ['sip:sip.example.com', FORM],
    ['sips:sip.example.com:5061', FORM],
    ['sip.example.com/path', FORM],
    ['/path', FORM],
    ['sip.example.com;transport=tls', FORM],
    ['sip.example.com:5060;transport=udp', FORM],
    ['sip.example.com?x=1', FORM],
    ['sip.example.com:', FORM],
    ['sip.example.com:0', FORM],
    ['sip.example.com:00', FORM],
    ['sip.example.com:05060', FORM],
    ['sip.example.com:65536', FORM],
    ['sip.example.com:99999', FORM],
    ['sip.example.com:-1', FORM],
    ['sip.example.com:5060:5061', FORM],
    ['sip.example.com:sip', FORM],
    [':5060', FORM],
    ['gw1.example.com,gw2.example.com', FORM],
    ['sip.example.com.', FORM],
    ['.example.com', FORM],
    ['sip..example.com', FORM],
    ['-sip.example.com', FORM],
    ['sip-.example.com', FORM],
    ['sip_1.example.com', FORM],
    ['*.example.com', FORM],
    ['sip%2Eexample.com', FORM],
    [`${'a'.repeat(64)}.example`, FORM],
    [`x${longestName}`, FORM],
    ['999.1.1.1', FORM],
    ['1.2.3', FORM],
    ['1.2.3.4.5', FORM],
    ['1.2.3.0/30', FORM],
    ['01.2.3.4', FORM],
    ['2130706433', FORM],
    ['0x7f000001', FORM],
    ['127.1', FORM],
    ['example.123', FORM],
    ['2001:db8::1', FORM],
    ['[2001:db8::1', FORM],
    ['[2001:db8::1]5060', FORM],
    ['[2001:db8::1]:', FORM],
    ['[2001:db8::g]', FORM],
    ['[203.0.113.5]', FORM],
    ['[fe80::1%eth0]', FORM],
    ['[]', FORM],
    ['bücher.example', ALABEL],
    ['sip.example.com\u200B', ALABEL],
    ['\uFEFFsip.example.com', ALABEL],
    ['ｓip.example.com', ALABEL],
    ['sip。example.com', ALABEL],
    ['sip:trunk:S3cr3t@sip.example.com', USER],
    ['trunk@sip.example.com', USER],
    ['@', USER],
    ['127.0.0.1', FORBIDDEN],
    ['127.255.0.1:5060', FORBIDDEN],
    ['0.0.0.0', FORBIDDEN],
    ['0.1.2.3', FORBIDDEN],
    ['169.254.169.254', FORBIDDEN],
    ['169.254.0.1', FORBIDDEN],
    ['224.0.0.1', FORBIDDEN],
    ['255.255.255.255', FORBIDDEN],
    ['100.100.100.200', FORBIDDEN],
    ['168.63.129.16', FORBIDDEN],
    ['metadata.goog', FORBIDDEN],
    ['ip6-localhost', FORBIDDEN],
    ['[fd20:ce::254]', FORBIDDEN],
    ['192.0.0.192', FORBIDDEN],
    ['localhost', FORBIDDEN],
    ['LOCALHOST:5060', FORBIDDEN],
    ['sip.localhost', FORBIDDEN],
    ['localhost.localdomain', FORBIDDEN],
    ['metadata.google.internal', FORBIDDEN],
    ['[::1]', FORBIDDEN],
    ['[::]', FORBIDDEN],
    ['[fe80::1]', FORBIDDEN],
    ['[ff02::1]', FORBIDDEN],
    ['[fd00:ec2::254]', FORBIDDEN],
    ['[::ffff:127.0.0.1]', EMBEDDED],
    ['[::ffff:7f00:1]', EMBEDDED],
    ['[::7f00:1]', EMBEDDED],
    ['[64:ff9b::a9fe:a9fe]', EMBEDDED],
    ['[2001:db8::1.2.3.4]', EMBEDDED],
    ['[2001:db8::1.2.03.4]', FORM],
    ['[2002:7f00:1::]', EMBEDDED],
  ])('must not be %j', async (sip_server_address, message) => {
    expect(await faultsOf({ sip_server_address })).toEqual([{ path: 'sip_server_address', message }]);
  });
});

describe('inbound_pin', () => {
  it.each(['0042', '1234567890', '0000'])('may be %s', async (inbound_pin) => {
    expect((await importing({ inbound_pin })).status).toBe(201);
  });

  it.each([
    '',
    '123',
    '12345678901',
    'abcd',
    '    ',
    '12 34',
    ' 1234',
    '1234\n',
    '１２３４',
    '٠٠٤٢',
    '1️⃣2️⃣3️⃣4️⃣',
    '12-34',
    '+1234',
    '1234#',
  ])('must not be %j', async (inbound_pin) => {
    expect(await faultsOf({ inbound_pin })).toEqual([
      { path: 'inbound_pin', message: 'must be 4 to 10 digits, 0 to 9' },
    ]);
  });
});

describe('a trunk', () => {
  it.each([
    ['neither user nor password', {}],
    ['both', { sip_username: 'user', sip_password: 'p' }],
    ['neither, as null', { sip_username: null, sip_password: null }],
  ])('may have %s', async (_, fields) => {
    expect((await importing(fields)).status).toBe(201);
  });

  it.each([
    ['a user alone', { sip_username: 'user' }, 'sip_password', 'is required if sip_username is given'],
    ['a password alone', { sip_password: 'p' }, 'sip_username', 'is required if sip_password is given'],
    [
      'a user and no password',
      { sip_username: 'user', sip_password: null },
      'sip_password',
      'is required if sip_username is given',
    ],
  ])('must not have %s', async (_, fields, path, message) => {
    expect(await faultsOf(fields)).toEqual([{ path, message }]);
  });
});
