/**
 * `npm run dev`: runs the API on this machine with a local D1 and KV, migrated and with demo data, and with simulated
 * providers. All options but `--json-logs` and `--real-providers` are those of `wrangler dev`. `--persist-to` also applies
 * to the migrations and the demo data.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs, stripVTControlCharacters } from 'node:util';
import { and, eq } from 'drizzle-orm';
import * as z from 'zod';
import { createKeyByCommand } from '../operator/api-keys/create.ts';
import { commandLine } from '../operator/command-line/options.ts';
import { keepDevServerUrl, openLocal, spawnWrangler, stateDirectory } from '../operator/command-line/platform.ts';
import { projectDirectory } from '../operator/command-line/project.ts';
import { app } from '../worker/app.ts';
import { hashKey } from '../worker/callers/raw-key.ts';
import { readableProviders } from '../worker/core/vocabulary.ts';
import { batch } from '../worker/d1/batch.ts';
import { query } from '../worker/d1/query.ts';
import type { Placeholders } from '../worker/d1/query.ts';
import { api_keys, integrations, phone_numbers } from '../worker/d1/schema.ts';
import type { Bindings } from '../worker/env.ts';
import { VERSION } from '../worker/version.ts';
import { shownLine } from './lines.ts';
import { startSimulation } from './simulation.ts';

const usage = `Usage: npm run dev -- [--port PORT] [--persist-to DIR] [--json-logs] [--real-providers] [OPTIONS OF WRANGLER DEV]

  --port            by default 8787
  --persist-to      the directory of the local database and credentials, by default .wrangler/state
  --json-logs       shows the Worker's log as it is, in place of a short line for each request
  --real-providers  checks credentials with the providers themselves, in place of the simulation
  Wrangler's own options: npx wrangler dev --help
`;

const ORGANIZATION = 'org_demo';
const IN_USE = 'Twilio Production';
const SPARE = 'Telnyx Spare';
/** What examples/call-router may read: everything of the demo's organization. */
const READERS = {
  'call-router': { providers: readableProviders, organizations: [ORGANIZATION], unconfirmed: true },
};
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
const problem = z.object({ code: z.string() });

/** The API refuses demo data. The likeliest cause is that `.dev.vars` was deleted, and its state was not. */
class SeedError extends Error {
  constructor(code: string) {
    super(
      `The demo data could not be created (${code}). If .dev.vars has other keys than the stored data was made with, ` +
        `start afresh: delete ${directory}`,
    );
  }
}

/** Creates `.dev.vars` with a new key-encryption key, unless it exists. */
async function ensureDevVars(): Promise<void> {
  const keks = { current: 'k1', keys: { k1: randomBytes(32).toString('base64') } };
  const text = `CREDENTIALS_KEKS='${JSON.stringify(keks)}'\n`;
  await writeFile(join(projectDirectory, '.dev.vars'), text, { flag: 'wx', mode: 0o600 }).catch((error: unknown) => {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  });
}

/**
 * Creates missing demo data, through the API itself.
 *
 * @param simulatedOrigins without them, no provider is asked about the demo's credentials
 */
async function seed(directory: string, simulatedOrigins: string | undefined): Promise<Demo> {
  const { env: bindings, dispose } = await openLocal(directory);
  const env = { ...bindings, PROVIDER_ORIGINS: simulatedOrigins ?? '' };
  const asking = simulatedOrigins === undefined ? '?verify=false' : '';
  try {
    const raw_key = await ensureKey(env, directory);
    const [existing] = await batch(env.DB, [listDemoIntegrations.bind({ organization_id: ORGANIZATION })]);
    const ensureIntegration = async (name: string, credentials: object): Promise<string> =>
      existing.find((integration) => integration.name === name)?.integration_id ??
      createdIntegration.parse(await post(env, raw_key, `/api/integrations${asking}`, { name, credentials })).data
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
      const body = { phone_number, provider: 'twilio', integration_id: in_use };
      await post(env, raw_key, `/api/phone-numbers${asking}`, body);
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
  const [known] = await batch(DB, [findDemoKey.bind({ key_hash: await hashKey(kept) })]);
  if (known.length > 0) return kept;
  const { raw_key } = await createKeyByCommand(DB, {
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
  if (!response.ok) throw new SeedError(problem.parse(await response.json()).code);
  return response.json();
}

/** Runs the server until it is stopped. Calls `ready` with its address when it answers. */
function serve(parameters: string[], jsonLogs: boolean, ready: (url: string) => void): void {
  const child = spawnWrangler(['dev', ...parameters], 'inherit');
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  child.on('close', (code) => process.exit(code ?? 1));
  stopWithParent(() => child.kill());

  let isReady = false;
  createInterface(child.stdout).on('line', (printed) => {
    const line = stripVTControlCharacters(printed);
    const [, url] = /Ready on (http\S+)/.exec(line) ?? [];
    if (isReady) show(console.log, line, jsonLogs);
    else if (url !== undefined) {
      isReady = true;
      ready(url);
    }
  });
  let isCronWarning = false;
  createInterface(child.stderr).on('line', (printed) => {
    const line = stripVTControlCharacters(printed);
    // Wrangler warns at each start that a local server has no cron, in lines of which all but the first are indented.
    isCronWarning = line.includes('[WARNING] Scheduled Workers') || (isCronWarning && /^(?: {2}|$)/.test(line));
    if (!isCronWarning) show(console.error, line, jsonLogs);
  });
}

function show(print: (line: string) => void, line: string, jsonLogs: boolean): void {
  const shown = shownLine(line, jsonLogs);
  if (shown !== undefined) print(shown);
}

/** Whether nothing listens there. Wrangler would find out only after the demo data is made, and take another port. */
async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen(port, 'localhost'), 'listening');
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}

/** npm's shell does not pass signals on. If it is killed, the server must stop too, or it would keep its port. */
function stopWithParent(stop: () => void): void {
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || stop(), ORPHAN_CHECK_MILLISECONDS).unref();
}

