/** The reference page in a real browser, under its Content-Security-Policy. */
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import openApi from '../../public/openapi.json' with { type: 'json' };
import { joinServer } from './server.ts';

const operations = Object.values(openApi.paths).flatMap((methods) => Object.keys(methods));

const candidates = [
  process.env['CHROMIUM_PATH'] ?? '',
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];
const executablePath = candidates.find((path) => existsSync(path));
describe.skipIf(!executablePath)('the reference page (skipped without Chromium: CHROMIUM_PATH names one)', () => {
  const server = joinServer();
  let browser: Browser;

  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: executablePath ?? '',
      args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
    });
  });

  afterAll(() => browser.close());

  /** Opens the page and notes what it asks for and complains of. */
  async function open(path = '/docs') {
    const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } });
    const origins = new Set<string>();
    const complaints: string[] = [];
    page.on('request', (request) => origins.add(new URL(request.url()).origin));
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.exposeFunction('noteViolation', (directive: string) => complaints.push(directive));
    await page.addInitScript({
      content: `document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
        noteViolation(violatedDirective + ' ' + blockedURI));`,
    });
    const response = await page.goto(server.url + path);
    await page.waitForSelector('.opblock');
    return { page, response, origins, complaints };
  }

  async function authorize(page: Page) {
    await page.click('.btn.authorize');
    const dialog = page.locator('.dialog-ux');
    for (const [label, value] of [
      ['X-API-Key', server.demo.raw_key],
      ['X-Organization-Id', server.demo.organization_id],
    ] as const) {
      const scheme = dialog.locator('.auth-container', { hasText: label });
      await scheme.locator('input').fill(value);
      await scheme.locator('button.authorize').click();
    }
    await dialog.locator('.btn-done').first().click();
  }

  async function tryDelete(page: Page, integration_id: string) {
    const operation = page.locator('#operations-Integrations-deleteIntegration');
    await operation.locator('.opblock-summary-control').click();
    await operation.locator('tr[data-param-name="integration_id"] input').fill(integration_id);
    await operation.locator('button.execute').click();
    const live = operation.locator('.live-responses-table');
    await live.waitFor();
    return live.innerText();
  }

  it('shows every operation, from one host, without a violation of its policy', async () => {
    const { page, response, origins, complaints } = await open();

    const policy = response?.headers()['content-security-policy'] ?? '';
    for (const directive of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"]) {
      expect(policy).toContain(directive);
    }
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).toContain("base-uri 'none'");
    expect(policy).not.toContain('unsafe');
    expect(await page.locator('.opblock').count()).toBe(operations.length);
    expect(await page.locator('h1').first().innerText()).toContain('Patchbay');
    for (const summary of await page.locator('.opblock-summary-control').all()) await summary.click();
    await page.locator('.responses-inner').last().waitFor();
    expect([...origins]).toEqual([server.url]);
    expect(complaints).toEqual([]);
    await page.close();
  });

  it('calls the running Worker: without a key 401, with one what the API answers', async () => {
    const { page, complaints } = await open();
    expect(await tryDelete(page, server.demo.in_use)).toContain('missing_api_key');
    await page.close();

    const authorized = await open();
    await authorize(authorized.page);
    const answer = await tryDelete(authorized.page, server.demo.in_use);

    expect(answer).toContain('409');
    expect(answer).toContain("Integration is still referenced by phone numbers: ['+14155550100', '+14155550101'].");
    // Browsers note an answer above 399 as an error, and that is all.
    for (const complaint of [...complaints, ...authorized.complaints]) {
      expect(complaint).toMatch(/^Failed to load resource: the server responded with a status of 4/);
    }
    await authorized.page.close();
  });

  it('keeps a key in memory alone: nothing is stored, and a reload forgets it', async () => {
    const { page } = await open();
    await authorize(page);

    const stored: unknown = await page.evaluate(
      'JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])',
    );
    expect(stored).toBe('[{},{},""]');
    await page.reload();
    expect(await tryDelete(page, server.demo.in_use)).toContain('missing_api_key');
    await page.close();
  });

  it('takes no settings from its address', async () => {
    const { page, origins } = await open('/docs?url=https://elsewhere.example/openapi.json&configUrl=/nothing');

    expect(await page.locator('h1').first().innerText()).toContain('Patchbay');
    expect([...origins]).toEqual([server.url]);
    await page.close();
  });
});
