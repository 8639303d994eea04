/** The typed client as one who installs it has it: compiled, by its package's name, against nothing but Hono. */
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from 'vitest';
import type { Problem } from '../../src/client/client.ts';
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import type { ProblemCode, ProblemMembers } from '../../src/worker/core/errors.ts';
import { removeDirectory, run, runScript, temporaryDirectory } from '../processes.ts';
import { joinServer, newNumbers } from './server.ts';

const consumer = `
import { patchbayClient } from 'patchbay/client';
import type { Problem } from 'patchbay/client';

const [url = '', apiKey = '', organizationId = ''] = process.argv.slice(2);
const patchbay = patchbayClient(url, { apiKey, organizationId });

const listed = await patchbay.api.integrations.$get({ query: { provider: 'twilio', page_size: '1' } });
if (!listed.ok) throw new Error((await listed.json()).detail);
const { data: [integration], pagination } = await listed.json();
const total: number = pagination.total_count;
if (!integration) throw new Error('no integration');
const provider: 'twilio' | 'telnyx' | 'vonage' | 'plivo' = integration.provider;

const param = { integration_id: integration.integration_id };
const refused = await patchbay.api.integrations[':integration_id'].$delete({ param });
const numbers: string[] = [];
if (!refused.ok) {
  const problem: Problem = await refused.json();
  if (problem.code === 'integration_in_use') {
    for (const { phone_number } of problem.references ?? []) numbers.push(phone_number);
  }
}

const renamed = await patchbay.api.integrations[':integration_id'].$put({ param, json: { name: 'Renamed' } });
const name: string = renamed.ok ? (await renamed.json()).data.name : '';
console.log(JSON.stringify({ total, provider, numbers, name }));

// @ts-expect-error -- no such provider
void (() => patchbay.api.integrations.$get({ query: { provider: 'acme' } }));
// @ts-expect-error -- credentials are required
void (() => patchbay.api.integrations.$post({ json: { name: 'x' } }));
// @ts-expect-error -- no such call
void (() => patchbay.api.integrations[':integration_id'].$post({ param }));
// @ts-expect-error -- the organization is required
void (() => patchbayClient(url, { apiKey }));
`;

const compilerOptions = {
  strict: true,
  exactOptionalPropertyTypes: true,
  target: 'es2022',
  module: 'nodenext',
  lib: ['es2022', 'dom', 'dom.iterable'],
  types: ['node'],
  typeRoots: [join(projectDirectory, 'node_modules/@types')],
  skipLibCheck: false,
};

type MemberOf<Members> = Members extends unknown ? keyof Members : never;

const server = joinServer();
let directory: string;

beforeAll(async () => {
  const { code, stderr } = await runScript('build:client');
  if (code !== 0) throw new Error(stderr);
  directory = await temporaryDirectory();
  await mkdir(join(directory, 'node_modules/patchbay/dist'), { recursive: true });
  for (const file of ['package.json', 'dist/client.js', 'dist/client.d.ts']) {
    const content = await readFile(join(projectDirectory, file), 'utf8');
    await writeFile(join(directory, 'node_modules/patchbay', file), content);
  }
  await symlink(join(projectDirectory, 'node_modules/hono'), join(directory, 'node_modules/hono'));
  await writeFile(join(directory, 'package.json'), JSON.stringify({ type: 'module' }));
  await writeFile(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
  await writeFile(join(directory, 'consumer.ts'), consumer);
});

afterAll(() => removeDirectory(directory));

describe('patchbay/client', () => {
  it('imports Hono alone, in its code and in its types', async () => {
    for (const file of ['client.js', 'client.d.ts']) {
      const text = await readFile(join(projectDirectory, 'dist', file), 'utf8');
      const imported = [...text.matchAll(/(?:from |import\()["']([^"']+)["']/g)].map(([, name]) => name);

      expect(imported.length).toBeGreaterThan(0);
      for (const name of imported) expect(name).toMatch(/^hono(\/|$)/);
    }
  });

  it('compiles in a strict consumer, and refuses there what the API would refuse', async () => {
    const compiler = join(projectDirectory, 'node_modules/typescript/bin/tsc');

    expect(await run(process.execPath, [compiler, '--project', directory])).toEqual({
      code: 0,
      stdout: '',
      stderr: '',
    });
  });

  it('calls the API', async () => {
    const { raw_key, organization_id } = await server.newOrganization();
    const integration_id = await server.createIntegration({ raw_key, organization_id });
    const numbers = newNumbers(2);
    for (const number of numbers) await server.importNumber({ raw_key, organization_id }, integration_id, number);

    const { code, stdout, stderr } = await run(process.execPath, [
      join(directory, 'consumer.js'),
      server.url,
      raw_key,
      organization_id,
    ]);

    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout)).toEqual({
      total: 1,
      provider: 'twilio',
      numbers,
      name: 'Renamed',
    });
  });

  it('has a type for every problem, with its members', () => {
    expectTypeOf<Problem['code']>().toEqualTypeOf<ProblemCode>();
    expectTypeOf<ProblemMembers[ProblemCode]>().toExtend<Partial<Problem>>();
    expectTypeOf<MemberOf<ProblemMembers[ProblemCode]>>().toExtend<keyof Problem>();
  });
});