function describe({ raw_key, in_use, spare }: Demo, url: string, providers: string): string {
  const place = { 'persist-to': typeof values['persist-to'] === 'string' ? values['persist-to'] : undefined };
  const curl = (integration_id: string) =>
    `curl -X DELETE ${url}/api/integrations/${integration_id} -H 'X-API-Key: ${raw_key}' -H 'X-Organization-Id: ${ORGANIZATION}'`;
  return `Ready on ${url}

Organization  ${ORGANIZATION}
API key       ${raw_key}
Integrations  ${in_use}  "${IN_USE}", used by ${PHONE_NUMBERS.join(' and ')}
              ${spare}  "${SPARE}", used by none
Providers     ${providers}

This delete is refused, because phone numbers use the integration:
${curl(in_use)}

This delete is done, and the credentials are deleted too:
${curl(spare)}

Console, to sign in with this organization and key: ${url}/console
All calls, to read and to try out: ${url}/docs
Operators have an API too: ${commandLine('operators:create', { name: 'Signup service', ...place })} makes a key for ${url}/operator
How another Worker reads the credentials: npm run example
`;
}

const { values } = parseArgs({
  options: {
    'persist-to': { type: 'string' },
    port: { type: 'string', default: '8787' },
    'json-logs': { type: 'boolean', default: false },
    'real-providers': { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
  strict: false,
});
const directory = stateDirectory(typeof values['persist-to'] === 'string' ? values['persist-to'] : undefined);
const jsonLogs = values['json-logs'] === true;
/** Wrangler takes `--var` with one value or several, or in one word. */
const isGiven = (variable: string) =>
  process.argv.some((word) => word.replace(/^--var=/, '').startsWith(`${variable}:`));
const givenOrigins = isGiven('PROVIDER_ORIGINS');
const simulates = values['real-providers'] !== true && !givenOrigins;

/** What the banner says of the providers. */
function providersLine(): string {
  if (givenOrigins) return 'at the PROVIDER_ORIGINS that were given';
  return simulates
    ? 'simulated: a secret with "refused" in it is refused; --real-providers asks the real ones'
    : 'real: credentials are sent to their provider to be checked';
}
const port = Number(values.port);

if (values.help === true) {
  console.log(usage);
} else if (Number.isInteger(port) && !(await isFree(port))) {
  console.error(
    `Port ${port} is in use, perhaps by another npm run dev. End that, or choose another port with --port.`,
  );
  process.exitCode = 1;
} else {
  // The Worker logs the calls that make the demo data here, in this process.
  console.info = () => {};
  console.log(`Patchbay ${VERSION} starts on Node ${process.versions.node}`);
  await ensureDevVars();
  try {
    const simulation = simulates ? await startSimulation() : undefined;
    const demo = await seed(directory, simulation?.origins);
    const own = ['--json-logs', '--real-providers'];
    const parameters = process.argv.slice(2).filter((parameter) => !own.includes(parameter));
    if (simulation) parameters.push('--var', `PROVIDER_ORIGINS:${simulation.origins}`);
    if (!isGiven('OPERATOR_API')) parameters.push('--var', 'OPERATOR_API:on');
    if (!isGiven('WEBHOOKS_TO_LOOPBACK')) parameters.push('--var', 'WEBHOOKS_TO_LOOPBACK:on');
    if (!isGiven('CREDENTIALS_READERS')) parameters.push('--var', `CREDENTIALS_READERS:${JSON.stringify(READERS)}`);
    serve(parameters, jsonLogs, (url) => {
      keepDevServerUrl(directory, url);
      console.log(describe(demo, url, providersLine()));
    });
  } catch (error) {
    if (!(error instanceof SeedError)) throw error;
    console.error(error.message);
    process.exit(1);
  }
}
