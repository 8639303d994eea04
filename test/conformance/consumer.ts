/** An empty project outside of this one, into which the client's packed tarball is installed. */
import { randomBytes, randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Webhook } from 'standardwebhooks';
import { expect } from 'vitest';
import * as z from 'zod';
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import { run, runScript, temporaryDirectory } from '../processes.ts';
import { newNumbers } from './server.ts';
import type { joinServer } from './server.ts';

const packed = z.tuple([z.object({ filename: z.string(), files: z.array(z.object({ path: z.string() })) })]);

export async function succeed(program: string, parameters: string[], cwd?: string): Promise<string> {
  const { code, stdout, stderr } = await run(program, parameters, { cwd });
  if (code !== 0) throw new Error(stderr || stdout);
  return stdout;
}

/** Packs a package's directory. */
async function pack(source: string, destination: string) {
  const told = await succeed('npm', ['pack', source, '--ignore-scripts', '--pack-destination', destination, '--json']);
  return packed.parse(JSON.parse(told))[0];
}

/** What the client depends on, and what that depends on. */
const dependencies = ['hono', 'standardwebhooks', '@stablelib/base64', 'fast-sha256'];

/** The dependencies come from this project's packages, so that the installation needs no network. */
export async function newConsumer() {
  const built = await runScript('build:client');
  if (built.code !== 0) throw new Error(built.stderr);
  const directory = await temporaryDirectory();
  await writeFile(join(directory, 'package.json'), JSON.stringify({ type: 'module', private: true }));
  const client = await pack(join(projectDirectory, 'src/client'), directory);
  const tarballs = [`./${client.filename}`];
  for (const name of dependencies) {
    const { filename } = await pack(join(projectDirectory, 'node_modules', name), directory);
    tarballs.push(`./${filename}`);
  }
  await succeed('npm', ['install', '--offline', '--no-audit', '--no-fund', ...tarballs], directory);
  return { directory, files: client.files.map(({ path }) => path) };
}

/** Compiles the project with this kind of module resolution, and as strictly as can be or as is usual. */
export async function compile(directory: string, resolution = 'nodenext', strictness = 'strictest') {
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: strictness === 'strictest',
    noUncheckedIndexedAccess: strictness === 'strictest',
    target: 'es2022',
    module: resolution === 'bundler' ? 'esnext' : 'nodenext',
    moduleResolution: resolution,
    lib: ['es2022', 'dom', 'dom.iterable'],
    types: ['node'],
    typeRoots: [join(projectDirectory, 'node_modules/@types')],
    skipLibCheck: false,
  };
  await writeFile(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['consumer.ts'] }));
  return run(process.execPath, [join(projectDirectory, 'node_modules/typescript/bin/tsc'), '--project', directory]);
}

/** Fails where something needs Node. */
export const bundleForBrowsers = (directory: string) =>
  run('npx', [
    '--no-install',
    'esbuild',
    join(directory, 'consumer.js'),
    '--bundle',
    '--platform=browser',
    '--format=esm',
    `--outfile=${join(directory, 'bundle.mjs')}`,
  ]);

/** A request to a webhook endpoint, signed by the published library. */
function webhook() {
  const id = randomUUID();
  const now = new Date();
  const WEBHOOK_SECRET = `whsec_${randomBytes(32).toString('base64')}`;
  const data = { target_id: 'intg_0123456789ab', state: { name: 'Old' }, actor: { type: 'api_key' } };
  const created_at = now.toISOString();
  const WEBHOOK_BODY = JSON.stringify({ id, type: 'integration.deleted', created_at, organization_id: 'org_x', data });
  const WEBHOOK_HEADERS = JSON.stringify({
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
    'webhook-signature': new Webhook(WEBHOOK_SECRET).sign(id, now, WEBHOOK_BODY),
  });
  return { WEBHOOK_SECRET, WEBHOOK_BODY, WEBHOOK_HEADERS };
}

/** Runs the compiled program with this Node, for an organization of its own. */
export async function expectJourney(server: ReturnType<typeof joinServer>, node: string, program: string) {
  const client = await server.newOrganization();
  const numbers = newNumbers(3);

  const { code, stdout, stderr } = await run(
    node,
    [program, server.url, client.raw_key, client.organization_id, ...numbers],
    { environment: webhook() },
  );

  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(JSON.parse(stdout)).toEqual({
    references: numbers.toSorted(),
    names: ['New', 'Old'],
    listed: numbers.toSorted(),
    deleted: 'Old',
    error: ['integration_not_found', 404, 'There is no such integration in this organization.', true],
    verified: ['integration.deleted', 'Old'],
    refused: ['WebhookVerificationError', 'No matching signature found'],
  });
}

