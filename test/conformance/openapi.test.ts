/** The OpenAPI document: what is served, what is kept, and what the routes say are one. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { openApiDocument, operatorsDocument } from '../../src/openapi/document.ts';
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import { app } from '../../src/worker/app.ts';
import { run } from '../processes.ts';
import { joinServer, newNumbers } from './server.ts';
import type { Client } from './server.ts';

const example = z.record(z.string(), z.object({ value: z.record(z.string(), z.unknown()) }));
const document = z.object({
  info: z.object({ version: z.string() }),
  paths: z.record(
    z.string(),
    z.record(
      z.string(),
      z.object({
        requestBody: z
          .object({ content: z.object({ 'application/json': z.object({ examples: example }) }) })
          .optional(),
        responses: z.record(z.string(), z.unknown()),
      }),
    ),
  ),
});

const hasPython = await run('python3', ['--version']).then(
  ({ code }) => code === 0,
  () => false,
);

const createdKey = z.object({ data: z.object({ key: z.object({ key_id: z.string() }) }) });

const kept = await readFile(join(projectDirectory, 'public/openapi.json'), 'utf8');
const { paths, info } = document.parse(JSON.parse(kept));

const server = joinServer();
let admin: Client;

beforeAll(async () => {
  admin = await server.newOrganization();
});

const importedNumber = z.object({ data: z.object({ phone_number_id: z.string() }) });

async function importSip(phone_number: string): Promise<string> {
  const body = { phone_number, provider: 'sip', sip_username: 'user', sip_password: 'password' };
  const answer = await server.call(admin, 'POST', '/api/phone-numbers', { body });
  return importedNumber.parse(answer.body).data.phone_number_id;
}

const createdEndpoint = z.object({ data: z.object({ endpoint: z.object({ endpoint_id: z.string() }) }) });

/** It is disabled, so nothing is sent. */
async function createWebhookEndpoint(): Promise<string> {
  const body = { url: 'https://hooks.example.com/', events: ['*'], enabled: false };
  const answer = await server.call(admin, 'POST', '/api/webhook-endpoints', { body });
  return createdEndpoint.parse(answer.body).data.endpoint.endpoint_id;
}

const documentedIn = (described: z.output<typeof document>['paths']) =>
  new Set(
    Object.entries(described).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
    ),
  );

