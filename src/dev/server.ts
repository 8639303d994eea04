/**
 * `npm run dev`: runs the API on this machine with a local D1 and KV, migrated and with demo data.
 * Arguments are passed to `wrangler dev`. `--persist-to` also applies to the migrations and the demo data.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs, stripVTControlCharacters } from 'node:util';
import { and, eq } from 'drizzle-orm';
import * as z from 'zod';
import { createOperatorKey } from '../operator/api-keys/create.ts';
import { openLocal, spawnWrangler, stateDirectory } from '../operator/command-line/platform.ts';
import { projectDirectory } from '../operator/command-line/project.ts';
import { app } from '../worker/app.ts';
import { hashKey } from '../worker/callers/raw-key.ts';
import { batch } from '../worker/d1/batch.ts';
import { query } from '../worker/d1/query.ts';
import type { Placeholders } from '../worker/d1/query.ts';
import { api_keys, integrations, phone_numbers } from '../worker/d1/schema.ts';
import type { Bindings } from '../worker/env.ts';

const ORGANIZATION = 'org_demo';
const IN_USE = 'Twilio Production';
const SPARE = 'Telnyx Spare';
/** From the range that is reserved for fiction. */
const PHONE_NUMBERS = ['+14155550100', '+14155550101'];

const ORPHAN_CHECK_MILLISECONDS = 500;

interface Demo {
  raw_key: string;
  in_use: string;
  spare: string;
}

const findDemoKey = query((db, { key_hash }: Placeholders<{ key_hash: string }>) =>
  db
    .select({ key_id: api_keys.key_id })
    .from(api_keys)
    .where(and(eq(api_keys.key_hash, key_hash), eq(api_keys.status, 'active'))),
);

const listDemoIntegrations = query((db, { organization_id }: Placeholders<{ organization_id: string }>) =>
  db
    .select({ integration_id: integrations.integration_id, name: integrations.name })
    .from(integrations)
    .where(eq(integrations.organization_id, organization_id)),
);

const listDemoNumbers = query((db, { organization_id }: Placeholders<{ organization_id: string }>) =>
  db
    .select({ phone_number: phone_numbers.phone_number })
    .from(phone_numbers)
    .where(eq(phone_numbers.organization_id, organization_id)),
);

const createdIntegration = z.object({ data: z.object({ integration_id: z.string() }) });

/** Creates `.dev.vars` with a new key-encryption key, unless it exists. */
async function ensureDevVars(): Promise<void> {
  const keks = { current: 'k1', keys: { k1: randomBytes(32).toString('base64') } };
  const text = `CREDENTIALS_KEKS='${JSON.stringify(keks)}'\n`;
  await writeFile(join(projectDirectory, '.dev.vars'), text, { flag: 'wx', mode: 0o600 }).catch((error: unknown) => {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  });
}

/** Creates missing demo data, through the API itself. */
async function seed(directory: string): Promise<Demo> {
  const { env, dispose } = await openLocal(directory);
  try {
    const raw_key = await ensureKey(env, directory);
    const [existing] = await batch(env.DB, [listDemoIntegrations.bind({ organization_id: ORGANIZATION })]);
    const ensureIntegration = async (name: string, credentials: object): Promise<string> =>
      existing.find((integration) => integration.name === name)?.integration_id ??
      createdIntegration.parse(await post(env, raw_key, '/api/integrations', { name, credentials })).data
        .integration_id;

    const in_use = await ensureIntegration(IN_USE, {
      provider: 'twilio',
      account_sid: `AC${randomBytes(16).toString('hex')}`,
      auth_token: randomBytes(16).toString('hex'),
    });
    const spare = await ensureIntegration(SPARE, { provider: 'telnyx', api_key: randomBytes(16).toString('hex') });
    const [imported] = await batch(env.DB, [listDemoNumbers.bind({ organization_id: ORGANIZATION })]);
    for (const phone_number of PHONE_NUMBERS) {
      if (imported.some((number) => number.phone_number === phone_number)) continue;
      await post(env, raw_key, '/api/phone-numbers', { phone_number, provider: 'twilio', integration_id: in_use });
    }
    return { raw_key, in_use, spare };
  } finally {
    await dispose();
  }
}

/** The demo's admin key. It is kept in a file, because the database has only its hash. */
async function ensureKey({ DB }: Bindings, directory: string): Promise<string> {
  const keyDirectory = join(projectDirectory, '.wrangler/demo-keys');
  const path = join(keyDirectory, createHash('sha256').update(directory).digest('hex'));
  const kept = await readFile(path, 'utf8').catch(() => '');
  const [known] = await batch(DB, [findDemoKey.bind({ key_hash: hashKey(kept) })]);
  if (known.length > 0) return kept;
  const { raw_key } = await createOperatorKey(DB, {
    organization_id: ORGANIZATION,
    role: 'admin',
    name: 'Demo',
    tier: 'enterprise',
    expires_at: null,
  });
  await mkdir(keyDirectory, { recursive: true });
  await writeFile(path, raw_key, { mode: 0o600 });
  return raw_key;
}

async function post(env: Bindings, raw_key: string, path: string, body: object): Promise<unknown> {
  const background: Promise<unknown>[] = [];
  const context = {
    waitUntil: (task: Promise<unknown>) => background.push(task),
    passThroughOnException() {},
    props: {},
  };
  const headers = {
    'X-API-Key': raw_key,
    'X-Organization-Id': ORGANIZATION,
    'Content-Type': 'application/json',
  };
  const response = await app.request(path, { method: 'POST', headers, body: JSON.stringify(body) }, env, context);
  await Promise.all(background);
  if (!response.ok) throw new Error(`The demo data could not be created: ${await response.text()}`);
  return response.json();
}

/** Runs the server until it is stopped. Calls `ready` with its address when it answers. */
async function serve(parameters: string[], ready: (url: string) => void): Promise<void> {
  const child = spawnWrangler(['dev', ...parameters], 'inherit');
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  child.on('exit', (code) => process.exit(code ?? 1));
  stopWithParent(() => child.kill());
  for await (const line of createInterface(child.stdout)) {
    console.log(line);
    const [, url] = /Ready on (http\S+)/.exec(stripVTControlCharacters(line)) ?? [];
    if (url) ready(url);
  }
}

/** npm's shell does not pass signals on. If it is killed, the server must stop too, or it would keep its port. */
function stopWithParent(stop: () => void): void {
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || stop(), ORPHAN_CHECK_MILLISECONDS).unref();
}

function describe({ raw_key, in_use, spare }: Demo, url: string): string {
  const curl = (integration_id: string) =>
    `curl -X DELETE ${url}/api/integrations/${integration_id} -H 'X-API-Key: ${raw_key}' -H 'X-Organization-Id: ${ORGANIZATION}'`;
  return `
Organization  ${ORGANIZATION}
API key       ${raw_key}
Integrations  ${in_use}  "${IN_USE}", used by ${PHONE_NUMBERS.join(' and ')}
              ${spare}  "${SPARE}", used by none

This delete is refused, because phone numbers use the integration:
${curl(in_use)}

This delete is done, and the credentials are deleted too:
${curl(spare)}

All calls, to read and to try out: ${url}/docs
`;
}

const parameters = process.argv.slice(2);
const { values } = parseArgs({ args: parameters, options: { 'persist-to': { type: 'string' } }, strict: false });
const directory = stateDirectory(typeof values['persist-to'] === 'string' ? values['persist-to'] : undefined);

await ensureDevVars();
const demo = await seed(directory);
await serve(parameters, (url) => console.log(describe(demo, url)));