/** The way from the 409 to the 200, with the numbers that it is given; and what must not compile. */
export const consumer = `
import {
  entries, patchbayClient, PatchbayError, patchbayOperator, unwrap, verifyWebhook, WebhookVerificationError,
} from 'patchbay-client';
import type { Problem, WebhookEvent } from 'patchbay-client';

const [url = '', apiKey = '', organizationId = '', ...numbers] = process.argv.slice(2);
const { api } = patchbayClient(url, { apiKey, organizationId });

const create = async (name: string) => {
  const credentials = { provider: 'twilio' as const, account_sid: 'AC0123456789abcdef0123456789abcdef', auth_token: 'x' };
  return (await unwrap(api.integrations.$post({ json: { name, credentials } }))).data.integration_id;
};
const [old, fresh] = [await create('Old'), await create('New')];
const unasked = { query: { verify: false } };
for (const phone_number of numbers) {
  await unwrap(api['phone-numbers'].$post({ json: { phone_number, provider: 'twilio', integration_id: old }, ...unasked }));
}

const remove = () => unwrap(api.integrations[':integration_id'].$delete({ param: { integration_id: old } }));
const references: string[] = [];
try {
  await remove();
} catch (error) {
  if (!(error instanceof PatchbayError) || error.problem?.code !== 'integration_in_use') throw error;
  for (const { phone_number, phone_number_id } of error.problem.references) {
    references.push(phone_number);
    const param = { phone_number_id };
    await unwrap(api['phone-numbers'][':phone_number_id'].$put({ param, json: { integration_id: fresh }, ...unasked }));
  }
}

const names: string[] = [];
for await (const { name } of entries(api.integrations.$get, { provider: 'twilio', page_size: 1 })) names.push(name);
const listed: string[] = [];
for await (const { phone_number } of entries(api['phone-numbers'].$get, { integration_id: fresh, page_size: 2 })) {
  listed.push(phone_number);
}
const deleted: string = (await remove()).data.name;
const error = await remove().catch((thrown: unknown) => thrown);
if (!(error instanceof PatchbayError)) throw error;
const { code, status, detail, request_id } = error;
names.sort();

const { WEBHOOK_SECRET = '', WEBHOOK_BODY = '', WEBHOOK_HEADERS = '' } = process.env;
const received = (body: string) =>
  new Request('https://receiver.test', { method: 'POST', headers: JSON.parse(WEBHOOK_HEADERS), body });
const event = await verifyWebhook(received(WEBHOOK_BODY), ['whsec_AAAA', WEBHOOK_SECRET]);
const verified = [event.type, event.type === 'integration.deleted' && event.data.state.name];
const refusal = await verifyWebhook(received(WEBHOOK_BODY + ' '), WEBHOOK_SECRET).catch((thrown: unknown) => thrown);
const refused = refusal instanceof WebhookVerificationError ? [refusal.name, refusal.message] : [];
const told = [code, status, detail, request_id !== undefined];
console.log(JSON.stringify({ references, names, listed, deleted, error: told, verified, refused }));

export function about(event: WebhookEvent): string {
  switch (event.type) {
    case 'integration.verification_failed':
      return event.data.state.verification.detail;
    case 'phone_number.updated':
      return [event.data.state.phone_number, ...Object.keys(event.data.changes ?? {})].join();
    case 'webhook_endpoint.test':
      // @ts-expect-error -- a test is about no state
      return event.data.state;
    default:
      return event.data.actor.name ?? event.data.target_id;
  }
}

function narrowed(problem: Problem): number {
  switch (problem.code) {
    case 'integration_in_use':
      return problem.reference_count + problem.references.length;
    case 'rate_limited':
      return problem.retry_after_seconds;
    case 'validation_failed':
      return problem.errors.length;
    default:
      // @ts-expect-error -- only that of integration_in_use has references
      return problem.references.length;
  }
}
void narrowed;

export async function assign(phone_number_id: string): Promise<string | null> {
  const path = api['phone-numbers'][':phone_number_id'];
  const read = await path.$get({ param: { phone_number_id } }, { headers: { 'If-None-Match': '"1-0"' } });
  if (read.status === 304) return null;
  const { data } = await unwrap(read);
  const headers = { 'If-Match': read.headers.get('ETag') ?? '' };
  const written = await path.$put({ param: { phone_number_id }, json: { assigned_agent_id: 'agent_1' } }, { headers });
  if (written.status === 412) return written.json().then((problem) => problem.detail);
  return (await unwrap(written)).data.assigned_agent_id ?? data.phone_number;
}

const one = { param: { integration_id: 'intg_1' } };
export async function preview(): Promise<string | number> {
  const remove = api.integrations[':integration_id'].$delete;
  const { data } = await unwrap(remove({ ...one, query: { dry_run: true, reassign_to: 'intg_2' } }));
  if (!data.would_delete) return data.blocked_by.map(({ code }) => code).join();
  const query = { reassign_to: 'intg_2', expect_references: String(data.reference_count) };
  return (await unwrap(remove({ ...one, query }))).data.name;
}

export async function changeMany(phone_number_ids: string[]): Promise<boolean | string | undefined> {
  const change = { json: { phone_number_ids, set: { supports_inbound: true } } };
  const { data } = await unwrap(api['phone-numbers']['bulk-update'].$post({ ...change, query: { dry_run: 'true' } }));
  const done = await unwrap(api['phone-numbers']['bulk-update'].$post(change));
  return data.would_update && done.data.results[0]?.status;
}

const admin = patchbayOperator(url, { operatorKey: 'bk_operator_x' });
const { organizations } = admin.operator;
export async function provisionAndEnd(name: string): Promise<string | undefined> {
  const { data } = await unwrap(organizations.$post({ json: { name, first_key: { name: 'First', role: 'admin' } } }));
  const param = { organization_id: data.organization_id };
  for await (const { key_id } of entries(organizations[':organization_id']['api-keys'].$get, { param })) {
    await unwrap(organizations[':organization_id']['api-keys'][':key_id'].$delete({ param: { ...param, key_id } }));
  }
  const ended = await unwrap(organizations[':organization_id'].offboard.$post({ param, json: param }));
  const status: 'active' | 'suspended' | 'offboarding' | 'offboarded' = ended.data.status;
  const left: number = ended.data.counts.phone_numbers;
  return left === 0 ? status : data.first_key?.raw_key;
}

const twilio = { provider: 'twilio' as const, account_sid: 'AC0123456789abcdef0123456789abcdef' };
export const compiles = () => [
  api.integrations.$post({ json: { name: 'x', credentials: { ...twilio, api_key_sid: 'SK', api_key_secret: 'x' } } }),
  api.integrations.$post({
    json: { name: 'x', credentials: { ...twilio, region: 'ie1', auth_token: 'x', api_key_sid: 'SK', api_key_secret: 'x' } },
    query: { verify: false },
  }),
  api.integrations[':integration_id'].verify.$post({ param: { integration_id: 'intg_1' } }),
  api['audit-events'].$get({ query: { page_size: 2, action: 'integration.deleted' } }),
  api['api-keys'][':key_id'].$delete({ param: { key_id: 'apikey_1' }, query: { descendants: true } }),
  api['api-keys'].$post({ json: { name: 'x', role: 'user', expires_at: null } }),
  api['api-keys'][':key_id'].$put({ param: { key_id: 'apikey_1' }, json: { name: 'x' } }),
  api.integrations[':integration_id'].references.$get({ param: { integration_id: 'intg_1' }, query: { order: 'desc' } }),
  entries(api['phone-numbers'].$get, { phone_number_prefix: '+1', order: 'desc' }),
  entries(api['audit-events'].$get, {}),
  entries(api['audit-events'].$get, { after: '' }),
  api['webhook-endpoints'].$post({ json: { url: 'https://example.com/', events: ['integration.*', 'api_key.revoked'] } }),
  entries(api['webhook-endpoints'][':endpoint_id'].deliveries.$get, { param: { endpoint_id: 'whep_1' } }),
  entries(api['api-keys'].$get, { page_size: '2' }),
  entries(api.integrations[':integration_id'].references.$get, { ...one, query: { order: 'desc' } }),
  entries(organizations.$get, { name_prefix: 'x', status: 'offboarding', page_size: 2 }),
  entries(admin.operator['audit-events'].$get, { organization_id: 'org_1' }),
  organizations[':organization_id'].$put({ param: { organization_id: 'org_1' }, json: { metadata: { customer: '7' } } }),
];
export const doesNotCompile = () => [
  // @ts-expect-error -- no secret
  api.integrations.$post({ json: { name: 'x', credentials: twilio } }),
  // @ts-expect-error -- half of an API key
  api.integrations.$post({ json: { name: 'x', credentials: { ...twilio, api_key_sid: 'SK' } } }),
  // @ts-expect-error -- an application without its private key
  api.integrations.$post({ json: { name: 'x', credentials: { provider: 'vonage', api_key: 'x', api_secret: 'x', application_id: 'x' } } }),
  // @ts-expect-error -- no such provider
  api.integrations.$get({ query: { provider: 'acme' } }),
  // @ts-expect-error -- credentials are required
  api.integrations.$post({ json: { name: 'x' } }),
  // @ts-expect-error -- no boolean
  api.integrations.$get({ query: { cursor: true } }),
  // @ts-expect-error -- no such call
  api.integrations[':integration_id'].$post({ param: { integration_id: 'intg_1' } }),
  // @ts-expect-error -- the organization is required
  patchbayClient(url, { apiKey }),
  // @ts-expect-error -- endpoints get no such event
  api['webhook-endpoints'].$post({ json: { url: 'https://example.com/', events: ['credentials.read'] } }),
  // @ts-expect-error -- no such filter
  entries(api['phone-numbers'].$get, { category: 'telephony' }),
  // @ts-expect-error -- the integration is required
  entries(api.integrations[':integration_id'].references.$get, {}),
  // @ts-expect-error -- an operator's key makes no calls of an organization
  admin.api,
  // @ts-expect-error -- nor an organization's key those of an operator
  patchbayClient(url, { apiKey, organizationId }).operator,
  // @ts-expect-error -- the organization once more is required
  organizations[':organization_id'].offboard.$post({ param: { organization_id: 'org_1' } }),
];
`;
