import type { Locator } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { executablePath } from '../conformance/browser.ts';
import { joinServer } from '../conformance/server.ts';
import type { Client, Key } from '../conformance/server.ts';
import { dialogOf, linkTo, lookAt, placesOf, useBrowser } from './console.ts';

const server = joinServer();

const createdKey = z.object({
  data: z.object({ raw_key: z.string(), key: z.object({ key_id: z.string(), prefix: z.string() }) }),
});
const keyList = z.object({
  data: z.array(
    z.object({ key_id: z.string(), name: z.string(), status: z.string(), expires_at: z.nullable(z.string()) }),
  ),
});

async function createKey(client: Client, name: string, role = 'admin', expires_at: string | null = null) {
  const answer = await server.call(client, 'POST', '/api/api-keys', { body: { name, role, expires_at } });
  const { raw_key, key } = createdKey.parse(answer.body).data;
  return { organization_id: client.organization_id, raw_key, ...key, name };
}

const keysOf = async (client: Client) =>
  keyList.parse((await server.call(client, 'GET', '/api/api-keys?page_size=100')).body).data;

/** By name: keys that are made in one second are in no order. */
const statuses = async (client: Client) =>
  Object.fromEntries((await keysOf(client)).map(({ name, status }) => [name, status]));

/** The name of a key that works; undefined of one that does not. */
async function nameOf(client: Client): Promise<string | undefined> {
  const { status, body } = await server.call(client, 'GET', '/api/whoami');
  return status === 200
    ? z.object({ data: z.object({ key: z.object({ name: z.string() }) }) }).parse(body).data.key.name
    : undefined;
}

/** The raw key that a dialog shows. */
async function shownKey(dialog: Locator): Promise<string> {
  return (await dialog.getByText(/^bk_live_\w{56}$/).textContent()) ?? '';
}

