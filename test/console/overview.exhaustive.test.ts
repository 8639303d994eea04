import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { executablePath } from '../conformance/browser.ts';
import { joinServer, newNumbers, twilio } from '../conformance/server.ts';
import type { Client } from '../conformance/server.ts';
import { lookAt, useBrowser } from './console.ts';

const server = joinServer();

const createdIntegration = z.object({ data: z.object({ integration_id: z.string() }) });

/** Its credentials are stored unseen, and checked after that. */
async function integrationThat(client: Client, name: string, secret: string): Promise<string> {
  const body = { name, credentials: { ...twilio, auth_token: secret } };
  const created = await server.call(client, 'POST', '/api/integrations?verify=false', { body });
  const { integration_id } = createdIntegration.parse(created.body).data;
  await server.call(client, 'POST', `/api/integrations/${integration_id}/verify`);
  return integration_id;
}

describe.skipIf(!executablePath)('the console’s overview', () => {
  const { openAs } = useBrowser(server.url);

  it('counts what there is, and lists what needs attention', async () => {
    const client = await server.newOrganization({ tier: 'starter' });
    await server.query(
      'UPDATE organizations SET max_api_keys = 2, max_integrations = 7 WHERE organization_id = ?',
      client.organization_id,
    );
    const good = await integrationThat(client, 'Good', 'a-good-secret');
    const refused = await integrationThat(client, 'Refused', 'a-refused-secret');
    await integrationThat(client, 'Limited', 'a-restricted-secret');
    const missing = await integrationThat(client, 'Missing', 'a-good-secret');
    const overdue = await integrationThat(client, 'Overdue', 'a-good-secret');
    const body = { name: 'Unchecked', credentials: twilio };
    await server.call(client, 'POST', '/api/integrations?verify=false', { body });
    await server.query("UPDATE integrations SET status = 'credentials_missing' WHERE integration_id = ?", missing);
    await server.query(
      'UPDATE integrations SET verification_checked_at = unixepoch() - 49 * 3600 WHERE integration_id = ?',
      overdue,
    );
    const [first = '', second = '', third = ''] = newNumbers(3);
    await server.importNumber(client, good, first);
    await server.importNumber(client, good, second);
    const sip = {
      phone_number: third,
      provider: 'sip',
      supports_inbound: true,
      sip_trunk_name: 'Main',
      inbound_room_name: 'Lobby',
    };
    await server.call(client, 'POST', '/api/phone-numbers', { body: sip });
    const expires_at = new Date(Date.now() + 5.5 * 86_400_000).toISOString();
    await server.call(client, 'POST', '/api/api-keys', { body: { name: 'Ending', role: 'user', expires_at } });
    const { page, assertQuiet } = await openAs(client);

    const panel = (name: string) => page.getByRole('region', { name, exact: true });
    await panel('Quotas').waitFor();
    expect(await panel('Integrations').textContent()).toBe('Integrations6of 7 ! nearly full');
    expect(await panel('Numbers').textContent()).toBe('Numbers3of 1,000 ');
    expect(await panel('Unconfirmed numbers').textContent()).toBe('Unconfirmed numbers3of 50 ');
    expect(await panel('Keys').textContent()).toBe('Keys2of 2 ! full');
    expect(await panel('Credentials missing').getByRole('listitem').allTextContents()).toEqual([
      'Missing · checked just now',
    ]);
    expect(await panel('Credentials refused').getByRole('listitem').allTextContents()).toEqual([
      'Refused · checked just now',
    ]);
    expect(await panel('Credentials limited').getByRole('listitem').allTextContents()).toEqual([
      'Limited · checked just now',
    ]);
    expect(await panel('Not checked for 48 hours').getByRole('listitem').allTextContents()).toEqual([
      'Overdue · checked 2 days ago',
    ]);
    expect(await panel('Never checked').getByRole('listitem').allTextContents()).toEqual(['Unchecked']);
    expect(await panel('Keys that expire soon').getByRole('listitem').allTextContents()).toEqual([
      expect.stringMatching(/^Ending \(bk_live_\w{4}…\) · expires in 5 days$/),
    ]);
    expect(await panel('Quotas').getByRole('listitem').allTextContents()).toEqual([
      'Integrations: 6 of 7',
      'Keys: 2 of 2',
    ]);
    expect(await page.getByText('Nothing needs attention.').count()).toBe(0);
    await page.getByRole('link', { name: '3 verified' }).waitFor();
    await page.getByRole('link', { name: '1 refused' }).waitFor();
    await lookAt(page, 'overview');

    expect(await page.getByRole('link', { name: 'Refused', exact: true }).getAttribute('href')).toBe(
      `#/integrations/${refused}`,
    );
    await page.getByRole('link', { name: '1 refused' }).click();
    await page.waitForURL(/#\/integrations\?verification=refused$/);
    assertQuiet();
  });

  it('counts all pages, and lists the first of many', async () => {
    const client = await server.newOrganization();
    const body = { name: 'Unchecked', credentials: twilio };
    await Promise.all(
      Array.from({ length: 101 }, () => server.call(client, 'POST', '/api/integrations?verify=false', { body })),
    );
    const { page, assertQuiet } = await openAs(client);
    const panel = page.getByRole('region', { name: 'Never checked', exact: true });
    await panel.getByRole('link', { name: 'And 91 more' }).waitFor();
    expect(await panel.getByRole('link', { name: 'Unchecked' }).count()).toBe(10);
    expect(await page.getByRole('region', { name: 'Integrations', exact: true }).textContent()).toBe(
      'Integrations101of 10,000 ',
    );
    await page.getByRole('link', { name: 'And 91 more' }).click();
    await page.waitForURL(/#\/integrations\?verification=unverified$/);
    assertQuiet();
  });

  it('begins with the first integration, and is content with what is well', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client);
    await page.getByText('There is no integration yet.').waitFor();
    await page.getByText('Nothing needs attention.').waitFor();
    expect(await page.getByRole('link', { name: 'Create an integration' }).getAttribute('href')).toBe(
      '#/integrations/new',
    );
    await lookAt(page, 'overview-empty');
    assertQuiet();

    const user = await server.newKey(client.organization_id, 'user');
    const asUser = await openAs(user);
    await asUser.page.getByText('Somebody with a key of a higher role can create one.').waitFor();
    await asUser.page.getByText('Nothing needs attention.').waitFor();
    expect(await asUser.page.getByRole('link', { name: 'Create an integration' }).count()).toBe(0);
    expect(await asUser.page.getByRole('region', { name: 'Keys', exact: true }).count()).toBe(0);
    asUser.assertQuiet();
  });
});
