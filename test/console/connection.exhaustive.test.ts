import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { executablePath } from '../conformance/browser.ts';
import { joinServer } from '../conformance/server.ts';
import type { Client } from '../conformance/server.ts';
import { linkTo, useBrowser } from './console.ts';

const server = joinServer();

const names = z.object({ data: z.array(z.object({ name: z.string() })) });

const LOST = 'The connection is lost.';

describe.skipIf(!executablePath)('the console without a connection', () => {
  const { openAs } = useBrowser(server.url);

  async function openNewKey() {
    const client = await server.newOrganization();
    const opened = await openAs(client, '#/keys');
    await opened.page.getByRole('button', { name: 'Create a key' }).click();
    await opened.page.getByRole('dialog').getByLabel('Name').fill('CI');
    return { client, ...opened };
  }

  it('says so, and does what was asked for once it is back', async () => {
    const { page, client } = await openNewKey();
    await page.context().setOffline(true);
    await page.getByRole('button', { name: 'Create key' }).click();
    await page.getByText(LOST).waitFor();
    expect(await keysOf(client)).toEqual(['Test']);

    await page.context().setOffline(false);

    await page.getByRole('heading', { name: 'Store key CI' }).waitFor();
    await page.getByText(LOST).waitFor({ state: 'detached' });
    expect(await keysOf(client)).toEqual(['Test', 'CI']);
  });

  it('repeats what was done and not answered under the same Idempotency-Key, so that it is done once', async () => {
    const { page, client } = await openNewKey();
    const keys: (string | undefined)[] = [];
    await page.route('**/api/api-keys', async (route) => {
      if (route.request().method() !== 'POST') return route.continue();
      keys.push(route.request().headers()['idempotency-key']);
      if (keys.length > 1) return route.continue();
      await route.fetch();
      await route.abort('connectionreset');
    });

    await page.getByRole('button', { name: 'Create key' }).click();

    // Only the first answer had the raw key.
    await page.getByRole('heading', { name: 'Nobody has seen key CI' }).waitFor();
    expect(keys).toEqual([keys[0], keys[0]]);
    expect(await keysOf(client)).toEqual(['Test', 'CI']);
  });

  it('sends again only when asked, under the same key, after an answer that it cannot read', async () => {
    const { page, client } = await openNewKey();
    const keys: (string | undefined)[] = [];
    await page.route('**/api/api-keys', async (route) => {
      if (route.request().method() !== 'POST') return route.continue();
      keys.push(route.request().headers()['idempotency-key']);
      return keys.length > 1 ? route.continue() : route.fulfill({ status: 500, body: 'broken on the way' });
    });
    await page.getByRole('button', { name: 'Create key' }).click();
    await page.getByText('Unexpected answer').waitFor();
    expect(keys).toHaveLength(1);

    await page.getByRole('button', { name: 'Create key' }).click();

    await page.getByRole('heading', { name: 'Store key CI' }).waitFor();
    expect(keys).toEqual([keys[0], keys[0]]);
    expect(await keysOf(client)).toEqual(['Test', 'CI']);
  });

  it('does not hold back a view that is left: the next one begins anew', async () => {
    const client = await server.newOrganization();
    const { page } = await openAs(client, '#/integrations');
    await page.context().setOffline(true);
    await linkTo(page, 'Numbers').click();
    await page.getByText(LOST).waitFor();
    await linkTo(page, 'Integrations').click();
    await page.context().setOffline(false);

    await page.getByText('There are no integrations yet.').waitFor();
    expect(await page.getByRole('alert').count()).toBe(0);
  });

  async function keysOf(client: Client) {
    const { body } = await server.call(client, 'GET', '/api/api-keys');
    return names.parse(body).data.map(({ name }) => name);
  }
});
