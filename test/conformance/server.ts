/** The server that all files share, as one file sees it: organizations of its own, by HTTP and from behind. */
import { randomBytes, randomInt } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { beforeEach, expect, inject, vi } from 'vitest';
import * as z from 'zod';
import { displayedPrefix, hashKey, newRawKey } from '../../src/worker/callers/raw-key.ts';
import type { Role, Tier } from '../../src/worker/core/vocabulary.ts';
import { assertDocumented } from '../documented.ts';

/** A last net under a wait for what must come. */
export const LAST_NET = { timeout: 240_000, interval: 50 };

const rawResult = z.object({
  result: z.tuple([
    z.object({ results: z.object({ columns: z.array(z.string()), rows: z.array(z.array(z.unknown())) }) }),
  ]),
});
const keyList = z.object({
  result: z.array(z.object({ name: z.string() })),
  result_info: z.object({ cursor: z.literal('').optional() }),
});

type Table = 'organizations' | 'api_keys' | 'integrations' | 'phone_numbers' | 'credential_purges';

/**
 * What organizations have in D1 and KV, through the REST API that `wrangler dev` serves beside the Worker: one process, one
 * connection. A second process on the same files makes SQLite busy, because local D1 writes a bookmark even for a read.
 *
 * @param organizations may grow later
 */
export function stateBehind(url: string, organizations: readonly string[]) {
  const api = `${url}/cdn-cgi/local/explorer/api`;
  const ciphertextValues = `${api}/storage/kv/namespaces/CREDENTIALS`;

  async function ask(address: string, body?: object): Promise<Response> {
    const headers = { 'Content-Type': 'application/json' };
    const response = await fetch(address, body ? { method: 'POST', headers, body: JSON.stringify(body) } : {});
    if (!response.ok) throw new Error(await response.text());
    return response;
  }

  /** That API takes parameters as strings; columns are STRICT and make numbers of them. */
  async function query(sql: string, ...params: string[]): Promise<Record<string, unknown>[]> {
    const response = await ask(`${api}/d1/database/DB/raw`, { sql, params });
    const [{ results }] = rawResult.parse(await response.json()).result;
    return results.rows.map((row) => Object.fromEntries(results.columns.map((column, index) => [column, row[index]])));
  }

  const rows = (table: Table) =>
    query(
      `SELECT * FROM ${table} WHERE organization_id IN (SELECT value FROM json_each(?))`,
      JSON.stringify(organizations),
    );

  async function keysOf(organization_id: string): Promise<string[]> {
    const listed = await ask(`${ciphertextValues}/keys?prefix=v1/${organization_id}/`);
    return keyList.parse(await listed.json()).result.map(({ name }) => name);
  }

  /** The bytes in CREDENTIALS by key, each byte a character. */
  async function ciphertexts(): Promise<Record<string, string>> {
    const keys = (await Promise.all(organizations.map(keysOf))).flat();
    const entries = keys.map(async (name) => {
      const value = await ask(`${ciphertextValues}/values/${encodeURIComponent(name)}`);
      return [name, Buffer.from(await value.arrayBuffer()).toString('latin1')] as const;
    });
    return Object.fromEntries(await Promise.all(entries));
  }

  /** Waits until the outbox is empty: credentials are purged after the answer. */
  const purged = () => vi.waitFor(async () => expect(await rows('credential_purges')).toEqual([]), LAST_NET);

  /** What a refusal must leave as it was, read once the work that follows earlier answers is done. */
  async function stored() {
    await purged();
    return {
      integrations: await rows('integrations'),
      phone_numbers: await rows('phone_numbers'),
      ciphertexts: await ciphertexts(),
    };
  }

  return { query, rows, ciphertexts, purged, stored };
}

/** An API key of an organization. */
export interface Client {
  organization_id: string;
  raw_key: string;
}

export interface Key extends Client {
  key_id: string;
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  body: unknown;
}

interface CallOptions {
  /** A string is sent as it is. */
  body?: unknown;
  /** Sent instead of the caller's own; null leaves a header out. */
  headers?: Record<string, string | null>;
}

