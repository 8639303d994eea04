/** The files of the console, as `npm run build` makes them. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { projectDirectory } from '../../src/operator/command-line/project.ts';

const MAX_GZIP_BYTES = 60 * 1024;

const built = join(projectDirectory, 'public/console');
const pages = ['public/console.html', 'public/index.html'].map((path) => join(projectDirectory, path));

let files: Record<string, string>;

beforeAll(async () => {
  const paths = [...pages, ...(await readdir(built)).map((name) => join(built, name))];
  files = Object.fromEntries(
    await Promise.all(paths.map(async (path) => [path, await readFile(path, 'utf8')] as const)),
  );
});

describe('the files of the console', () => {
  it('are at most 60 KiB, compressed', () => {
    const bytes = Object.values(files).reduce((sum, text) => sum + gzipSync(text).length, 0);
    expect(bytes).toBeLessThanOrEqual(MAX_GZIP_BYTES);
  });

  it('load nothing from another host, and have no script or style within the page', () => {
    const elsewhere = /@import|url\(["']?(?:https?:)?\/\/|import\(|(?:src|href)="(?:https?:)?\/\//;
    expect(Object.keys(files).filter((path) => elsewhere.test(files[path] ?? ''))).toEqual([]);
    const within = /<style|<script(?![^>]* src=)| style=| on[a-z]+=/;
    expect(pages.filter((path) => within.test(files[path] ?? ''))).toEqual([]);
  });

  it.each([
    ['the Worker’s queries', 'drizzle'],
    ['the OpenAPI document', 'components'],
    ['evaluation of text', 'new Function('],
  ])('have no %s in them', (_, text) => {
    expect(Object.values(files).some((file) => file.includes(text))).toBe(false);
  });

  it('can be searched for such text: they have the view of the deletion', () => {
    expect(Object.values(files).some((file) => file.includes('Delete'))).toBe(true);
  });
});
