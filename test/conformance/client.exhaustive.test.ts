/** The packed client on the oldest Node that it supports, whatever Node the machine has. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { removeDirectory, run } from '../processes.ts';
import { compile, consumer, expectJourney, newConsumer, succeed } from './consumer.ts';
import { joinServer } from './server.ts';

const server = joinServer();
let directory: string;

beforeAll(async () => {
  ({ directory } = await newConsumer());
  await writeFile(join(directory, 'consumer.ts'), consumer);
  const platform = process.platform === 'win32' ? 'win' : process.platform;
  await succeed('npm', ['install', '--no-save', '--no-audit', `node-${platform}-${process.arch}@20`], directory);
});

afterAll(() => removeDirectory(directory));

it('makes the journey from the 409 to the 200 on Node 20', async () => {
  const node = join(directory, 'node_modules/.bin/node');
  expect((await run(node, ['--version'])).stdout).toMatch(/^v20\./);
  expect(await compile(directory)).toMatchObject({ code: 0 });

  await expectJourney(server, node, join(directory, 'consumer.js'));
});