describe.skipIf(!executablePath)('the console’s keys', () => {
  const { openAs } = useBrowser(server.url);

  it('shows a new key once, until it is stored', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/keys');
    await page.getByRole('button', { name: 'Create a key' }).click();
    const form = dialogOf(page, 'Create a key');
    await lookAt(page, 'key-create');
    expect(await form.getByLabel('Role').locator('option').allTextContents()).toEqual([
      'admin',
      'agent manager',
      'user',
    ]);
    await form.getByLabel('Name').fill('Billing');
    await form.getByLabel('Role').selectOption('agent manager');
    await form.getByText('It may make every call, but not read the history.').waitFor();
    await form.getByRole('button', { name: 'Create key' }).click();

    const dialog = dialogOf(page, 'Store key Billing');
    await dialog.waitFor();
    await lookAt(page, 'key-new');
    const raw_key = await shownKey(dialog);
    expect(await nameOf({ ...client, raw_key })).toBe('Billing');
    for (const _ of [1, 2, 3]) await page.keyboard.press('Escape');
    expect(await dialog.isVisible()).toBe(true);
    expect(await shownKey(dialog)).toBe(raw_key);
    expect(await placesOf(page, raw_key)).toEqual([]);

    await dialog.getByRole('button', { name: 'I have stored it' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect(await page.content()).not.toContain(raw_key);
    expect(await placesOf(page, raw_key)).toEqual([]);
    const row = page.getByRole('row', { name: /Billing/ });
    await row.getByText('agent manager').waitFor();
    assertQuiet();
  });

  it('says what to do if the answer with a new key was lost', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/keys');
    let isLost = false;
    await page.route('**/api/api-keys', async (route) => {
      if (isLost || route.request().method() !== 'POST') return route.continue();
      isLost = true;
      await route.fetch();
      return route.abort();
    });
    await page.getByRole('button', { name: 'Create a key' }).click();
    await dialogOf(page, 'Create a key').getByLabel('Name').fill('Lost');
    await page.getByRole('button', { name: 'Create key' }).click();

    const dialog = dialogOf(page, 'Nobody has seen key Lost');
    await dialog.getByText('Revoke this key, and create another one.').waitFor();
    await dialog.getByRole('button', { name: 'Close' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect(await statuses(client)).toEqual({ Test: 'active', Lost: 'active' });
    expect(await keysOf(client)).toHaveLength(2);
    assertQuiet();
  });

  it('renames, and rotates with an overlap', async () => {
    const client = await server.newOrganization();
    const old = await createKey(client, 'CI', 'user');
    const { page, assertQuiet } = await openAs(client, '#/keys');
    await page.getByRole('button', { name: `Rename CI ${old.prefix}` }).click();
    await dialogOf(page, 'Rename key CI').getByLabel('Name').fill('Deployment');
    await page.getByRole('button', { name: 'Rename', exact: true }).click();
    await page.getByText('Key CI is now called Deployment.').waitFor();

    await page.getByRole('button', { name: `Rotate Deployment ${old.prefix}` }).click();
    const form = dialogOf(page, 'Rotate key Deployment');
    expect(await form.getByLabel('Overlap').inputValue()).toBe('86400');
    expect(await form.getByLabel('Overlap').locator('option').count()).toBe(4);
    await form.getByRole('button', { name: 'Rotate key' }).click();
    const dialog = dialogOf(page, 'Store key Deployment');
    const raw_key = await shownKey(dialog);
    await dialog.getByRole('button', { name: 'I have stored it' }).click();

    expect(await nameOf(old)).toBe('Deployment');
    expect(await nameOf({ ...client, raw_key })).toBe('Deployment');
    await page.getByText('ends soon').waitFor();
    await lookAt(page, 'keys');

    await page
      .getByRole('row', { name: /this key/ })
      .getByRole('button', { name: 'Rotate' })
      .click();
    const own = dialogOf(page, 'Rotate key Test');
    await own.getByText('The console goes on with the old key until the overlap is over').waitFor();
    expect(await own.getByLabel('Overlap').locator('option').allTextContents()).toEqual(['1 hour', '1 day', '7 days']);
    await lookAt(page, 'key-rotate');
    await own.getByRole('button', { name: 'Cancel' }).click();
    expect(await keysOf(client)).toHaveLength(3);
    assertQuiet();
  });

  it('revokes a key with all that come from it', async () => {
    const client = await server.newOrganization();
    const root = await createKey(client, 'Root');
    const child = await createKey(root, 'Child');
    const grandchild = await createKey(child, 'Grandchild', 'user');
    const { page, assertQuiet } = await openAs(client, '#/keys');
    await page.getByRole('button', { name: `Revoke Root ${root.prefix}` }).click();
    const dialog = dialogOf(page, 'Revoke key Root');
    await dialog.waitFor();
    await lookAt(page, 'key-revoke');
    await page.keyboard.press('Enter');
    expect(await nameOf(root)).toBe('Root');
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });

    await page.getByRole('button', { name: `Revoke Root ${root.prefix}` }).click();
    await dialog.getByLabel('And all keys that come from it').check();
    await dialog.getByRole('button', { name: 'Revoke key' }).click();

    await page.getByText('Key Root and 2 keys that came from it are revoked.').waitFor();
    expect(await statuses(client)).toEqual({
      Test: 'active',
      Root: 'revoked',
      Child: 'revoked',
      Grandchild: 'revoked',
    });
    expect(await Promise.all([root, child, grandchild].map(nameOf))).toEqual([undefined, undefined, undefined]);
    await page.getByText('1 keys shown').waitFor();
    await page.getByLabel('Show ended keys').check();
    await page.getByText('4 of 4 keys shown').waitFor();
    expect(
      await page
        .getByRole('row', { name: /Child.*revoked/ })
        .getByRole('button')
        .allTextContents(),
    ).toEqual(['Rename', 'Revoke what it made']);
    await lookAt(page, 'keys-ended');
    assertQuiet();
  });

  it('revokes the keys that come from a key which has ended', async () => {
    const client = await server.newOrganization();
    const root = await createKey(client, 'Root');
    await createKey(root, 'Child');
    await server.call(client, 'DELETE', `/api/api-keys/${root.key_id}`);
    const { page, assertQuiet } = await openAs(client, '#/keys?ended=shown');
    await page.getByRole('button', { name: `Revoke what it made Root ${root.prefix}` }).click();
    await page.getByRole('button', { name: 'Revoke the keys that come from it' }).click();
    await page.getByText('Key Root and 1 key that came from it are revoked.').waitFor();
    expect(await statuses(client)).toEqual({ Test: 'active', Root: 'revoked', Child: 'revoked' });
    assertQuiet();
  });

  it('offers what the role may do', async () => {
    const client = await server.newOrganization();
    const manager: Key = await server.newKey(client.organization_id, 'agent_manager');
    const user: Key = await server.newKey(client.organization_id, 'user');
    const { page, assertQuiet } = await openAs(manager, '#/keys');
    const rows = page.getByRole('row');
    await rows.filter({ hasText: 'this key' }).waitFor();
    expect(await rows.filter({ hasText: 'admin' }).getByRole('button').count()).toBe(0);
    expect(await rows.filter({ hasText: 'user' }).getByRole('button').allTextContents()).toEqual([
      'Rename',
      'Rotate',
      'Revoke',
    ]);
    await page.getByRole('button', { name: 'Create a key' }).click();
    expect(await page.getByLabel('Role').locator('option').allTextContents()).toEqual(['agent manager', 'user']);
    await page.getByRole('button', { name: 'Cancel' }).click();
    assertQuiet();

    const asUser = await openAs(user);
    await linkTo(asUser.page, 'Numbers').waitFor();
    expect(await asUser.page.getByRole('navigation').getByRole('link').allTextContents()).toEqual([
      'Overview',
      'Integrations',
      'Numbers',
    ]);
    await asUser.page.evaluate("location.hash = '#/keys'");
    await asUser.page.getByRole('alert').getByText('Ask somebody with a key of a higher role.').waitFor();
    expect(await asUser.page.getByRole('button', { name: 'Create a key' }).count()).toBe(0);
    asUser.assertQuiet();
  });

  it('does not let a key outlive the one that makes it', async () => {
    const client = await server.newOrganization();
    const end = new Date(Date.now() + 5 * 86_400_000).toISOString();
    const limited = await createKey(client, 'Limited', 'admin', end);
    const { page, assertQuiet } = await openAs(limited, '#/keys');
    await page.getByRole('button', { name: 'Create a key' }).click();
    const dialog = dialogOf(page, 'Create a key');
    await dialog.getByLabel('Name').fill('Longer');
    await dialog.getByLabel('Expires').fill('2020-01-01T00:00');
    await dialog.getByText('must be in the future').waitFor();
    await dialog.getByLabel('Expires').fill('2999-01-01T00:00');
    await dialog.getByText('must not be later than your own key expires').waitFor();
    await dialog.getByRole('button', { name: 'Create key' }).click();
    await dialog.getByRole('alert').waitFor();
    expect(await keysOf(client)).toHaveLength(2);

    await dialog.getByLabel('Expires').fill('');
    await dialog.getByRole('button', { name: 'Create key' }).click();
    await dialogOf(page, 'Store key Longer').getByRole('button', { name: 'I have stored it' }).click();
    const made = (await keysOf(client)).find(({ name }) => name === 'Longer');
    expect(made?.expires_at).toBe(`${end.slice(0, 19)}Z`);
    assertQuiet();
  });

  it('signs out when the own key is revoked', async () => {
    const client = await server.newOrganization();
    const own = await createKey(client, 'Own');
    const { page, assertQuiet } = await openAs(own, '#/keys');
    const refused: string[] = [];
    page.on('response', (response) => response.status() === 401 && refused.push(response.url()));
    await page.getByRole('button', { name: `Revoke Own ${own.prefix}` }).click();
    await page.getByText('you will be signed out').waitFor();
    await page.getByRole('button', { name: 'Revoke key' }).click();
    await page.getByText('You were signed out: the API key is revoked or expired').waitFor();
    // Another isolate may let the key read for a minute: the console does not wait for a refusal.
    expect(refused).toEqual([]);
    expect(await statuses(client)).toEqual({ Test: 'active', Own: 'revoked' });
    assertQuiet();
  });
});