/** The routes of the app, but for that of the operators' document itself. */
function mounted() {
  const names = app.routes
    .filter(({ method, path }) => method !== 'ALL' && !path.includes('*') && path !== OPERATORS_DOCUMENT)
    .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`);
  const isOperators = (name: string) => name.includes(' /operator/');
  return {
    ofOperators: new Set(names.filter(isOperators)),
    others: new Set(names.filter((name) => !isOperators(name))),
  };
}

const OPERATORS_DOCUMENT = '/operator/openapi.json';

describe('the operators’ OpenAPI document', () => {
  it('is up to date in the repository, and served as it is there', async () => {
    const own = JSON.parse(await readFile(join(projectDirectory, `public${OPERATORS_DOCUMENT}`), 'utf8'));
    expect(own).toEqual(JSON.parse(JSON.stringify(operatorsDocument())));

    const answer = await fetch(`${server.url}${OPERATORS_DOCUMENT}`);

    expect(answer.status).toBe(200);
    expect(await answer.json()).toEqual(own);
  });
});

describe('the OpenAPI document', () => {
  it('is up to date in the repository: `npm run openapi` changes nothing', () => {
    expect(JSON.parse(kept)).toEqual(JSON.parse(JSON.stringify(openApiDocument())));
  });

  it('is served to anybody as it is in the repository', async () => {
    const response = await fetch(`${server.url}/openapi.json`);

    expect(response.status).toBe(200);
    expect(response.headers.get('Content-Type')).toMatch(/^application\/json/);
    expect(await response.text()).toBe(kept);
  });

  it('has every route of the app and no other, but for those of operators', () => {
    const { ofOperators, others } = mounted();

    expect(documentedIn(paths)).toEqual(others);
    expect(documentedIn(document.parse(JSON.parse(JSON.stringify(operatorsDocument()))).paths)).toEqual(ofOperators);
  });

  it('has the same version as GET /health', async () => {
    const { body } = await server.call(admin, 'GET', '/health');

    expect(body).toEqual({ status: 'ok', version: info.version, database: 'ok', credentials: 'ok' });
  });

  const bodies = Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).flatMap(([method, { requestBody, responses }]) =>
      Object.entries(requestBody?.content['application/json'].examples ?? {}).map(([name, { value }]) => ({
        call: `${method.toUpperCase()} ${path}`,
        name,
        method: method.toUpperCase(),
        path,
        value,
        status: Number(Object.keys(responses)[0]),
      })),
    ),
  );

  it.each(bodies)(
    'has a body example “$name” for $call that the API accepts',
    async ({ method, path, value, status }) => {
      const [imported = '', another] = newNumbers(2);
      const integration_id = await server.createIntegration(admin);
      const other = await server.createIntegration(admin);
      // What only SIP numbers have is changed of one.
      const phone_number_id =
        'sip_transport' in value || 'sip_password' in value
          ? await importSip(imported)
          : await server.importNumber(admin, integration_id, imported);
      const body = {
        ...value,
        ...('phone_number' in value ? { phone_number: another } : {}),
        ...('integration_id' in value ? { integration_id: other } : {}),
        ...('phone_number_ids' in value ? { phone_number_ids: [phone_number_id] } : {}),
        ...('set' in value && JSON.stringify(value.set).includes('intg_') ? { set: { integration_id: other } } : {}),
      };

      const key = await server.call(admin, 'POST', '/api/api-keys', { body: { name: 'Rotated', role: 'user' } });
      const { key_id } = createdKey.parse(key.body).data.key;
      const endpoint_id = path.includes('{endpoint_id}') ? await createWebhookEndpoint() : '';
      const ids = { integration_id, phone_number_id, key_id, endpoint_id };
      const concrete = path.replace(/\{(\w+)\}/, (_, name: keyof typeof ids) => ids[name]);
      // The account need not have a number that no other test has.
      const query = 'integration_id' in value ? '?verify=false' : '';
      const answer = await server.call(admin, method, `${concrete}${query}`, { body });

      expect(answer).toMatchObject({ status, body: { success: true } });
    },
  );
});

/** Every object in the document, with the path to it. */
function* objectsIn(
  value: unknown,
  path: string[] = [],
): Generator<{ path: string[]; object: Record<string, unknown> }> {
  if (typeof value !== 'object' || value === null) return;
  if (!Array.isArray(value)) yield { path, object: anyObject.parse(value) };
  for (const [name, part] of Object.entries(value)) yield* objectsIn(part, [...path, name]);
}

const anyObject = z.record(z.string(), z.unknown());
const reference = z.object({ $ref: z.string().regex(/^#\/components\/schemas\/(?:[A-Z][a-z0-9]+)+$/) });
const titled = z.object({ title: z.string() });

const whole: unknown = JSON.parse(kept);
const objects = [...objectsIn(whole)];
const { components } = z.object({ components: z.record(z.string(), anyObject) }).parse(whole);

describe('the OpenAPI document, for tools of all kinds', () => {
  const patterns = new Set(
    objects.flatMap(({ path, object }) =>
      typeof object['pattern'] === 'string' && path.at(-1) !== 'properties' ? [object['pattern']] : [],
    ),
  );

  it('has patterns that Python, RE2, and JavaScript with and without the u flag read alike', () => {
    const known = /^(?:[ -[\]-~]|\\[dx.+*?^$()[\]{}|/\\-])*$/;
    const onlySome = /\(\?[^:]|\\[1-9]/;
    expect(patterns.size).toBeGreaterThan(5);
    expect([...patterns].filter((pattern) => !known.test(pattern) || onlySome.test(pattern))).toEqual([]);
    for (const flags of ['', 'u'])
      for (const pattern of patterns) expect(() => new RegExp(pattern, flags)).not.toThrow();
  });

  it.skipIf(!hasPython)('has patterns that Python compiles (skipped without python3)', async () => {
    const program = 'import json, re, sys\nfor pattern in json.loads(sys.argv[1]): re.compile(pattern)';

    expect(await run('python3', ['-c', program, JSON.stringify([...patterns])])).toMatchObject({ code: 0, stderr: '' });
  });

  it('has unions of components with different titles, and a discriminator where one field tells them apart', () => {
    const unions = objects.flatMap(({ path, object }) => {
      const alternatives = object['oneOf'] ?? object['anyOf'];
      return alternatives === undefined ? [] : [{ path: path.join('/'), alternatives, object }];
    });
    expect(unions.length).toBeGreaterThan(5);
    for (const { path, alternatives, object } of unions) {
      const names = z.array(reference).parse(alternatives, { reportInput: true }).map(nameIn);
      const titles = names.map((name) => titled.parse(components['schemas']?.[name]).title);
      expect(new Set(titles).size, path).toBe(titles.length);
      const isUndecided =
        path === 'components/schemas/IntegrationCredentials' ||
        /^components\/schemas\/PhoneNumbers(?:Changes|Deletion)$/.test(path) ||
        /(?:AuditEvent\/properties\/state|WebhookEvent\/properties\/data\/properties\/state|\/200\/content\/application\/json\/schema)$/.test(
          path,
        );
      expect('discriminator' in object, path).toBe(!isUndecided);
    }
  });

  it('has a name for the schema of every body, all in one style', () => {
    const bodies = objects.flatMap(({ path, object }) =>
      /^application\/(?:problem\+)?json$/.test(path.at(-1) ?? '') ? [object['schema']] : [],
    );
    const isUnion = z.object({ oneOf: z.array(reference) });

    expect(bodies.length).toBeGreaterThan(20);
    expect(bodies.filter((schema) => !z.union([reference, isUnion]).safeParse(schema).success)).toEqual([]);
    for (const kind of ['schemas', 'responses', 'parameters']) {
      expect(Object.keys(components[kind] ?? {}).filter((name) => !/^(?:[A-Z][a-z0-9]+)+$/.test(name))).toEqual([]);
    }
  });

  it('hides every secret, and nothing else', () => {
    const ofProviders = ['api_key', 'api_key_secret', 'api_secret', 'auth_token', 'private_key', 'signature_secret'];
    const secrets = [...ofProviders, 'inbound_pin', 'sip_password'];
    const hidden = objects.filter(({ object }) => object['writeOnly'] === true && object['format'] === 'password');
    const named = objects.filter(({ path }) => path.at(-2) === 'properties' && secrets.includes(path.at(-1) ?? ''));

    expect(new Set(hidden.map(({ path }) => path.at(-1)))).toEqual(new Set(secrets));
    expect(named.map(({ path }) => path)).toEqual(hidden.map(({ path }) => path));
  });

  it('asks for X-Organization-Id on every call under /api but whoami, and proposes no Idempotency-Key', () => {
    const calls = objects.filter(
      ({ path }) =>
        path.length === 3 && path[0] === 'paths' && path[1]?.startsWith('/api') && path[1] !== '/api/whoami',
    );
    const asked = expect.arrayContaining([
      expect.objectContaining({ name: 'X-Organization-Id', in: 'header', required: true }),
    ]);

    expect(calls.length).toBeGreaterThan(10);
    for (const { object } of calls) expect(object['parameters']).toEqual(asked);
    expect(whole).toMatchObject({ security: [{ ApiKey: [] }] });
    const keys = objects.filter(({ object }) => object['name'] === 'Idempotency-Key');
    expect(keys.length).toBeGreaterThan(5);
    for (const { object } of keys) expect(JSON.stringify(object)).not.toMatch(/"(?:example|examples|default)"/);
  });

  it('has messages that may be reworded', () => {
    const messages = objects.filter(({ path }) => path.at(-2) === 'properties' && path.at(-1) === 'message');

    expect(messages.length).toBeGreaterThan(3);
    for (const { object } of messages) expect(object).not.toHaveProperty('const');
  });
});

const nameIn = ({ $ref }: z.output<typeof reference>) => $ref.replace('#/components/schemas/', '');
