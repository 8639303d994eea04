import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Locator, Page } from 'playwright-core';
import { Webhook } from 'standardwebhooks';
import { describe, expect, it, onTestFinished } from 'vitest';
import * as z from 'zod';
import { toLocal } from '../../src/console/local-time.ts';
import { executablePath } from '../conformance/browser.ts';
import { joinServer } from '../conformance/server.ts';
import { dialogOf, linkTo, lookAt, placesOf, useBrowser } from './console.ts';

const server = joinServer();

interface Received {
  headers: IncomingHttpHeaders;
  body: string;
}

const message = z.object({ id: z.string(), type: z.string() });

/** A server on the loopback that answers what is sent to it with a status that the test chooses. */
async function startReceiver() {
  const received: Received[] = [];
  const answer = { status: 200 };
  const receiver = createServer((request, response) => {
    void (async () => {
      received.push({ headers: request.headers, body: await textOf(request) });
      response.writeHead(answer.status).end(`<b>status ${answer.status}</b>`);
    })();
  });
  await once(receiver.listen(0, '127.0.0.1'), 'listening');
  onTestFinished(() => {
    receiver.closeAllConnections();
    receiver.close();
  });
  const { port } = z.object({ port: z.number() }).parse(receiver.address());
  return {
    url: `http://127.0.0.1:${port}/patchbay`,
    answer,
    received,
    /** The ids of the messages of a type. */
    idsOf: (type: string) =>
      received
        .map(({ body }) => message.parse(JSON.parse(body)))
        .flatMap((sent) => (sent.type === type ? [sent.id] : [])),
  };
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = await request.toArray();
  return Buffer.concat(chunks).toString();
}

/** Whether a message is signed with a secret. */
function isSignedWith(secret: string, { headers, body }: Received): boolean {
  const given = Object.entries(headers).map(([name, value]) => [name, String(value)]);
  try {
    new Webhook(secret).verify(body, Object.fromEntries(given));
    return true;
  } catch {
    return false;
  }
}

/** Stores the secret that a dialog shows. */
async function storeSecret(page: Page): Promise<string> {
  const dialog = dialogOf(page, /^Store the secret of http/);
  const secret = (await dialog.getByText(/^whsec_\S+$/).textContent()) ?? '';
  await dialog.getByRole('button', { name: 'I have stored it' }).click();
  await dialog.waitFor({ state: 'detached' });
  return secret;
}

/** Creates an endpoint for all events, and shows it. */
async function createEndpoint(page: Page, url: string): Promise<string> {
  await page.getByRole('button', { name: 'Create an endpoint' }).click();
  await page.getByLabel('URL').fill(url);
  await page.getByRole('button', { name: 'Create endpoint' }).click();
  const secret = await storeSecret(page);
  await page.getByRole('heading', { name: url, level: 1 }).waitFor();
  return secret;
}

const noticeOf = (page: Page) => page.locator('.notice');

const badge = (page: Page, text: string) => page.locator('.badge', { hasText: text });

/** What a test came to, as the view says it when it was sent. */
const outcomeOf = (page: Page) => page.locator('.page p[role=status]').first();

/** Sends a test, which is answered with 2xx. */
async function test(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Send a test' }).click();
  await expect
    .poll(() => outcomeOf(page).textContent())
    .toMatch(/^✓ answered The answer had status 200\. It took [\d,]+ ms/);
  await badge(page, 'sends').waitFor();
}

const deliveriesOf = (page: Page) => page.getByRole('region', { name: 'Deliveries', exact: true });

/** Looks at the deliveries again and again, until something is among them: they come after the answer. */
async function reloadUntil(page: Page, awaited: Locator): Promise<void> {
  await expect
    .poll(async () => {
      await page.getByRole('button', { name: 'Reload' }).click();
      await deliveriesOf(page).getByText('Loading deliveries…').waitFor({ state: 'detached' });
      return awaited.count();
    })
    .toBeGreaterThan(0);
}

