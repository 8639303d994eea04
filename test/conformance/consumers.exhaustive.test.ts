/**
 * What others make of public/openapi.json: linters, generators of clients, and tools that send or watch requests. They
 * are installed by test/consumers/package-lock.json alone. `docs/consumers.md` is written from this.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import projectLock from '../../package-lock.json' with { type: 'json' };
import openApi from '../../public/openapi.json' with { type: 'json' };
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import type { Calls, MakeCalls } from '../consumers/calls.ts';
import { markdownTable } from '../markdown.ts';
import { freePort, removeDirectory, run, temporaryDirectory } from '../processes.ts';
import { joinServer, LAST_NET, newNumbers, problem, twilio } from './server.ts';
import type { Client } from './server.ts';

const directory = join(projectDirectory, 'test/consumers');
const document = join(projectDirectory, 'public/openapi.json');

const operations = Object.values(openApi.paths).flatMap((methods) => Object.keys(methods));

const server = joinServer();
let admin: Client;

beforeAll(async () => {
  const { code, stderr } = await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: directory });
  if (code !== 0) throw new Error(stderr);
  admin = await server.newOrganization();
});

/** Runs a tool of the folder. @returns what it printed, if it failed */
async function failureOf(name: string, parameters: string[], cwd = directory): Promise<string | undefined> {
  const { code, stdout, stderr } = await run(join(directory, 'node_modules/.bin', name), parameters, { cwd });
  return code === 0 ? undefined : `${name} ended with ${String(code)}:\n${stdout}\n${stderr}`;
}

type Row = Record<'tool' | 'version' | 'generated' | 'compiles' | 'journey', string>;

const rows: Row[] = [];

describe('linters find nothing', () => {
  it('Redocly, recommended-strict', async () => {
    const { code, stdout, stderr } = await run('npm', ['run', '--silent', 'check:openapi']);

    expect(code, stdout + stderr).toBe(0);
    const { version } = projectLock.packages['node_modules/@redocly/cli'];
    rows.push({ tool: 'Redocly, recommended-strict', version, ...onlyReads('no error, no warning') });
  });

  it('Spectral, oas', async () => {
    const parameters = ['lint', document, '--ruleset', 'spectral.yaml', '--fail-severity', 'hint'];
    expect(await failureOf('spectral', parameters)).toBeUndefined();

    const version = await versionOf('@stoplight/spectral-cli');
    rows.push({ tool: 'Spectral, oas', version, ...onlyReads('no error, no warning') });
  });
});

const onlyReads = (generated: string) => ({ generated, compiles: '', journey: '' });

const installed = z.object({ version: z.string() });

async function versionOf(name: string): Promise<string> {
  const text = await readFile(join(directory, 'node_modules', name, 'package.json'), 'utf8');
  return installed.parse(JSON.parse(text)).version;
}

const generators = [
  {
    folder: 'openapi-typescript',
    packages: ['openapi-typescript', 'openapi-fetch'],
    program: 'openapi-typescript',
    parameters: [document, '-o', 'generated/schema.ts'],
  },
  {
    folder: 'hey-api',
    packages: ['@hey-api/openapi-ts'],
    program: 'openapi-ts',
    parameters: ['-i', document, '-o', 'generated', '--no-log-file'],
  },
  { folder: 'orval', packages: ['orval'], program: 'orval', parameters: ['--config', 'orval.config.ts'] },
  { folder: 'kubb', packages: ['@kubb/cli'], program: 'kubb', parameters: ['generate', '--config', 'kubb.config.ts'] },
];

const strict = [
  '--noEmit',
  '--strict',
  '--skipLibCheck',
  '--target es2024',
  '--lib es2024,dom,dom.iterable',
  '--module esnext',
  '--moduleResolution bundler',
  '--allowImportingTsExtensions',
].flatMap((option) => option.split(' '));

const madeClient = z.object({ makeCalls: z.custom<MakeCalls>((value) => typeof value === 'function') });

const atServer = () => ({ url: server.url, apiKey: admin.raw_key, organizationId: admin.organization_id });

/** Two integrations, a number of the first, a refused deletion, the number moved, and the deletion. */
async function journey(calls: Calls) {
  const [number = ''] = newNumbers(1);
  const old = await calls.createIntegration('Old');
  const replacement = await calls.createIntegration('Replacement');
  const phone_number_id = await calls.importNumber(old, number);
  const refused = await calls.deleteIntegration(old);
  const { status: reassigned } = await calls.reassign(phone_number_id, replacement);
  const { status: deleted } = await calls.deleteIntegration(old);
  const isNamed = (refused.references ?? [number]).join() === number;
  return { refused: refused.status, isNamed, reassigned, deleted };
}

