/** What an older Node says, where `npm ci` brings none. */
import { expect, it } from 'vitest';
import packageJson from '../../package.json' with { type: 'json' };
import { run, runScript } from '../processes.ts';

const guard = '--import ./src/dev/needs-node.js ';
const programs = Object.entries(packageJson.scripts).filter(([, line]) => /(?:^| )node .+\.ts/.test(line));

it.each(programs)('%s looks first whether Node is new enough', (_, line) => {
  expect(line).toContain(`node ${guard}`);
});

it('says in one line that Node is too old', async () => {
  const old = "data:text/javascript,Object.defineProperty(process, 'versions', { value: { node: '20.20.2' } })";

  const words = `${guard}src/dev/server.ts`.split(' ');
  const { code, stdout, stderr } = await run(process.execPath, ['--import', old, ...words]);

  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(/^This needs Node 24 or newer, and runs on 20\.20\.2\. .+\n$/);
});

it('lets a Node that is new enough run the script', async () => {
  expect(await runScript('check:lock')).toEqual({ code: 0, stdout: '', stderr: '' });
});
