/** The reference page in a real browser, under its Content-Security-Policy. */
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import openApi from '../../public/openapi.json' with { type: 'json' };
import { shell } from '../commands/shell.ts';
import { executablePath, launchBrowser, openReferencePage } from './browser.ts';
import { joinServer, LAST_NET } from './server.ts';
import type { Client } from './server.ts';

const operations = Object.values(openApi.paths).flatMap((methods) => Object.keys(methods));

describe.skipIf(!executablePath)('the reference page (skipped without Chromium: CHROMIUM_PATH names one)', () => {
  const server = joinServer();
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchBrowser();
  });

  afterAll(() => browser.close());

  const open = (path = '/docs', options: BrowserContextOptions = {}) =>
    openReferencePage(browser, server.url + path, options);

  async function fillForm(page: Page, { raw_key, organization_id }: Client) {
    await page.getByLabel('API key', { exact: true }).fill(raw_key);
    await page.getByLabel('Organization', { exact: true }).fill(organization_id);
  }

  const operation = (page: Page, operationId: string) => page.locator(`#operations-Integrations-${operationId}`);

  async function openOperation(page: Page, operationId: string) {
    const opened = operation(page, operationId);
    await opened.locator('.opblock-summary-control').click();
    await opened.locator('button.execute').waitFor();
    return opened;
  }

  /** Executes an operation that is open. What it waits for is the answer itself: an earlier one is still shown. */
  async function execute(page: Page, operationId: string) {
    const opened = operation(page, operationId);
    const answered = page.waitForResponse((response) => new URL(response.url()).pathname.startsWith('/api/'));
    await opened.locator('button.execute').click();
    const response = await answered;
    const live = opened.locator('.live-responses-table');
    await live.locator('.response-col_status', { hasText: String(response.status()) }).waitFor();
    return { sent: await response.request().allHeaders(), status: response.status(), shown: await live.innerText() };
  }

  const nameIntegration = (page: Page, integration_id: string) =>
    operation(page, 'deleteIntegration').locator('tr[data-param-name="integration_id"] input').fill(integration_id);

  it('shows every operation, loads from its own host alone, and keeps to its Content-Security-Policy', async () => {
    const { page, response, origins, complaints } = await open();

    const policy = response?.headers()['content-security-policy'] ?? '';
    for (const directive of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"]) {
      expect(policy).toContain(directive);
    }
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).toContain("base-uri 'none'");
    expect(policy).not.toContain('unsafe');
    expect(await page.locator('.opblock').count()).toBe(operations.length + Object.keys(openApi.webhooks).length);
    expect(await page.locator('h1').first().innerText()).toContain('Patchbay');
    expect([...origins]).toEqual([server.url]);
    expect(complaints).toEqual([]);
    await page.close();
  });

  it('sends key and organization, typed once, with every call, and no other header of the API', async () => {
    const client = await server.newOrganization();
    const integration_id = await server.createIntegration(client);
    const { page } = await open();
    await fillForm(page, client);

    await openOperation(page, 'listIntegrations');
    const listed = await execute(page, 'listIntegrations');
    await openOperation(page, 'getIntegration');
    await operation(page, 'getIntegration').locator('tr[data-param-name="integration_id"] input').fill(integration_id);
    const read = await execute(page, 'getIntegration');

    for (const { status, sent } of [listed, read]) {
      expect(status).toBe(200);
      expect(sent).toMatchObject({ 'x-api-key': client.raw_key, 'x-organization-id': client.organization_id });
      expect(Object.keys(sent)).not.toContain('idempotency-key');
    }
    expect(await page.locator('.authorize, .authorization__btn, .servers').count()).toBe(0);
    expect(await page.locator('[data-param-name="X-Organization-Id"]').count()).toBe(0);
    await page.close();
  });

  it('shows a curl line that does the same', async () => {
    const { page } = await open();
    await fillForm(page, server.demo);
    await openOperation(page, 'deleteIntegration');
    await nameIntegration(page, server.demo.in_use);
    await execute(page, 'deleteIntegration');

    const line = await operation(page, 'deleteIntegration').locator('.curl-command code').innerText();
    expect(await shell(line)).toMatchObject({ status: 409 });
    await page.close();
  });

  it('shows the refusal of a delete, and keeps key and organization in memory alone: a reload forgets them', async () => {
    const { page, complaints } = await open();
    await fillForm(page, server.demo);
    await openOperation(page, 'deleteIntegration');
    await nameIntegration(page, server.demo.in_use);

    const refused = await execute(page, 'deleteIntegration');
    expect(refused.status).toBe(409);
    expect(refused.shown).toContain(
      "Integration is still referenced by phone numbers: ['+14155550100', '+14155550101'].",
    );

    const stored: unknown = await page.evaluate(
      'JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])',
    );
    expect(stored).toBe('[{},{},""]');
    // The operation that was open stands in the address, and is open again.
    await page.reload();
    await nameIntegration(page, server.demo.in_use);
    expect((await execute(page, 'deleteIntegration')).shown).toContain('missing_api_key');
    // Browsers note an answer above 399 as an error, and that is all.
    expect(complaints).toEqual(
      [409, 401].map((status) => expect.stringContaining(`responded with a status of ${status}`)),
    );
    await page.close();
  });

  it('sends the same delete twice as curl does: deleted, then not found', async () => {
    const client = await server.newOrganization();
    const integration_id = await server.createIntegration(client);
    const { page } = await open();
    await fillForm(page, client);
    await openOperation(page, 'deleteIntegration');
    await nameIntegration(page, integration_id);

    const first = await execute(page, 'deleteIntegration');
    const second = await execute(page, 'deleteIntegration');

    expect([first.status, second.status]).toEqual([200, 404]);
    expect(first.shown).toContain('Integration deleted successfully');
    expect(second.shown).toContain('integration_not_found');
    await page.close();
  });

  it.each([
    { colorScheme: 'light', background: 'rgb(250, 250, 250)', text: 'rgb(59, 65, 81)' },
    { colorScheme: 'dark', background: 'rgb(28, 32, 34)', text: 'rgb(228, 230, 230)' },
  ] as const)('is $colorScheme where the system is', async ({ colorScheme, background, text }) => {
    const { page } = await open('/docs', { colorScheme });
    const style = (selector: string, property: string) =>
      page.evaluate(`getComputedStyle(document.querySelector('${selector}')).${property}`);

    expect(await style('body', 'backgroundColor')).toBe(background);
    expect(await style('#caller label', 'color')).toBe(text);
    expect(await style('.info .renderedMarkdown p', 'color')).toBe(text);
    await page.close();
  });

  it('changes its colors when the system does', async () => {
    const { page } = await open('/docs', { colorScheme: 'light' });
    const isDark = () => page.evaluate("document.documentElement.classList.contains('dark-mode')");
    expect(await isDark()).toBe(false);

    await page.emulateMedia({ colorScheme: 'dark' });

    await vi.waitFor(async () => expect(await isDark()).toBe(true), LAST_NET);
    await page.close();
  });

  it('does not scroll sideways on a phone of 360 px, with an answer shown as well', async () => {
    const { page } = await open('/docs', { viewport: { width: 360, height: 740 } });
    const width = () => page.evaluate('document.documentElement.scrollWidth');
    expect(await width()).toBe(360);

    await fillForm(page, server.demo);
    await openOperation(page, 'createIntegration');
    await openOperation(page, 'deleteIntegration');
    await nameIntegration(page, server.demo.in_use);
    await execute(page, 'deleteIntegration');

    expect(await width()).toBe(360);
    await page.close();
  });

  it('has a form for the keyboard: labelled, hidden from onlookers and password stores, with a visible focus', async () => {
    const { page, complaints } = await open();
    const key = page.getByLabel('API key', { exact: true });
    expect(await key.getAttribute('type')).toBe('password');
    expect(await key.getAttribute('autocomplete')).toBe('off');

    await page.keyboard.press('Tab');
    await page.keyboard.type('bk_live_typed');
    const outline = await page.evaluate('getComputedStyle(document.activeElement).outlineStyle');
    await page.keyboard.press('Tab');
    await page.keyboard.type('org_typed');
    await page.keyboard.press('Enter');

    expect(outline).toBe('solid');
    expect(await key.inputValue()).toBe('bk_live_typed');
    expect(await page.getByLabel('Organization', { exact: true }).inputValue()).toBe('org_typed');
    expect(await page.locator('html').getAttribute('lang')).toBe('en');
    expect(await page.title()).toBe('Patchbay API reference');
    expect(complaints).toEqual([]);
    await page.close();
  });

  it('leads to the document where there is no JavaScript, and asks for no key', async () => {
    const page = await browser.newPage({ javaScriptEnabled: false });
    await page.goto(`${server.url}/docs`);

    expect(await page.locator('noscript a').getAttribute('href')).toBe('/openapi.json');
    expect(await page.locator('#caller').isVisible()).toBe(false);
    await page.close();
  });

  it('takes no settings from its address', async () => {
    const { page, origins } = await open('/docs?url=https://elsewhere.example/openapi.json&configUrl=/nothing');

    expect(await page.locator('h1').first().innerText()).toContain('Patchbay');
    expect([...origins]).toEqual([server.url]);
    await page.close();
  });
});
