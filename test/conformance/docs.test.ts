/** The reference page in a real browser, under its Content-Security-Policy. */
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import openApi from '../../public/openapi.json' with { type: 'json' };
import { executablePath, launchBrowser, openReferencePage } from './browser.ts';
import { joinServer } from './server.ts';

const operations = Object.values(openApi.paths).flatMap((methods) => Object.keys(methods));

describe.skipIf(!executablePath)('the reference page (skipped without Chromium: CHROMIUM_PATH names one)', () => {
  const server = joinServer();
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchBrowser();
  });

  afterAll(() => browser.close());

  const open = (path = '/docs') => openReferencePage(browser, server.url + path);

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

  const deletion = (page: Page) => page.locator('#operations-Integrations-deleteIntegration');

  async function tryDelete(page: Page, integration_id: string) {
    const operation = deletion(page);
    await operation.locator('tr[data-param-name="integration_id"] input').fill(integration_id);
    await operation.locator('button.execute').click();
    const live = operation.locator('.live-responses-table');
    await live.waitFor();
    return live.innerText();
  }

  it('shows every operation, loads from its own host alone, and keeps to its Content-Security-Policy', async () => {
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
    expect([...origins]).toEqual([server.url]);
    expect(complaints).toEqual([]);
    await page.close();
  });

  it('calls the running Worker with a key that it keeps in memory alone: a reload forgets it', async () => {
    const { page, complaints } = await open();
    await authorize(page);
    await deletion(page).locator('.opblock-summary-control').click();

    const answer = await tryDelete(page, server.demo.in_use);
    expect(answer).toContain('409');
    expect(answer).toContain("Integration is still referenced by phone numbers: ['+14155550100', '+14155550101'].");

    const stored: unknown = await page.evaluate(
      'JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])',
    );
    expect(stored).toBe('[{},{},""]');
    // The operation that was open stands in the address, and is open again.
    await page.reload();
    expect(await tryDelete(page, server.demo.in_use)).toContain('missing_api_key');
    // Browsers note an answer above 399 as an error, and that is all.
    expect(complaints).toEqual(
      [409, 401].map((status) => expect.stringContaining(`responded with a status of ${status}`)),
    );
    await page.close();
  });

  it('takes no settings from its address', async () => {
    const { page, origins } = await open('/docs?url=https://elsewhere.example/openapi.json&configUrl=/nothing');

    expect(await page.locator('h1').first().innerText()).toContain('Patchbay');
    expect([...origins]).toEqual([server.url]);
    await page.close();
  });
});
