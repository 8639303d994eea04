/** What holds for each of the operator's commands, also for those that are still to come. */
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { programOf, removeDirectory, run, temporaryDirectory } from '../processes.ts';
import { commands } from './every-command.ts';

const importing = (code: string) => ['--import', `data:text/javascript,${encodeURIComponent(code)}`];

/** Ends a command that loads one of these packages. */
const without = (...packages: string[]) =>
  importing(`
    import { registerHooks } from 'node:module';
    registerHooks({
      load(url, context, next) {
        if (${JSON.stringify(packages)}.some((name) => url.includes('/node_modules/' + name + '/'))) throw new Error('loaded ' + url);
        return next(url, context);
      },
    });`);

const wrangler = ['wrangler', 'miniflare', 'workerd'];
const slow = [...wrangler, 'drizzle-orm'];

/** In place of wrangler, bindings that end the command at the first touch. */
const untouchable = importing(`
  import { registerHooks } from 'node:module';
  const wrangler = \`
    const touch = () => { throw new Error('the database was touched'); };
    export const getPlatformProxy = async () => ({
      env: { DB: new Proxy({}, { get: touch }), CREDENTIALS: new Proxy({}, { get: touch }) },
      async dispose() {},
    });
    export const unstable_readConfig = () => ({
      d1_databases: [{ binding: 'DB', database_name: 'telephony', database_id: '0123' }],
      kv_namespaces: [],
    });\`;
  const url = 'data:text/javascript,' + encodeURIComponent(wrangler);
  registerHooks({
    resolve: (name, context, next) => (name === 'wrangler' ? { url, shortCircuit: true } : next(name, context)),
  });`);

/** Files that the examples name, by the command that reads them. */
const files: Record<string, Record<string, string>> = {
  'keks:rotate': { 'secrets.json': ring() },
  'recovery:replay': { 'secrets.json': ring(), 'events.jsonl': '' },
};

function ring(): string {
  const keys = { k1: randomBytes(32).toString('base64') };
  return JSON.stringify({ CREDENTIALS_KEKS: JSON.stringify({ current: 'k1', keys }) });
}

let parent: string;

beforeAll(async () => {
  parent = await temporaryDirectory();
});

afterAll(() => removeDirectory(parent));

describe.each(commands)('%s', (script) => {
  let cwd: string;
  /** The options of the example. */
  let example: string[];

  const start = (hook: string[], ...parameters: string[]) =>
    run(process.execPath, [...hook, ...programOf(script), ...parameters], { cwd });

  const locally = (directory: string) =>
    example.flatMap((word) => (word === '--remote' ? ['--persist-to', directory] : [word]));

  beforeAll(async () => {
    cwd = join(parent, script);
    await mkdir(join(cwd, 'state/v3/d1'), { recursive: true });
    for (const [name, text] of Object.entries(files[script] ?? {})) await writeFile(join(cwd, name), text);
    const { stdout } = await start([], '--help');
    const [, words = ''] = new RegExp(`^Example: npm run ${script} -- (.+)$`, 'm').exec(stdout) ?? [];
    example = (await run('sh', ['-c', `printf '%s\\n' ${words}`])).stdout.trimEnd().split('\n');
  });

  it('says how it is used, with an example, and loads nothing for it that takes long', async () => {
    expect(await start(without(...slow), '--help')).toEqual({
      code: 0,
      stdout: expect.stringMatching(new RegExp(`^Usage: npm run [^]*\nExample: npm run ${script} -- --`)),
      stderr: '',
    });
  });

  it('says what is wrong with its options, and loads nothing for it that takes long', async () => {
    const { code, stdout, stderr } = await start(without(...slow), '--unknown');

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain('--unknown is not a known option\n');
    expect(stderr).toContain('\n\nUsage: ');
  });

  it('says in one line that there is no local database, and loads no wrangler for it', async () => {
    const nowhere = join(cwd, 'nowhere');

    expect(await start(without(...wrangler), ...locally(nowhere))).toEqual({
      code: 2,
      stdout: '',
      stderr: `There is no database in ${nowhere}. To make one, add --create to keys:create or operators:create, or run first: npm run dev -- --persist-to ${nowhere}\n`,
    });
  });

  it('says which database it works on before it touches it: a local one', async () => {
    const { code, stdout, stderr } = await start(untouchable, ...locally('state'));

    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^Database: local, in .+\/state\n[^]*the database was touched/);
    expect(stderr).toContain(`in ${join(cwd, 'state')}\n`);
  });

  it('says which database it works on before it touches it: the deployed one, with its example', async () => {
    const { code, stdout, stderr } = await start(untouchable, ...example);

    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^Database: deployed, telephony \(id 0123\)\n[^]*the database was touched/);
  });
});
