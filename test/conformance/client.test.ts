/** The client's package as one who installs it has it: the packed tarball, in a project that has nothing else but Hono. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { removeDirectory, run } from '../processes.ts';
import { compile, consumer, newConsumer } from './consumer.ts';
import { joinServer, newNumbers } from './server.ts';

const server = joinServer();
let directory: string;
let files: string[];

beforeAll(async () => {
  ({ directory, files } = await newConsumer());
  await writeFile(join(directory, 'consumer.ts'), consumer);
});

afterAll(() => removeDirectory(directory));

describe('the packed client', () => {
  it('has its code, its types and its README, and nothing else', () => {
    expect(files.toSorted()).toEqual([
      'README.md',
      'dist/client/client.d.ts',
      'dist/client/client.js',
      'dist/client/lists.d.ts',
      'dist/client/lists.js',
      'dist/client/path-parameters.js',
      'dist/client/problem.d.ts',
      'dist/client/problem.js',
      'dist/client/transport.d.ts',
      'dist/client/transport.js',
      'dist/worker/core/errors.d.ts',
      'dist/worker/core/permissions.d.ts',
      'dist/worker/core/vocabulary.d.ts',
      'package.json',
    ]);
  });

  it('imports Hono and its own files alone, in its code and in its types', async () => {
    for (const file of files.filter((name) => name.startsWith('dist/'))) {
      const text = await readFile(join(directory, 'node_modules/patchbay-client', file), 'utf8');
      for (const [, name = ''] of text.matchAll(/(?:from |import\()["']([^"']+)["']/g)) {
        expect(name).toMatch(/^(?:hono(?:\/|$)|\.\.?\/[\w./-]+\.(?:ts|js)$)/);
      }
    }
  });

  it.each(['nodenext', 'bundler'])(
    'compiles under %s, and refuses there what the API would refuse',
    async (resolution) => {
      expect(await compile(directory, resolution)).toEqual({ code: 0, stdout: '', stderr: '' });
    },
  );

  it.each(['by Node', 'bundled for a browser'])('makes the journey from the 409 to the 200, run %s', async (how) => {
    const client = await server.newOrganization();
    const numbers = newNumbers(3);
    expect(await compile(directory, 'nodenext')).toMatchObject({ code: 0 });
    const bundle = ['consumer.js', '--bundle', '--platform=browser', '--format=esm', '--outfile=bundle.mjs'];
    const bundled = await run('npx', [
      '--no-install',
      'esbuild',
      ...bundle.map((word) =>
        word.replace(/^consumer/, join(directory, 'consumer')).replace('bundle.mjs', join(directory, 'bundle.mjs')),
      ),
    ]);
    expect(bundled.code).toBe(0);
    const program = how === 'by Node' ? 'consumer.js' : 'bundle.mjs';

    const { code, stdout, stderr } = await run(process.execPath, [
      join(directory, program),
      server.url,
      client.raw_key,
      client.organization_id,
      ...numbers,
    ]);

    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout)).toEqual({
      references: numbers.toSorted(),
      names: ['New', 'Old'],
      listed: numbers.toSorted(),
      deleted: 'Old',
      error: ['integration_not_found', 404, 'There is no such integration in this organization.', true],
    });
    expect(await server.rows('integrations')).toEqual(
      expect.arrayContaining([expect.objectContaining({ name: 'New', organization_id: client.organization_id })]),
    );
  });
});
