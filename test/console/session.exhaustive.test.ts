import { randomBytes } from 'node:crypto';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { executablePath } from '../conformance/browser.ts';
import { joinServer } from '../conformance/server.ts';
import { expectAccessible, linkTo, lookAt, signIn, useBrowser } from './console.ts';

const server = joinServer();

describe.skipIf(!executablePath)('the console’s session', () => {
  const { open, openAs } = useBrowser(server.url);

  /** Everything in which a page could keep something: storage, address, history and all that is in its document. */
  const keptBy = (page: Page) =>
    page.evaluate(`JSON.stringify([
      { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, history.state,
      document.documentElement.outerHTML,
      [...document.querySelectorAll('input, textarea')].map(({ value }) => value),
      performance.getEntries().map(({ name }) => name),
    ])`);

  const storageOf = (page: Page) => page.evaluate('({ ...localStorage, ...sessionStorage })');

  it('begins with an organization and its key, and ends with a click', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await open();
    await lookAt(page, 'sign-in');
    await signIn(page, client);
    await expect.poll(() => page.title()).toBe('Overview · Patchbay');

    await page.getByRole('button', { name: 'Sign out' }).click();

    await page.getByText('You are signed out.').waitFor();
    await expectAccessible(page);
    assertQuiet();
  });

  it('is refused to a key that is unknown, and to one of another organization', async () => {
    const [client, stranger] = [await server.newOrganization(), await server.newOrganization()];
    const { page } = await open();
    await page.getByLabel('Organization').fill(client.organization_id);
    await page.getByLabel('API key').fill(stranger.raw_key);
    await page.getByRole('button', { name: 'Sign in' }).click();

    const error = page.getByRole('alert');
    await error.getByText('Organization does not match the API key').waitFor();
    await error.getByRole('button', { name: 'Copy request id' }).waitFor();
    expect(await page.getByRole('button', { name: 'Sign out' }).count()).toBe(0);
    expect(await storageOf(page)).toEqual({});
  });

  it('tells at once of a key that is none, and of an operator’s', async () => {
    const { page, assertQuiet } = await open();
    await page.getByLabel('API key').fill('bk_live_short');
    await page.getByText('must be bk_live_ followed by 56 letters and digits').waitFor();
    await page.getByLabel('API key').fill(`bk_operator_${randomBytes(28).toString('hex')}`);
    await page.getByText('This is an operator key.').waitFor();
    await page.getByLabel('Organization').fill('acme');
    await page.getByText('must be org_ followed by').waitFor();
    expect(await page.locator('[aria-invalid="true"]').count()).toBe(2);
    assertQuiet();
  });

  it('keeps the key in no storage, address, attribute or message, and forgets it at the end', async () => {
    const client = await server.newOrganization();
    const { page, complaints, assertQuiet } = await openAs(client);
    const messages: string[] = [];
    page.on('console', (message) => messages.push(message.text()));
    for (const view of ['Integrations', 'Numbers', 'Keys', 'History']) {
      await linkTo(page, view).click();
      await expect.poll(() => page.title()).toContain(view);
      expect(await keptBy(page)).not.toContain(client.raw_key);
    }

    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByText('You are signed out.').waitFor();

    expect(await keptBy(page)).not.toContain(client.raw_key);
    expect([...messages, ...complaints].join()).not.toContain(client.raw_key);
    await page.reload();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await page.goBack();
    expect(await keptBy(page)).not.toContain(client.raw_key);
    assertQuiet();
  });

  it('outlives a reload only if its user chose that, and is then gone after signing out', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client);
    expect(await storageOf(page)).toEqual({});
    await page.reload();
    await page.getByLabel('Keep me signed in in this tab').check();
    await signIn(page, client);
    await page.reload();
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    expect(await page.evaluate('({ ...localStorage })')).toEqual({});

    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByText('You are signed out.').waitFor();

    expect(await storageOf(page)).toEqual({});
    await page.reload();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    assertQuiet();
  });

  it('ends after 15 minutes without use, and not before', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await open('#/numbers');
    await page.clock.install();
    await page.getByLabel('Keep me signed in in this tab').check();
    await signIn(page, client);

    await page.clock.fastForward('14:30');
    await page.keyboard.press('Tab');
    await page.clock.fastForward('14:30');
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    await page.clock.fastForward('00:45');

    await page.getByText('You were signed out, because this page was not used for 15 minutes.').waitFor();
    expect(await storageOf(page)).toEqual({});
    expect(await page.getByRole('button', { name: 'Sign out' }).count()).toBe(0);
    // The address stays: who signs in again is where they were.
    await signIn(page, client);
    await expect.poll(() => page.title()).toContain('Numbers');
    assertQuiet();
  });

  it('ends when a tab that was put to sleep wakes up too late', async () => {
    const client = await server.newOrganization();
    const { page } = await open();
    await page.clock.install();
    await signIn(page, client);

    // The clock goes on, and no timer of the page has run.
    await page.clock.setSystemTime(Date.now() + 16 * 60_000);
    await page.keyboard.press('Tab');

    await page.getByText('not used for 15 minutes').waitFor();
    expect(await page.getByRole('button', { name: 'Sign out' }).count()).toBe(0);
  });

  it('ends when the key is revoked', async () => {
    const client = await server.newOrganization();
    const key = await server.newKey(client.organization_id, 'admin');
    const { page } = await openAs(key, '#/integrations');
    const revoked = await server.call(client, 'DELETE', `/api/api-keys/${key.key_id}`);
    expect(revoked.status).toBe(200);

    await linkTo(page, 'History').click();

    await page.getByText('the API key is revoked or expired').waitFor();
    expect(await page.getByRole('button', { name: 'Sign out' }).count()).toBe(0);
  });

  it('opens the view of its address, and the back button goes through the views', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/numbers?status=free');
    await expect.poll(() => page.title()).toContain('Numbers');
    expect(page.url()).toMatch(/#\/numbers\?status=free$/);
    await linkTo(page, 'Integrations').click();
    await expect.poll(() => page.title()).toContain('Integrations');
    await expect.poll(() => page.evaluate('document.activeElement.tagName')).toBe('H1');

    await page.goBack();

    await expect.poll(() => page.title()).toContain('Numbers');
    expect(page.url()).toMatch(/#\/numbers\?status=free$/);
    await page.goto(`${server.url}/console#/nonsense/%E0%A4%A`);
    await page.getByRole('heading', { name: 'No such view' }).waitFor();
    assertQuiet();
  });

  it('lets no text become HTML or a script, and shifts nothing while it loads', async () => {
    const { page } = await open();
    await page.waitForSelector('h1');
    expect(await page.evaluate('typeof trustedTypes')).toBe('object');
    for (const attack of [
      `document.body.innerHTML = '<img src=x>'`,
      `document.body.insertAdjacentHTML('beforeend', '<img src=x>')`,
      `document.createElement('script').text = 'alert(1)'`,
      `eval('1')`,
      `new Function('return 1')()`,
    ]) {
      // By a timer: what the debugger itself evaluates may do anything.
      const outcome = await page.evaluate(`new Promise((resolve) => setTimeout(() => {
        try { ${attack}; resolve('done'); } catch (error) { resolve(error.name); }
      }))`);
      expect([attack, outcome]).toEqual([attack, expect.stringMatching(/^(?:TypeError|EvalError)$/)]);
    }
    const { page: fresh } = await open();
    await fresh.waitForSelector('h1');
    const shifts = await fresh.evaluate(`new Promise((resolve) => {
      new PerformanceObserver((list) => resolve(list.getEntries().length)).observe({ type: 'layout-shift', buffered: true });
      setTimeout(() => resolve(0), 500);
    })`);
    expect(shifts).toBe(0);
  });
});