const asWanted = { refused: 409, isNamed: true, reassigned: 200, deleted: 200 };

describe('generated clients do the journey', () => {
  it.each(generators)('$folder', async ({ folder, packages, program, parameters }) => {
    const place = join(directory, folder);
    await rm(join(place, 'generated'), { recursive: true, force: true });
    expect(await failureOf(program, parameters, place)).toBeUndefined();
    expect(await failureOf('tsc', [...strict, 'calls.ts'], place)).toBeUndefined();
    const { makeCalls } = madeClient.parse(await import(join(place, 'calls.ts')));
    expect(await journey(makeCalls(atServer()))).toEqual(asWanted);

    const versions = await Promise.all(packages.map(versionOf));
    rows.push({
      tool: packages.join(' + '),
      version: versions.join(' + '),
      generated: 'yes',
      compiles: 'yes',
      journey: 'yes',
    });
  });
});

const header = z.looseObject({ key: z.string(), value: z.unknown() });
const item: z.ZodType<object> = z.lazy(() =>
  z.union([
    z.looseObject({ item: z.array(item) }),
    z.looseObject({ request: z.looseObject({ header: z.array(header).optional() }) }),
  ]),
);
const collection = z.looseObject({ item: z.array(item) });

const report = z.object({
  run: z.object({
    executions: z.array(
      z.object({ item: z.object({ name: z.string() }), response: z.object({ code: z.number() }).optional() }),
    ),
  }),
});

describe('Postman', () => {
  let temporary: string;

  beforeAll(async () => {
    temporary = await temporaryDirectory();
  });

  afterAll(() => removeDirectory(temporary));

  it('sends the collection made of the document, and no request is a 400', async () => {
    const [made, filled, told] = ['made', 'filled', 'told'].map((name) => join(temporary, `${name}.json`));
    const options = 'parametersResolution=Example,enableOptionalParameters=false';
    const conversion = ['-s', document, '-o', String(made), '-O', options];
    expect(await failureOf('openapi2postmanv2', conversion)).toBeUndefined();
    const text = await readFile(String(made), 'utf8');
    await writeFile(
      String(filled),
      JSON.stringify(collection.parse(JSON.parse(text)), (_, value: unknown) => {
        const { success, data } = header.safeParse(value);
        return success && data.key === 'X-Organization-Id' ? { ...data, value: '{{organizationId}}' } : value;
      }),
    );
    const { url, apiKey, organizationId } = atServer();
    const variables = Object.entries({ baseUrl: url, apiKey, organizationId });
    const values = variables.flatMap(([name, value]) => ['--env-var', `${name}=${value}`]);
    const reporting = ['--reporters', 'json', '--reporter-json-export', String(told)];
    expect(await failureOf('newman', ['run', String(filled), ...values, ...reporting])).toBeUndefined();

    const { executions } = report.parse(JSON.parse(await readFile(String(told), 'utf8'))).run;
    const statuses = executions.map(({ response }) => response?.code ?? 0);
    expect(statuses).toHaveLength(operations.length);
    expect(statuses.filter((status) => ![200, 201, 404, 409].includes(status))).toEqual([]);
    expect(statuses.filter((status) => status < 300).length).toBeGreaterThan(5);
    const versions = [await versionOf('openapi-to-postmanv2'), await versionOf('newman')];
    rows.push({
      tool: 'openapi-to-postmanv2 + newman',
      version: versions.join(' + '),
      generated: 'yes',
      compiles: '',
      journey: 'every request, no 400',
    });
  });
});

