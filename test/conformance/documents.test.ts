/** The documents for people: links that lead somewhere, and what they name is there. */
import { existsSync, globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { projectDirectory } from '../../src/operator/command-line/project.ts';

const README_MAX_LINES = 120;

const text = (path: string) => readFile(join(projectDirectory, path), 'utf8');

const files = globSync(['*.md', 'docs/*.md'], { cwd: projectDirectory });
const documents = await Promise.all(files.map(async (path) => ({ path, markdown: await text(path) })));

const withoutCode = (markdown: string) => markdown.replaceAll(/^( *)```.*?^\1```$/gms, '');

/** What GitHub makes of a heading, for links to it. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(/\s/g, '-');

function anchorsOf(markdown: string): string[] {
  return [...withoutCode(markdown).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => anchorOf(heading));
}

/** Targets of links and images that are no address of another site. */
function relativeLinks(markdown: string): string[] {
  return [...withoutCode(markdown).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^[a-z]+:/.test(target));
}

async function isBroken(from: string, target: string): Promise<boolean> {
  const [path = '', anchor] = target.split('#');
  const file = path === '' ? from : relative('.', join(dirname(from), path));
  if (!existsSync(join(projectDirectory, file))) return true;
  return anchor !== undefined && !anchorsOf(await text(file)).includes(anchor);
}

describe('the documents', () => {
  it.each(documents)('$path links to files and headings that exist', async ({ path, markdown }) => {
    const links = relativeLinks(markdown);
    const broken = await Promise.all(links.map(async (target) => ((await isBroken(path, target)) ? [target] : [])));

    expect(broken.flat()).toEqual([]);
  });

  it('README takes two minutes: it has at most 120 lines', async () => {
    expect((await text('README.md')).trimEnd().split('\n').length).toBeLessThanOrEqual(README_MAX_LINES);
  });

  it('docs/operations.md explains every event that the Worker logs', async () => {
    const operations = await text('docs/operations.md');
    const sources = globSync('src/worker/**/*.ts', { cwd: projectDirectory });
    const code = (await Promise.all(sources.map(text))).join('\n');
    const calls = [...code.matchAll(/\blog(?:Event|Warning|Alert|Error)\('(\w+)'/g)];
    const events = new Set(calls.map(([, event = '']) => event));

    expect(events.size).toBeGreaterThan(0);
    expect([...events].filter((event) => !operations.includes(`\`${event}\``))).toEqual([]);
  });

  it.each(['package.json', 'src/client/package.json'])(
    'CHANGELOG has the version of %s as its newest',
    async (file) => {
      const { version } = z.object({ version: z.string() }).parse(JSON.parse(await text(file)));
      const [, newest] = /^## (\d\S*) - \d{4}-\d{2}-\d{2}$/m.exec(await text('CHANGELOG.md')) ?? [];

      expect(newest).toBe(version);
    },
  );
});