interface Organization {
  organization_id: string;
  tier: Tier;
}

const newOrganizationId = () => `org_${randomBytes(6).toString('hex')}`;

/** Numbers are unique among all organizations: some in a row, that no other file has. */
export function newNumbers(count: number): string[] {
  const first = randomInt(2_000_000_000, 9_999_000_000);
  return Array.from({ length: count }, (_, index) => `+1${first + index}`);
}

const createdIntegration = z.object({ data: z.object({ integration_id: z.string() }) });
const importedNumber = z.object({ data: z.object({ phone_number_id: z.string() }) });

/**
 * The shared server, whose state is seen as far as it is of the organizations of this file: those named, and those made
 * here. What the server printed during a test is shown when that test fails.
 */
export function joinServer(...organizations: string[]) {
  const { banner, log } = inject('server');
  const { url } = banner;
  const state = stateBehind(url, organizations);

  beforeEach(async ({ onTestFailed }) => {
    const { size } = await stat(log);
    onTestFailed(async () => {
      const printed = await readFile(log);
      process.stderr.write(`The server printed:\n${printed.subarray(size).toString()}\n`);
    });
  });

  async function call(client: Client, method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    const { body, headers = {} } = options;
    const sent: Record<string, string | null> = {
      'X-API-Key': client.raw_key,
      'X-Organization-Id': client.organization_id,
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...headers,
    };
    const response = await fetch(url + path, {
      method,
      headers: Object.entries(sent).flatMap(([name, value]) => (value === null ? [] : [[name, value]])),
      body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
    });
    const text = await response.text();
    const answer = {
      status: response.status,
      headers: response.headers,
      text,
      body: text === '' ? undefined : JSON.parse(text),
    };
    assertDocumented(method, path, answer);
    return answer;
  }

  /** Written straight to D1: the command that makes one would take longer than most tests. */
  async function newKey(organization_id: string, role: Role): Promise<Key> {
    const key_id = `apikey_${randomBytes(6).toString('hex')}`;
    const raw_key = newRawKey();
    await state.query(
      `INSERT INTO api_keys (key_id, organization_id, user_id, name, role, key_hash, prefix, status, created_at)
       VALUES (?, ?, 'user_test', 'Test', ?, ?, ?, 'active', unixepoch())`,
      key_id,
      organization_id,
      role,
      await hashKey(raw_key),
      displayedPrefix(raw_key),
    );
    return { organization_id, raw_key, key_id };
  }

  return {
    ...state,
    url,
    /** The demo's key and integrations, which files share: to be read alone. */
    demo: banner,
    call,
    newKey,

    /** @returns its admin key */
    async newOrganization({ organization_id = newOrganizationId(), tier = 'enterprise' }: Partial<Organization> = {}) {
      organizations.push(organization_id);
      await state.query(
        'INSERT INTO organizations (organization_id, tier, created_at) VALUES (?, ?, unixepoch()) ON CONFLICT DO NOTHING',
        organization_id,
        tier,
      );
      return newKey(organization_id, 'admin');
    },

    async createIntegration(client: Client): Promise<string> {
      const body = { name: 'Twilio Production', credentials: twilio };
      const answer = await call(client, 'POST', '/api/integrations', { body });
      return createdIntegration.parse(answer.body).data.integration_id;
    },

    async importNumber(client: Client, integration_id: string, phone_number: string): Promise<string> {
      const body = { phone_number, provider: 'twilio', integration_id };
      const answer = await call(client, 'POST', '/api/phone-numbers?verify=false', { body });
      return importedNumber.parse(answer.body).data.phone_number_id;
    },
  };
}

export const twilio = {
  provider: 'twilio',
  account_sid: 'AC0123456789abcdef0123456789abcdef',
  auth_token: 'plaintext-auth-token',
};

/** What an answer is that is a problem (RFC 9457) of this code; `members` are those of its body that are told. */
export function problem(status: number, code: string, members: object = {}) {
  return { status, body: { type: `urn:patchbay:problem:${code}`, status, code, ...members } };
}
