/** The OpenAPI document: what is served, what is kept, and what the routes say are one. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { openApiDocument } from '../../src/openapi/document.ts';
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import { app } from '../../src/worker/app.ts';
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

const createdKey = z.object({ data: z.object({ key: z.object({ key_id: z.string() }) }) });

const kept = await readFile(join(projectDirectory, 'public/openapi.json'), 'utf8');
const { paths, info } = document.parse(JSON.parse(kept));

const server = joinServer();
let admin: Client;

beforeAll(async () => {
  admin = await server.newOrganization();
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

  it('has every route of the app and no other', () => {
    const routes = app.routes.filter(({ method, path }) => method !== 'ALL' && !path.includes('*'));

    const mounted = new Set(routes.map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`));
    const documented = Object.entries(paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(new Set(documented)).toEqual(mounted);
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
      const phone_number_id = await server.importNumber(admin, integration_id, imported);
      const body = {
        ...value,
        ...('phone_number' in value ? { phone_number: another } : {}),
        ...('integration_id' in value ? { integration_id: other } : {}),
      };

      const key = await server.call(admin, 'POST', '/api/api-keys', { body: { name: 'Rotated', role: 'user' } });
      const { key_id } = createdKey.parse(key.body).data.key;
      const ids = { integration_id, phone_number_id, key_id };
      const concrete = path.replace(/\{(\w+)\}/, (_, name: keyof typeof ids) => ids[name]);
      const answer = await server.call(admin, method, concrete, { body });

      expect(answer).toMatchObject({ status, body: { success: true } });
    },
  );
});
