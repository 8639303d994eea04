import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { executablePath } from '../conformance/browser.ts';
import { joinServer, LAST_NET, twilio } from '../conformance/server.ts';
import type { Client } from '../conformance/server.ts';
import { lookAt, useBrowser } from './console.ts';

const server = joinServer();

const integration = z.object({
  integration_id: z.string(),
  name: z.string(),
  verification: z.object({ status: z.string() }),
});
const list = z.object({ data: z.array(integration) });
const one = z.object({ data: integration });
const numbers = z.object({ data: z.array(z.object({ phone_number: z.string(), supports_outbound: z.boolean() })) });

const HOSTILE = '<img src=x onerror=alert(1)>';

async function integrationsOf(client: Client) {
  const { body } = await server.call(client, 'GET', '/api/integrations');
  return list.parse(body).data;
}

async function createIntegration(client: Client, name: string, credentials: object, verify = true) {
  const path = `/api/integrations?verify=${verify}`;
  const { body } = await server.call(client, 'POST', path, { body: { name, credentials } });
  return one.parse(body).data.integration_id;
}

async function nameOf(client: Client, integration_id: string) {
  const { body } = await server.call(client, 'GET', `/api/integrations/${integration_id}`);
  return one.parse(body).data.name;
}

const plivo = { provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token: 'plaintext-auth-token' };

/** Of the rows that a table shows. */
const namesIn = (page: Page) => page.getByRole('table').getByRole('rowheader').allInnerTexts();

const expectNames = (page: Page, names: string[]) => expect.poll(() => namesIn(page), LAST_NET).toEqual(names);

