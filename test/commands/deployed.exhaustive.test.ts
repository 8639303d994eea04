/** What the operator's commands say if they cannot open the deployed database, each in one line. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { afterAll, beforeAll, expect, it } from 'vitest';
import * as z from 'zod';
import { whyNotOpened } from '../../src/operator/command-line/deployed-errors.ts';
import { programOf, removeDirectory, run, temporaryDirectory } from '../processes.ts';

/** Has neither the sign-in nor the account that wrangler may have kept for whoever runs the tests. */
let home: string;
/** Stands in for Cloudflare's API, and answers every call so. */
let api: Server;
let answer: { status: number; body: object };

beforeAll(async () => {
  home = await temporaryDirectory();
  api = createServer((_, response) => {
    response.writeHead(answer.status, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer.body));
  });
  await once(api.listen(0, '127.0.0.1'), 'listening');
});

afterAll(async () => {
  api.close();
  await removeDirectory(home);
});

/** Where there is a terminal, wrangler would open a browser and wait for a sign-in there. */
const atTerminal = 'data:text/javascript,process.stdin.isTTY = true; process.stdout.isTTY = true';

const address = z.object({ port: z.number() });

function storage(environment: Record<string, string>) {
  const { port } = address.parse(api.address());
  return run(process.execPath, ['--import', atTerminal, ...programOf('storage'), '--remote'], {
    environment: {
      CI: '',
      HOME: home,
      XDG_CONFIG_HOME: home,
      WRANGLER_CACHE_DIR: home,
      CLOUDFLARE_API_BASE_URL: `http://127.0.0.1:${port}`,
      CLOUDFLARE_API_TOKEN: '',
      CLOUDFLARE_ACCOUNT_ID: '',
      ...environment,
    },
  });
}

const error = (code: number, message: string) => ({ success: false, errors: [{ code, message }], result: null });

const account = (id: string) => ({ id, name: id, account: { id, name: id } });
const accounts = (...ids: string[]) => ({
  status: 200,
  body: { success: true, errors: [], messages: [], result: ids.map(account) },
});

const token = { CLOUDFLARE_API_TOKEN: 'token' };

it.each<{ what: string; environment: Record<string, string>; answered?: typeof answer; says: string }>([
  {
    what: 'no sign-in',
    environment: {},
    says: 'You are not signed in to Cloudflare. Run npx wrangler login, or set CLOUDFLARE_API_TOKEN.',
  },
  {
    what: 'a token that is refused',
    environment: token,
    answered: { status: 403, body: error(10_000, 'Authentication error') },
    says: 'Cloudflare refuses the sign-in. Run npx wrangler login again, or set CLOUDFLARE_API_TOKEN to a token that may edit Workers, D1 and KV.',
  },
  {
    what: 'two accounts',
    environment: token,
    answered: accounts('a'.repeat(32), 'b'.repeat(32)),
    says: 'It is not clear which Cloudflare account to use. Set CLOUDFLARE_ACCOUNT_ID to the one that has the database.',
  },
  {
    what: 'an account without a subdomain, of which wrangler says more',
    environment: { ...token, CLOUDFLARE_ACCOUNT_ID: 'a'.repeat(32) },
    answered: { status: 404, body: error(10_063, 'You need a workers.dev subdomain.') },
    says: 'The account has no workers.dev subdomain, and commands reach the database through one. Open Workers in the dashboard once.',
  },
  {
    what: 'no network',
    environment: { ...token, CLOUDFLARE_API_BASE_URL: 'http://127.0.0.1:1' },
    says: 'Cloudflare cannot be reached. Is this machine online?',
  },
  {
    what: 'what is not known',
    environment: token,
    answered: { status: 400, body: error(1, 'Out\nof order') },
    says: 'The deployed database cannot be opened: A request to the Cloudflare API (/accounts) failed. Out of order [code: 1]',
  },
])('$what', async ({ environment, answered, says }) => {
  answer = answered ?? { status: 500, body: {} };

  expect(await storage(environment)).toEqual({ code: 2, stdout: '', stderr: `${says}\n` });
});

/** As wrangler throws what the API answers to the upload of the session's Worker. */
function uploadRefused(text: string): Error {
  const cause = Object.assign(new Error('A request to the Cloudflare API (…) failed.'), { notes: [{ text }] });
  return new Error(`Failed to start the remote proxy session. Failed to obtain a preview token: ${cause.message}`, {
    cause: { type: 'error', reason: 'Failed to obtain a preview token', cause },
  });
}

it.each([
  ["D1 binding 'DB' references database '0123' which was not found. [code: 10181]", 'The account has no database with'],
  ['binding DB of type d1 must have a database that already exists. [code: 10021]', 'The account has no database with'],
  ["KV namespace '0123' not found. [code: 10041]", 'The account has no KV namespace with'],
])('%s', (text, says) => {
  expect(whyNotOpened(uploadRefused(text))).toContain(says);
});

it('a wrangler.toml that nobody has deployed', () => {
  expect(whyNotOpened(new Error('CREDENTIALS bindings must have an "id" field'))).toBe(
    'wrangler.toml has no id of a deployed database. Deploy first, as docs/operations.md says.',
  );
});
