/** The client's package as one who installs it has it: the packed tarball, in a project that has nothing else but what it
 * depends on. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { removeDirectory } from '../processes.ts';
import { bundleForBrowsers, compile, consumer, expectJourney, newConsumer } from './consumer.ts';
import { joinServer } from './server.ts';

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
      'LICENSE',
      'README.md',
      'dist/client/calls.d.ts',
      'dist/client/calls.js',
      'dist/client/client.d.ts',
      'dist/client/client.js',
      'dist/client/lists.d.ts',
      'dist/client/lists.js',
      'dist/client/path-parameters.js',
      'dist/client/problem.d.ts',
      'dist/client/problem.js',
      'dist/client/transport.d.ts',
      'dist/client/transport.js',
      'dist/client/webhook.d.ts',
      'dist/client/webhook.js',
      'dist/worker/core/errors.d.ts',
      'dist/worker/core/permissions.d.ts',
      'dist/worker/core/vocabulary.d.ts',
      'package.json',
    ]);
  });

  it('imports Hono and its own files alone, in its code and in its types; and to verify, Standard Webhooks', async () => {
    for (const file of files.filter((name) => name.startsWith('dist/'))) {
      const text = await readFile(join(directory, 'node_modules/patchbay-client', file), 'utf8');
      for (const [, name = ''] of text.matchAll(/(?:from |import\()["']([^"']+)["']/g)) {
        if (file === 'dist/client/webhook.js' && name === 'standardwebhooks') continue;
        expect(name).toMatch(/^(?:hono(?:\/|$)|\.\.?\/[\w./-]+\.(?:ts|js)$)/);
      }
    }
  });

  it.each([
    ['nodenext', 'strictest'],
    ['nodenext', 'strict'],
    ['bundler', 'strictest'],
    ['bundler', 'strict'],
  ])('compiles under %s, %s, and refuses there what the API would refuse', async (resolution, strictness) => {
    expect(await compile(directory, resolution, strictness)).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  it.each(['consumer.js', 'bundle.mjs'])('makes the journey from the 409 to the 200: %s', async (program) => {
    expect(await compile(directory)).toMatchObject({ code: 0 });
    expect(await bundleForBrowsers(directory)).toMatchObject({ code: 0 });

    await expectJourney(server, process.execPath, join(directory, program));
  });

  it('leaves the library of Standard Webhooks out of a bundle that verifies nothing', async () => {
    await writeFile(join(directory, 'consumer.js'), "export { patchbayClient } from 'patchbay-client';");
    expect(await bundleForBrowsers(directory)).toMatchObject({ code: 0 });
    const bundled = await readFile(join(directory, 'bundle.mjs'), 'utf8');

    expect(bundled).toContain('X-API-Key');
    expect(bundled).not.toContain('webhook-signature');
  });
});