describe.skipIf(!executablePath)('the console’s webhooks', () => {
  const { openAs } = useBrowser(server.url);

  it('creates an endpoint for chosen events, and shows its secret once', async () => {
    const receiver = await startReceiver();
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client);
    await linkTo(page, 'Webhooks').click();
    await page.getByText('There is no webhook endpoint yet.').waitFor();
    await page.getByRole('button', { name: 'Create an endpoint' }).click();
    const form = dialogOf(page, 'Create an endpoint');
    expect(await form.getByLabel('*', { exact: true }).isChecked()).toBe(true);
    await lookAt(page, 'webhook-create');

    await form.getByLabel('*', { exact: true }).uncheck();
    await form.getByLabel('URL').fill('https://10.0.0.1/');
    await form.getByRole('button', { name: 'Create endpoint' }).click();
    await form.getByRole('listitem').getByText('must name at least one').waitFor();
    await form.getByLabel('integration.*').check();
    await form.getByLabel('phone_number.deleted').check();
    await form.getByRole('button', { name: 'Create endpoint' }).click();
    await form.locator('.field-error').getByText('must not lead to a private').waitFor();
    await form.getByLabel('URL').fill(receiver.url);
    await form.getByLabel('Description').fill('Billing');
    await form.getByRole('button', { name: 'Create endpoint' }).click();

    const dialog = dialogOf(page, `Store the secret of ${receiver.url}`);
    await dialog.waitFor();
    await lookAt(page, 'webhook-secret');
    for (const _ of [1, 2, 3]) await page.keyboard.press('Escape');
    expect(await dialog.isVisible()).toBe(true);
    const shown = (await dialog.getByText(/^whsec_\S+$/).textContent()) ?? '';
    expect(await placesOf(page, shown)).toEqual([]);
    const secret = await storeSecret(page);
    expect(secret).toBe(shown);
    expect(await page.content()).not.toContain(secret);

    await page.getByText('integration.*', { exact: true }).waitFor();
    await page.getByText('phone_number.deleted', { exact: true }).waitFor();
    await page.getByText('Billing', { exact: true }).waitFor();
    await expect.poll(() => receiver.received.length).toBeGreaterThan(0);
    expect(receiver.received.every((received) => isSignedWith(secret, received))).toBe(true);
    assertQuiet();
  });

  it('says what to do if the answer with a new secret was lost', async () => {
    const receiver = await startReceiver();
    const client = await server.newOrganization();
    const { page } = await openAs(client, '#/webhooks');
    let isLost = false;
    await page.route('**/api/webhook-endpoints', async (route) => {
      if (isLost || route.request().method() !== 'POST') return route.continue();
      isLost = true;
      await route.fetch();
      return route.abort();
    });
    await page.getByRole('button', { name: 'Create an endpoint' }).click();
    await page.getByLabel('URL').fill(receiver.url);
    await page.getByRole('button', { name: 'Create endpoint' }).click();
    const dialog = dialogOf(page, `Nobody has seen the secret of ${receiver.url}`);
    await dialog.getByText('Rotate the secret again').waitFor();
    await dialog.getByRole('button', { name: 'Close' }).click();
    await page.getByRole('heading', { name: receiver.url, level: 1 }).waitFor();
    await linkTo(page, 'Webhooks').click();
    await page.getByText('1 of 1 endpoints shown').waitFor();
    expect(await page.getByRole('link', { name: receiver.url }).count()).toBe(1);
  });

  it('tells what came of a test: of one that fails, and of one that is answered', async () => {
    const receiver = await startReceiver();
    receiver.answer.status = 500;
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/webhooks');
    await createEndpoint(page, receiver.url);
    await badge(page, 'waiting for a test').waitFor();
    await page.getByRole('button', { name: 'Send a test' }).click();
    await expect
      .poll(() => outcomeOf(page).textContent())
      .toMatch(/^✕ failed The answer had status 500\. It took [\d,]+ ms/);
    await page
      .locator('dd')
      .getByText(/failed The answer had status 500\./)
      .waitFor();
    await badge(page, 'waiting for a test').waitFor();
    await lookAt(page, 'webhook-untested');

    receiver.answer.status = 200;
    await test(page);
    await page
      .locator('dd')
      .getByText(/answered The answer had status 200\./)
      .waitFor();
    await page.getByText('Test sent a test to webhook endpoint').nth(1).waitFor();
    assertQuiet();
  });

  it('lists a delivery that failed, with the start of the answer, and sends it again', async () => {
    const receiver = await startReceiver();
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/webhooks');
    await createEndpoint(page, receiver.url);
    await test(page);
    await page.getByText('No delivery is found.').waitFor();

    receiver.answer.status = 503;
    await server.createIntegration(client);
    const row = page.getByRole('row', { name: /integration\.created/ });
    await reloadUntil(page, row.locator('.badge', { hasText: 'retrying' }));
    await badge(page, 'failing').waitFor();
    expect(await row.textContent()).toMatch(/The answer had status 503\. It took [\d,]+ ms/);
    await row.getByText('The start of the answer').click();
    await row.getByText('<b>status 503</b>').waitFor();
    await lookAt(page, 'webhook');
    await page.getByLabel('Status').selectOption('dead');
    await page.getByText('No delivery is found.').waitFor();
    expect(await page.evaluate<string>('location.hash')).toContain('?status=dead');
    await page.getByLabel('Status').selectOption('any');
    await page.evaluate("location.hash = '#/webhooks'");
    await badge(page, 'failing').waitFor();
    await lookAt(page, 'webhooks');
    await page.getByRole('link', { name: receiver.url }).click();

    receiver.answer.status = 200;
    const before = receiver.idsOf('integration.created');
    await page.getByRole('button', { name: /^Retry integration\.created/ }).click();
    await noticeOf(page).getByText('integration.created is sent again.').waitFor();
    await reloadUntil(page, row.locator('.badge', { hasText: 'delivered' }));
    await badge(page, 'sends').waitFor();
    expect(new Set(receiver.idsOf('integration.created'))).toEqual(new Set(before));
    expect(receiver.idsOf('integration.created').length).toBeGreaterThan(before.length);

    await linkTo(page, 'History').click();
    const retried = page.getByRole('listitem').filter({ hasText: 'retried the delivery of integration.created' });
    await retried.locator('summary').click();
    await retried.getByRole('link', { name: /^whdel_/ }).click();
    await page.getByRole('heading', { name: receiver.url, level: 1 }).waitFor();
    assertQuiet();
  });

  it('rotates the secret: until the overlap is over, messages are signed with both', async () => {
    const receiver = await startReceiver();
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/webhooks');
    const old = await createEndpoint(page, receiver.url);
    await test(page);
    await page.getByRole('button', { name: 'Rotate the secret' }).click();
    const dialog = dialogOf(page, 'Rotate the secret');
    expect(await dialog.getByLabel('Overlap').inputValue()).toBe('86400');
    await lookAt(page, 'webhook-rotate');
    await dialog.getByRole('button', { name: 'Rotate secret' }).click();
    const secret = await storeSecret(page);
    expect(secret).not.toBe(old);

    const count = receiver.received.length;
    await test(page);
    const later = receiver.received.slice(count);
    expect(later.length).toBeGreaterThan(0);
    expect(later.every((received) => isSignedWith(old, received) && isSignedWith(secret, received))).toBe(true);
    assertQuiet();
  });

  it('sends events again since a time', async () => {
    const receiver = await startReceiver();
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/webhooks');
    await createEndpoint(page, receiver.url);
    await test(page);
    await server.createIntegration(client);
    await expect.poll(() => receiver.idsOf('integration.created').length).toBe(1);

    await page.getByRole('button', { name: 'Send events again' }).click();
    const dialog = dialogOf(page, 'Send events again');
    await dialog.getByLabel('Since').fill('2999-01-01T00:00');
    await dialog.getByRole('button', { name: 'Send again' }).click();
    await dialog.getByRole('listitem').getByText('must not be in the future').waitFor();
    await lookAt(page, 'webhook-replay');
    await dialog.getByLabel('Since').fill(toLocal(new Date(Date.now() - 3_600_000).toISOString()));
    await dialog.getByRole('button', { name: 'Send again' }).click();
    await noticeOf(page).getByText('The events are sent again.').waitFor();

    await expect.poll(() => receiver.idsOf('integration.created').length).toBe(2);
    expect(new Set(receiver.idsOf('integration.created')).size).toBe(1);
    assertQuiet();
  });

  it('changes, disables and deletes an endpoint', async () => {
    const receiver = await startReceiver();
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/webhooks');
    await createEndpoint(page, receiver.url);
    await test(page);
    await page.getByRole('button', { name: 'Edit' }).click();
    const form = dialogOf(page, 'Edit the endpoint');
    await form.getByRole('button', { name: 'Save' }).click();
    await noticeOf(page).getByText('Nothing differs, so nothing was sent.').waitFor();

    await page.getByRole('button', { name: 'Edit' }).click();
    await form.getByLabel('Description').fill('For billing');
    await form.getByLabel('Enabled').uncheck();
    await form.getByRole('button', { name: 'Save' }).click();
    await noticeOf(page).getByText('The endpoint is changed.').waitFor();
    await badge(page, 'disabled').waitFor();
    await page.locator('.page > dl').getByText('For billing', { exact: true }).waitFor();
    await page.getByText('and disabled it.').waitFor();
    await server.createIntegration(client);
    await linkTo(page, 'Webhooks').click();
    await page.getByRole('row', { name: /For billing.*disabled/ }).waitFor();
    await page.getByRole('link', { name: receiver.url }).click();

    await page.getByRole('button', { name: 'Delete' }).click();
    const dialog = dialogOf(page, `Delete ${receiver.url}`);
    await dialog.waitFor();
    await lookAt(page, 'webhook-delete');
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Delete' }).click();
    await dialog.getByRole('button', { name: 'Delete the endpoint' }).click();
    await noticeOf(page).getByText(`${receiver.url} is deleted.`).waitFor();
    await page.getByText('There is no webhook endpoint yet.').waitFor();
    expect(receiver.idsOf('integration.created')).toEqual([]);
    assertQuiet();
  });

  it('says that an endpoint is gone', async () => {
    const client = await server.newOrganization();
    for (const id of ['whep_0123456789ab', 'nothing']) {
      const { page, assertQuiet } = await openAs(client, `#/webhooks/${id}`);
      await page.getByText('There is no such endpoint').waitFor();
      expect(await page.getByRole('button', { name: 'Send a test' }).count()).toBe(0);
      assertQuiet();
    }
  });

  it('are not offered to keys of other roles', async () => {
    const { organization_id } = await server.newOrganization();
    for (const role of ['user', 'agent_manager'] as const) {
      const { page, assertQuiet } = await openAs(await server.newKey(organization_id, role));
      await linkTo(page, 'Numbers').waitFor();
      expect(await linkTo(page, 'Webhooks').count()).toBe(0);
      await page.evaluate("location.hash = '#/webhooks'");
      await page.getByRole('alert').getByText('Ask somebody with a key of a higher role.').waitFor();
      expect(await page.getByRole('button', { name: 'Create an endpoint' }).count()).toBe(0);
      assertQuiet();
    }
  });
});