describe.skipIf(!executablePath)('the console’s views of integrations', () => {
  const { openAs } = useBrowser(server.url);

  it('create one: a wrong paste is told at once, a refusal stores nothing, and the secret does not stay', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/integrations');
    await page.getByText('There are no integrations yet.').waitFor();
    await page.getByRole('button', { name: 'Create integration' }).click();

    await page.getByLabel('Account SID').fill('SK0123456789abcdef0123456789abcdef');
    await page
      .getByText('must be AC followed by 32 hex digits: this is an API key SID; an Account SID begins with AC')
      .waitFor();
    await page.getByLabel('Auth Token').fill(twilio.account_sid);
    await page.getByText('must be the secret; this is an Account SID').waitFor();
    await lookAt(page, 'integration-create');

    await page.getByLabel('Name').fill('Front desk');
    await page.getByRole('button', { name: 'Create integration' }).click();
    const sid = page.getByLabel('Account SID');
    await page.locator('input[name="credentials.account_sid"]:focus').waitFor();
    expect(await sid.getAttribute('aria-invalid')).toBe('true');
    expect(await page.getByLabel('Auth Token').getAttribute('aria-invalid')).toBe('true');

    await sid.fill(twilio.account_sid);
    await page.getByLabel('Auth Token').fill('a refused secret');
    await page.getByRole('button', { name: 'Create integration' }).click();
    const problem = page.getByRole('alert');
    await problem.getByText('Credentials are refused').waitFor();
    expect(await problem.getByText(/^[0-9a-f]{8}-[0-9a-f-]{27}$/).count()).toBe(1);
    expect(await integrationsOf(client)).toEqual([]);

    await page.getByLabel('Auth Token').fill('the right secret');
    await page.getByRole('button', { name: 'Create integration' }).click();
    await page.getByText('“Front desk” is created.').waitFor();
    await page.getByRole('heading', { level: 1, name: 'Front desk' }).waitFor();
    expect(await page.content()).not.toContain('the right secret');
    expect(await integrationsOf(client)).toMatchObject([{ name: 'Front desk', verification: { status: 'verified' } }]);
    assertQuiet();
  });

  it('make a form for each provider, and send only what was entered, unchecked if asked', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await openAs(client, '#/integrations/new');
    await page.getByLabel('Provider', { exact: true }).selectOption('vonage');
    await page.getByLabel('Private key').fill('-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----');
    await page.getByText('must be in PKCS#8').waitFor();
    await page.getByLabel('Private key').fill('');
    await page.getByLabel('Name').fill('Vonage');
    await page.getByLabel('API key').fill('an id');
    await page.getByLabel('API secret').fill('a secret');
    await page.getByLabel('Application ID').fill('01234567-89ab-cdef-0123-456789abcdef');
    await page.getByRole('button', { name: 'Create integration' }).click();
    await page.locator('textarea[aria-invalid="true"]:focus').waitFor();
    await page.locator('.field').getByText('is required if application_id is given').waitFor();
    expect(await integrationsOf(client)).toEqual([]);

    await page.getByLabel('Provider', { exact: true }).selectOption('telnyx');
    await page.getByLabel('Name').fill('Telnyx');
    await page.getByLabel('API key').fill('a refused secret');
    await page.getByLabel('Check with the provider before storing').uncheck();
    await page.getByRole('button', { name: 'Create integration' }).click();

    await page.getByText('The provider has not been asked about these credentials.').first().waitFor();
    expect(await integrationsOf(client)).toMatchObject([{ name: 'Telnyx', verification: { status: 'unverified' } }]);
    assertQuiet();
  });

  it('list them by filters or by name, which exclude each other, and show a name as text', async () => {
    const client = await server.newOrganization();
    await createIntegration(client, 'Alpha', twilio);
    await createIntegration(client, 'Beta', plivo);
    await createIntegration(client, HOSTILE, { ...twilio, auth_token: 'a refused secret' }, false);
    const { page, assertQuiet } = await openAs(client, '#/integrations');
    await page.getByText('3 of 3 integrations shown').waitFor();
    const newestFirst = await namesIn(page);
    expect(new Set(newestFirst)).toEqual(new Set(['Alpha', 'Beta', HOSTILE]));
    await lookAt(page, 'integrations');

    await page.getByLabel('Order').selectOption('oldest first');
    const oldestFirst = newestFirst.toReversed();
    await expectNames(page, oldestFirst);
    await page.getByLabel('Provider').selectOption('twilio');
    await expectNames(
      page,
      oldestFirst.filter((name) => name !== 'Beta'),
    );
    await page.getByLabel('Verification').selectOption('verified');
    await expectNames(page, ['Alpha']);
    expect(page.url()).toMatch(/#\/integrations\?.*verification=verified/);

    await page.getByLabel('Name begins with').fill('be');
    await expectNames(page, ['Beta']);
    expect(await page.getByLabel('Verification').isDisabled()).toBe(true);
    expect(page.url()).toMatch(/#\/integrations\?name_prefix=be$/);

    await page.getByLabel('Name begins with').fill('nobody');
    await page.getByText('No integration is found.').waitFor();
    await page.getByRole('button', { name: 'Clear the search and the filters' }).click();
    await expectNames(page, newestFirst);
    expect(await page.getByLabel('Name begins with').inputValue()).toBe('');

    await page.getByRole('link', { name: HOSTILE, exact: true }).click();
    await page.getByRole('heading', { level: 1, name: HOSTILE }).waitFor();
    await page.getByRole('button', { name: 'Replace credentials' }).click();
    await page.getByRole('dialog').getByRole('heading', { name: HOSTILE }).waitFor();
    expect(await page.locator('img').count()).toBe(0);
    assertQuiet();
  });

  it('rename one, unless somebody else did meanwhile: then both names are shown, and either can be chosen', async () => {
    const client = await server.newOrganization();
    const integration_id = await createIntegration(client, 'Before', twilio);
    const renameBehind = (name: string) =>
      server.call(client, 'PUT', `/api/integrations/${integration_id}`, { body: { name } });
    const { page, assertQuiet } = await openAs(client, `#/integrations/${integration_id}`);
    const dialog = page.getByRole('dialog');
    async function rename(name: string) {
      await page.getByRole('button', { name: 'Rename' }).click();
      await dialog.getByLabel('Name').fill(name);
      await dialog.getByRole('button', { name: 'Rename' }).click();
    }
    await page.getByRole('heading', { level: 1, name: 'Before' }).waitFor();

    await renameBehind('Theirs');
    await rename('Mine');
    await dialog.getByText('Somebody changed this meanwhile.').waitFor();
    expect(await dialog.getByRole('cell').allInnerTexts()).toEqual(['Mine', 'Theirs']);
    expect(await nameOf(client, integration_id)).toBe('Theirs');
    await lookAt(page, 'integration-changed');
    await dialog.getByRole('button', { name: 'Leave it as it is now' }).click();
    await page.getByRole('heading', { level: 1, name: 'Theirs' }).waitFor();
    expect(await nameOf(client, integration_id)).toBe('Theirs');

    await renameBehind('Theirs again');
    await rename('Mine');
    await dialog.getByRole('button', { name: 'Use my values' }).click();
    await page.getByText('The integration is now called “Mine”.').waitFor();
    await page.getByRole('heading', { level: 1, name: 'Mine' }).waitFor();
    expect(await nameOf(client, integration_id)).toBe('Mine');
    assertQuiet();
  });

  it('verify one that is refused, and replace its credentials', async () => {
    const client = await server.newOrganization();
    const refused = { ...twilio, auth_token: 'a refused secret' };
    const integration_id = await createIntegration(client, 'Front desk', refused, false);
    const { page, assertQuiet } = await openAs(client, `#/integrations/${integration_id}`);
    await page.getByRole('button', { name: 'Verify now' }).click();
    await page.getByText('was checked now: refused.').waitFor();
    await page.getByText('status 401, code 20003').waitFor();

    await page.getByRole('button', { name: 'Replace credentials' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Account SID').fill(twilio.account_sid);
    await dialog.getByLabel('Auth Token').fill('another refused secret');
    await dialog.getByRole('button', { name: 'Replace credentials' }).click();
    await dialog.getByRole('alert').getByText('Copy the credentials anew').waitFor();
    await lookAt(page, 'integration-credentials');
    await dialog.getByLabel('Auth Token').fill('the right secret');
    await dialog.getByRole('button', { name: 'Replace credentials' }).click();

    await page.getByText('The credentials are replaced. The provider accepted the credentials.').waitFor();
    await page.locator('dd .badge').getByText('verified').waitFor();
    expect(await page.content()).not.toContain('the right secret');
    expect(await integrationsOf(client)).toMatchObject([{ verification: { status: 'verified' } }]);
    assertQuiet();
  });

  it('import ten of the twelve numbers of an account, and say of a number why it was not imported', async () => {
    const client = await server.newOrganization();
    const credentials = { ...twilio, auth_token: 'console holds-12' };
    const integration_id = await createIntegration(client, 'Front desk', credentials);
    const { page, assertQuiet } = await openAs(client, `#/integrations/${integration_id}`);
    await page.getByText('No number is imported through this integration yet.').waitFor();
    await page.getByRole('button', { name: 'Show the account’s numbers' }).click();
    const account = page.getByRole('region', { name: 'Numbers of the account' });
    await page.getByText('12 numbers of the account shown').waitFor();
    await account.getByLabel('Select all that are shown and available').check();
    await account.getByLabel('Select +14155560000').uncheck();
    await account.getByLabel('Select +14155560001').uncheck();
    await page.getByLabel('They make outbound calls').uncheck();
    await lookAt(page, 'integration-import');

    await page.getByRole('button', { name: 'Import 10 of these numbers' }).click();
    await page.getByText('10 of 10 numbers were imported.').waitFor();
    await page.getByText('10 of 10 numbers shown').waitFor();
    await page.getByText('12 numbers of the account shown').waitFor();
    expect(await account.getByText('available').count()).toBe(2);
    const { body } = await server.call(client, 'GET', `/api/phone-numbers?integration_id=${integration_id}`);
    const imported = numbers.parse(body).data;
    expect(imported.map(({ phone_number }) => phone_number)).toEqual(
      Array.from({ length: 10 }, (_, index) => `+${14155560002 + index}`),
    );
    expect(imported.some(({ supports_outbound }) => supports_outbound)).toBe(false);

    // Another tab imports both of the others meanwhile.
    const path = '/api/phone-numbers/bulk';
    await server.call(client, 'POST', path, {
      body: { integration_id, phone_numbers: ['+14155560000', '+14155560001'] },
    });
    await account.getByLabel('Select all that are shown and available').check();
    await page.getByRole('button', { name: 'Import 2 of these numbers' }).click();
    await page.getByText('0 of 2 numbers were imported.').waitFor();
    const results = page.getByRole('region', { name: 'What came of the import' });
    expect(await results.getByText('failed').count()).toBe(2);
    expect(await results.getByText(/already/i).count()).toBe(2);
    await page.getByText('12 of 12 numbers shown').waitFor();
    await lookAt(page, 'integration');
    assertQuiet();
  });

  it('offer nothing that changes something to a key that may only read', async () => {
    const client = await server.newOrganization();
    const integration_id = await createIntegration(client, 'Front desk', twilio);
    const reader = await server.newKey(client.organization_id, 'user');
    const { page, assertQuiet } = await openAs(reader, '#/integrations');
    await page.getByRole('link', { name: 'Front desk', exact: true }).waitFor();
    const main = page.getByRole('main');
    expect(await main.getByRole('button').allInnerTexts()).toEqual([]);
    await page.getByRole('link', { name: 'Front desk', exact: true }).click();
    await page.getByText('No number is imported through this integration yet.').waitFor();
    expect(await main.getByRole('button').allInnerTexts()).toEqual(['Copy']);
    expect(await main.getByRole('link').allInnerTexts()).toEqual(['← Integrations']);
    await lookAt(page, 'integration-read-only');

    await page.goto(`${server.url}/console#/integrations/intg_000000000000`);
    await page.getByText('There is no integration intg_000000000000.').waitFor();
    await page.getByRole('link', { name: 'See all integrations' }).click();
    await page.getByRole('link', { name: 'Front desk', exact: true }).waitFor();
    expect(await integrationsOf(client)).toMatchObject([{ integration_id }]);
    assertQuiet();
  });
});