describe('Prism', () => {
  let url: string;
  let end: () => Promise<unknown>;

  beforeAll(async () => {
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    const parameters = ['proxy', document, server.url, '--errors', '--port', String(port), '--verboseLevel', 'error'];
    const child = spawn(join(directory, 'node_modules/.bin/prism'), parameters, { stdio: 'ignore' });
    end = () => {
      child.kill();
      return once(child, 'exit');
    };
    await vi.waitFor(() => fetch(`${url}/health`), LAST_NET);
  });

  afterAll(() => end());

  const ask = async (method: string, path: string, client: Client, body?: object) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        'X-API-Key': client.raw_key,
        'X-Organization-Id': client.organization_id,
        ...(body && { 'Content-Type': 'application/json' }),
      },
      body: body ? JSON.stringify(body) : null,
    });
    return { status: response.status, body: z.looseObject({}).parse(await response.json()) };
  };

  it('sees no violation of the document, in successes and refusals', async () => {
    const { makeCalls } = madeClient.parse(await import(join(directory, 'openapi-typescript/calls.ts')));
    expect(await journey(makeCalls({ ...atServer(), url }))).toEqual(asWanted);

    const integration_id = await server.createIntegration(admin);
    const [number = '', another = ''] = newNumbers(2);
    const phone_number_id = await server.importNumber(admin, integration_id, number);
    const user = await server.newKey(admin.organization_id, 'user');
    const sip = {
      phone_number: another,
      provider: 'sip',
      sip_server_address: 'sip.example.com',
      supports_outbound: true,
    };
    const unknown = 'intg_000000000000';

    const more = [
      ['GET', '/health', admin, { status: 200 }],
      ['GET', '/api/integrations?provider=twilio&page_size=1', admin, { status: 200 }],
      ['GET', `/api/integrations/${integration_id}`, admin, { status: 200 }],
      ['PUT', `/api/integrations/${integration_id}`, admin, { status: 200 }, { name: 'Renamed', credentials: twilio }],
      ['POST', '/api/phone-numbers', admin, { status: 201 }, sip],
      ['GET', '/api/phone-numbers?status=free', admin, { status: 200 }],
      ['GET', `/api/phone-numbers/${phone_number_id}`, admin, { status: 200 }],
      ['POST', '/api/api-keys', admin, { status: 201 }, { name: 'New', role: 'user', expires_at: null }],
      ['POST', `/api/api-keys/${user.key_id}/rotate`, admin, { status: 201 }, { overlap_seconds: 3600 }],
      ['GET', '/api/api-keys', admin, { status: 200 }],
      ['DELETE', `/api/api-keys/${user.key_id}?descendants=true`, admin, { status: 200 }],
      ['GET', '/api/audit-events?action=integration.deleted', admin, { status: 200 }],
      ['GET', `/api/integrations/${unknown}`, admin, problem(404, 'integration_not_found')],
      ['POST', '/api/phone-numbers', admin, problem(409, 'phone_number_exists'), { ...sip, phone_number: number }],
      [
        'PUT',
        `/api/phone-numbers/${phone_number_id}?verify=false`,
        admin,
        problem(404, 'integration_not_found'),
        { integration_id: unknown },
      ],
      ['GET', '/api/integrations?cursor=x', admin, problem(422, 'validation_failed')],
      ['GET', '/api/integrations', { ...admin, raw_key: 'bk_live_wrong' }, problem(401, 'invalid_api_key')],
      ['GET', '/api/integrations', { ...admin, organization_id: 'org_other' }, problem(403, 'organization_mismatch')],
      ['DELETE', `/api/phone-numbers/${phone_number_id}`, admin, { status: 200 }],
    ] as const;
    for (const [method, path, client, expected, body] of more) {
      expect(await ask(method, path, client, body), `${method} ${path}`).toMatchObject(expected);
    }

    const seen = await ask('POST', '/api/integrations', admin, { name: 5 });
    expect(seen.body, 'a violation is seen').toMatchObject({ type: expect.stringContaining('prism/errors') });

    rows.push({
      tool: 'Prism, as a proxy',
      version: await versionOf('@stoplight/prism-cli'),
      generated: '',
      compiles: '',
      journey: `yes, and no violation in ${more.length} more calls`,
    });
  });
});

const pageOf = (table: Row[]) => `# What other tools make of the document

\`npm run consumers\` writes this page. \`test/conformance/consumers.exhaustive.test.ts\` gives [the OpenAPI document](../public/openapi.json) to each tool, and fails when one of them does not do what is said here.

- **generated**: the tool reads the document and makes what it is for.
- **compiles**: what it made, and a file that uses it, pass \`tsc --strict\`.
- **journey**: against the running Worker, that client creates two integrations, imports a number through the first, is refused its deletion (409 \`integration_in_use\`), moves the number to the second, and deletes the first.

${markdownTable(table)}

The tools are in [test/consumers/](../test/consumers/package.json), which has a lock file of its own, so that \`npm ci\` of the project does not install them.
`;

describe('docs/consumers.md', () => {
  it('tells what the tools did', async () => {
    expect(rows).toHaveLength(generators.length + 4);
    await expect(pageOf(rows)).toMatchFileSnapshot('../../docs/consumers.md');
  });
});
