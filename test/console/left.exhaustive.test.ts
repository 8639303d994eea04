/** What may not outlive the view, the choice or the session that it was for. */
import type { Page, Route } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { executablePath } from '../conformance/browser.ts';
import { joinServer, newNumbers, twilio } from '../conformance/server.ts';
import { linkTo, signIn, useBrowser } from './console.ts';
import { newIntegration, numbersOf } from './records.ts';

const server = joinServer();

/** Holds the answers of some requests back. */
async function hold(page: Page, pattern: string | RegExp, isHeld: (route: Route) => boolean) {
  const held = Promise.withResolvers<void>();
  const seen = Promise.withResolvers<void>();
  await page.route(pattern, async (route) => {
    if (!isHeld(route)) return route.continue();
    const response = await route.fetch();
    seen.resolve();
    await held.promise;
    // The page may have given the request up.
    await route.fulfill({ response }).catch(() => undefined);
  });
  return { arrived: seen.promise, release: held.resolve };
}

describe.skipIf(!executablePath)('what was left', () => {
  const { openAs } = useBrowser(server.url);

  it('a delete does what its preview shows, also if an earlier preview comes late', async () => {
    const client = await server.newOrganization();
    const source = await newIntegration(server, client, 'Alpha');
    const target = await newIntegration(server, client, 'Beta');
    for (const number of newNumbers(2)) await server.importNumber(client, source, number);
    const { page } = await openAs(client, `#/integrations/${source}/delete`);
    await page.getByLabel('Move the numbers to another integration').check();
    await page.getByLabel('Move them to').selectOption(target);
    await page.getByText('2 numbers would move to Beta').waitFor();
    await server.importNumber(client, source, newNumbers(1)[0] ?? '');
    const moves = await hold(page, /dry_run/, (route) => route.request().url().includes('reassign_to'));
    await page.getByLabel('Name of the integration').fill('Alpha');
    await page.getByRole('button', { name: 'Delete the integration' }).click();
    await moves.arrived;

    // It was refused, and its preview is under way again.
    await page.getByLabel('Remove the numbers').check();
    await page.getByText('3 numbers would be removed.').waitFor();
    moves.release();
    await page.unrouteAll({ behavior: 'wait' });

    await page.getByText('3 numbers would be removed.').waitFor();
    expect(await page.getByText('would move to').count()).toBe(0);
    const sent = page.waitForRequest((request) => request.method() === 'DELETE' && !request.url().includes('dry_run'));
    await page.getByLabel('Name of the integration').fill('Alpha');
    await page.getByRole('button', { name: 'Delete the integration' }).click();
    expect(new URL((await sent).url()).search).toBe('?remove_phone_numbers=true&expect_references=3');
    await page.getByText('Integration Alpha and its credentials are deleted; 3 numbers removed.').waitFor();
    expect(await numbersOf(server, client)).toEqual([]);
  });

  it('a view that is left does not come back when its act is answered', async () => {
    const client = await server.newOrganization();
    const [first, second] = [
      await newIntegration(server, client, 'First'),
      await newIntegration(server, client, 'Second'),
    ];
    const { page } = await openAs(client, `#/integrations/${first}`);
    await page.getByRole('heading', { level: 1, name: 'First' }).waitFor();
    const checks = await hold(page, `**/api/integrations/${first}/verify`, () => true);
    await page.getByRole('button', { name: 'Verify now' }).click();
    await checks.arrived;

    await page.goto(`${server.url}/console#/integrations/${second}`);
    await page.getByRole('heading', { level: 1, name: 'Second' }).waitFor();
    checks.release();

    // Only the result is told.
    await page.getByText('“First” was checked now: verified.').waitFor();
    expect(await page.getByRole('heading', { level: 1 }).allInnerTexts()).toEqual(['Second']);
    expect(await page.title()).toBe('Second · Patchbay');
  });

  it('a create that is answered after its view was left leads nowhere', async () => {
    const client = await server.newOrganization();
    const { page } = await openAs(client, '#/integrations/new');
    await page.getByLabel('Name').fill('Late');
    await page.getByLabel('Account SID').fill(twilio.account_sid);
    await page.getByLabel('Auth Token').fill('the right secret');
    const creates = await hold(page, /\/api\/integrations\?/, (route) => route.request().method() === 'POST');
    await page.getByRole('button', { name: 'Create integration' }).click();
    await creates.arrived;
    await linkTo(page, 'Numbers').click();
    await page.getByRole('heading', { level: 1, name: 'Numbers' }).waitFor();

    creates.release();

    await page.getByText('“Late” is created.').waitFor();
    expect(page.url()).toMatch(/#\/numbers$/);
  });

  it('a change is for what was seen when its dialog was opened', async () => {
    const client = await server.newOrganization();
    const id = await newIntegration(server, client, 'Seen');
    const { page } = await openAs(client, `#/integrations/${id}`);
    const checks = await hold(page, `**/api/integrations/${id}/verify`, () => true);
    await page.getByRole('button', { name: 'Verify now' }).click();
    await checks.arrived;
    await page.getByRole('button', { name: 'Rename' }).click();
    await server.call(client, 'PUT', `/api/integrations/${id}`, { body: { name: 'Theirs' } });
    checks.release();
    await page.getByRole('heading', { level: 1, name: 'Theirs' }).waitFor();

    await page.getByRole('dialog').getByLabel('Name').fill('Mine');
    await page.getByRole('dialog').getByRole('button', { name: 'Rename' }).click();

    await page.getByText('Somebody changed this meanwhile.').waitFor();
    const { body } = await server.call(client, 'GET', `/api/integrations/${id}`);
    expect(body).toMatchObject({ data: { name: 'Theirs' } });
  });

  it('the next user sees nothing of the one before, and no act of theirs goes on', async () => {
    const [one, next] = [await server.newOrganization(), await server.newOrganization()];
    const { page } = await openAs(one, '#/history');
    await page.getByRole('button', { name: 'Export as CSV' }).click();
    await page.getByText('Events in the file').waitFor();
    await page.goto(`${server.url}/console#/integrations/new`);
    await page.getByLabel('Name').fill('Secret project');
    await page.getByLabel('Account SID').fill(twilio.account_sid);
    await page.getByLabel('Auth Token').fill('the right secret');
    await page.context().setOffline(true);
    await page.getByRole('button', { name: 'Create integration' }).click();
    await page.getByText('The connection is lost.').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.context().setOffline(false);

    await signIn(page, next);

    await page.getByText('The connection is lost.').waitFor({ state: 'detached' });
    expect(await page.getByText('Events in the file').count()).toBe(0);
    expect(await page.getByText('Secret project').count()).toBe(0);
    expect(await server.call(one, 'GET', '/api/integrations')).toMatchObject({ body: { data: [] } });
  });

  it('a key that was kept is not the next user’s', async () => {
    const [one, next] = [await server.newOrganization(), await server.newOrganization()];
    const { page } = await openAs(one);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Keep me signed in in this tab').check();
    await signIn(page, one);
    await page.route('**/api/whoami', (route) => route.fulfill({ status: 500, body: 'broken on the way' }));
    await page.reload();
    await page.getByText('The API did not answer, so you are not signed in.').waitFor();
    await page.unrouteAll({ behavior: 'wait' });

    await signIn(page, next);

    await page.reload();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    expect(await page.evaluate('({ ...localStorage, ...sessionStorage })')).toEqual({});
  });

  it('a raw key outlives the view in which it was made, until it is stored', async () => {
    const client = await server.newOrganization();
    const { page } = await openAs(client, '#/integrations');
    await linkTo(page, 'Keys').click();
    await page.getByRole('button', { name: 'Create a key' }).click();
    await page.getByRole('dialog').getByLabel('Name').fill('CI');
    await page.getByRole('button', { name: 'Create key' }).click();
    const dialog = page.getByRole('dialog', { name: 'Store key CI' });
    await dialog.getByText(/^bk_live_[0-9A-Za-z]{56}$/).waitFor();

    await page.goBack();

    await expect.poll(() => page.title()).toContain('Integrations');
    await dialog.getByText(/^bk_live_[0-9A-Za-z]{56}$/).waitFor();
    await dialog.getByRole('button', { name: 'I have stored it' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect(await page.content()).not.toMatch(/bk_live_[0-9A-Za-z]{56}/);
  });
});
