/**
 * `npm run dev`: the API on this machine, migrated, with demo data, on embedded D1 and KV.
 * Arguments reach `wrangler dev`; `--persist-to` counts for the migrations and the demo data as well.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs, stripVTControlCharacters } from 'node:util';
import { and, eq } from 'drizzle-orm';
import * as z from 'zod';
import { createOperatorKey } from '../operator/api-keys/create.ts';
import { app } from '../worker/app.ts';
import { hashKey } from '../worker/callers/raw-key.ts';
import type { Bindings } from '../worker/env.ts';
import { query } from '../worker/d1/query.ts';
import { batch } from '../worker/d1/batch.ts';
import type { Placeholders } from '../worker/d1/query.ts';
import { api_keys, integrations, phone_numbers } from '../worker/d1/schema.ts';
import { openLocal, spawnWrangler, stateDirectory } from '../operator/command-line/platform.ts';
import { projectDirectory } from '../operator/command-line/project.ts';

const ORGANIZATION = 'org_demo';
const IN_USE = 'Twilio Production';
const SPARE = 'Telnyx Spare';
/** Of the range that is kept for fiction. */
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

/** Secrets of this machine's own, unless there are some. */
async function ensureDevVars(): Promise<void> {
  const keks = { current: 'k1', keys: { k1: randomBytes(32).toString('base64') } };
  const text = `CREDENTIALS_KEKS='${JSON.stringify(keks)}'\n`;
  await writeFile(join(projectDirectory, '.dev.vars'), text, { flag: 'wx', mode: 0o600 }).catch((error: unknown) => {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  });
}

/** Makes what is missing of the demo data, through the API itself. */
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

/** The demo's admin key: kept apart from the state, which knows its hash alone. */
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
  if (!response.ok) throw new Error(`The demo data was not made: ${await response.text()}`);
  return response.json();
}

/** Serves until it is stopped. Calls `ready` with the server's address once it answers. */
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

/** npm's shell does not pass a signal on: killed, it would leave the server behind, holding its port. */
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

Refused, because phone numbers use it:
${curl(in_use)}

Deleted, credentials and all:
${curl(spare)}

Every call, to read and to try: ${url}/docs
`;
}

const parameters = process.argv.slice(2);
const { values } = parseArgs({ args: parameters, options: { 'persist-to': { type: 'string' } }, strict: false });
const directory = stateDirectory(typeof values['persist-to'] === 'string' ? values['persist-to'] : undefined);

await ensureDevVars();
const demo = await seed(directory);
await serve(parameters, (url) => console.log(describe(demo, url)));
