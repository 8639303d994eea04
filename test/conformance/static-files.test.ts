/** What is served without the Worker, beside the reference page itself. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import { joinServer } from './server.ts';

const server = joinServer();

const ask = (path: string, method = 'GET') => fetch(server.url + path, { method, redirect: 'manual' });

const files = [
  ['/', 'text/html; charset=utf-8'],
  ['/console', 'text/html; charset=utf-8'],
  ['/console/console.js', 'text/javascript; charset=utf-8'],
  ['/console/style.css', 'text/css; charset=utf-8'],
  ['/docs', 'text/html; charset=utf-8'],
  ['/openapi.json', 'application/json'],
  ['/llms.txt', 'text/plain; charset=utf-8'],
  ['/favicon.ico', 'image/vnd.microsoft.icon'],
  ['/robots.txt', 'text/plain; charset=utf-8'],
  ['/.well-known/security.txt', 'text/plain; charset=utf-8'],
] as const;

function expectSecurityHeaders(headers: Headers) {
  expect(headers.get('Content-Security-Policy')).toContain("default-src 'none'");
  expect(headers.get('X-Content-Type-Options')).toBe('nosniff');
  expect(headers.get('X-Frame-Options')).toBe('DENY');
  expect(headers.get('Referrer-Policy')).toBe('no-referrer');
  expect(headers.get('Strict-Transport-Security')).toMatch(/^max-age=\d{8};/);
}

describe('a file that is served without the Worker', () => {
  it.each(files)('is at %s, with its type and the security headers', async (path, type) => {
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await ask(path, method);

      expect([method, status]).toEqual([method, 200]);
      expect(headers.get('Content-Type')).toBe(type);
      expectSecurityHeaders(headers);
    }
  });

  it.each(files)('%s answers other methods with 405 and what it allows', async (path) => {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      const { status, headers } = await ask(path, method);

      expect([method, status]).toEqual([method, 405]);
      expect(headers.get('Allow')).toBe('GET, HEAD');
    }
  });
});

it('the console lets no text become HTML or a script, and nobody frames it', async () => {
  const { headers } = await ask('/console');
  const policy = headers.get('Content-Security-Policy');

  expect(policy).toContain("frame-ancestors 'none'");
  expect(policy).toContain("require-trusted-types-for 'script'; trusted-types 'none'");
});

it('the front page leads to the console, the reference, its document and the health', async () => {
  const text = await (await ask('/')).text();

  for (const path of ['/console', '/docs', '/openapi.json', '/health']) {
    expect(text).toContain(`href="${path}"`);
    expect((await ask(path)).status).toBe(200);
  }
});

it('security.txt expires a year after the newest release, which renews it', async () => {
  const changelog = await readFile(join(projectDirectory, 'CHANGELOG.md'), 'utf8');
  const [, year, day] = /^## \d+\.\d+\.\d+ - (\d{4})(-\d\d-\d\d)$/m.exec(changelog) ?? [];
  const text = await (await ask('/.well-known/security.txt')).text();

  expect(text).toMatch(/^Contact: https:\/\//m);
  expect(text.match(/^Expires: .*$/gm)).toEqual([`Expires: ${Number(year) + 1}${day}T00:00:00Z`]);
});
