import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { executablePath } from '../conformance/browser.ts';
import { joinServer, newNumbers, problem } from '../conformance/server.ts';
import type { Client } from '../conformance/server.ts';
import { lookAt, useBrowser } from './console.ts';
import { assign, HOSTILE, newIntegration, newSipNumber, numbersOf } from './records.ts';

const server = joinServer();

const read = (client: Client, phone_number_id: string) =>
  server.call(client, 'GET', `/api/phone-numbers/${phone_number_id}`);

const change = (client: Client, phone_number_id: string, body: object) =>
  server.call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, { body });

/** An integration with some numbers, ascending. */
async function withNumbers(client: Client, name: string, count: number) {
  const integration_id = await newIntegration(server, client, name);
  const numbers = newNumbers(count);
  const ids: string[] = [];
  for (const number of numbers) ids.push(await server.importNumber(client, integration_id, number));
  return { integration_id, numbers, ids };
}

/** Waits until the list shows exactly these numbers. */
const expectListed = (page: Page, numbers: readonly string[]) =>
  expect
    .poll(() => page.getByRole('region', { name: 'Numbers', exact: true }).getByRole('rowheader').allTextContents(), {
      timeout: 60_000,
    })
    .toEqual(numbers);

describe.skipIf(!executablePath)('the console’s numbers', () => {
  const { openAs } = useBrowser(server.url);

  it('are found by their beginning and by the filters that go together', async () => {
    const client = await server.newOrganization();
    const { integration_id, numbers, ids } = await withNumbers(client, HOSTILE, 3);
    const [sip = ''] = newNumbers(1);
    await newSipNumber(server, client, { phone_number: sip });
    await assign(server, client, ids[0] ?? '', 'agent_day');
    const all = [...numbers, sip].toSorted();
    const [first = '', second = '', third = ''] = numbers;
    const { page, assertQuiet } = await openAs(client, '#/numbers');

    await expectListed(page, all);
    await page.getByText('4 of 4 numbers shown').waitFor();
    await page.getByRole('row', { name: second }).getByRole('link', { name: HOSTILE }).waitFor();
    await lookAt(page, 'numbers');

    const search = page.getByRole('searchbox', { name: 'Number' });
    await search.fill(` ${second.slice(0, 2)} (${second.slice(2, 5)}) ${second.slice(5)} `);
    await search.press('Enter');
    await expectListed(page, [second]);
    expect(new URLSearchParams(new URL(page.url()).hash.split('?')[1]).get('phone_number_prefix')).toBe(second);
    await page.getByRole('button', { name: 'Clear the filters' }).click();
    await expectListed(page, all);
    expect(await search.inputValue()).toBe('');

    await search.fill('415');
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByText('must be + (in a URL %2B) and 1 to 15 digits').first().waitFor();
    expect(await search.getAttribute('aria-invalid')).toBe('true');
    await page.getByRole('button', { name: 'Clear the filters' }).click();
    await expectListed(page, all);

    await page.getByLabel('Status').selectOption('free');
    await page.getByLabel('Integration').selectOption(HOSTILE);
    await page.getByLabel('Ownership').selectOption('unconfirmed');
    await expectListed(page, [second, third]);
    expect(await page.getByLabel('Provider').isDisabled()).toBe(true);
    expect(await page.getByRole('searchbox', { name: 'Agent' }).isDisabled()).toBe(true);
    await page.getByText('Does not go with Status or Integration or Ownership.').first().waitFor();
    await page.reload();
    await page.getByLabel('Organization').waitFor();
    expect(page.url()).toContain(`integration_id=${integration_id}`);
    await page.getByLabel('Organization').fill(client.organization_id);
    await page.getByLabel('API key').fill(client.raw_key);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await expectListed(page, [second, third]);
    expect(await page.getByLabel('Status').inputValue()).toBe('free');

    await page.getByRole('button', { name: 'Clear the filters' }).click();
    await page.getByLabel('Provider').selectOption('SIP');
    await expectListed(page, [sip]);
    for (const name of ['Status', 'Integration', 'Ownership']) {
      expect(await page.getByLabel(name).isDisabled(), name).toBe(true);
    }
    await page.getByLabel('Provider').selectOption('All');
    await page.getByRole('searchbox', { name: 'Agent' }).fill('agent_day');
    await page.getByRole('button', { name: 'Search' }).click();
    await expectListed(page, [first]);
    await page.getByRole('searchbox', { name: 'Agent' }).fill('agent_nobody');
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByText('No number meets these filters.').waitFor();
    assertQuiet();
  });

  it('come page by page, and only those that are shown are selected', async () => {
    const client = await server.newOrganization();
    const integration_id = await newIntegration(server, client, 'Twilio Production');
    const phone_numbers = newNumbers(60);
    const body = { integration_id, phone_numbers };
    await server.call(client, 'POST', '/api/phone-numbers/bulk?verify=false', { body });
    const { page, assertQuiet } = await openAs(client, `#/numbers?integration_id=${integration_id}`);
    await page.getByText('50 of 60 numbers shown').waitFor();
    await page.getByLabel('Select all shown').check();
    await page.getByText('50 numbers selected.').waitFor();
    await page.getByRole('button', { name: 'Show more' }).click();
    await page.getByText('60 of 60 numbers shown').waitFor();
    await page.getByText('50 numbers selected.').waitFor();
    expect(await page.getByLabel('Select all shown').isChecked()).toBe(false);
    await page.getByLabel('Select all shown').check();
    await page.getByText('60 numbers selected.').waitFor();
    await page.getByLabel('Status').selectOption('assigned');
    await page.getByText('No number meets these filters.').waitFor();
    expect(await page.getByText('selected.').count()).toBe(0);
    assertQuiet();
  });

  it('are assigned, freed, moved and deleted many at once, after a preview, and all or none', async () => {
    const client = await server.newOrganization();
    const { numbers, ids } = await withNumbers(client, 'First', 3);
    const target = await newIntegration(server, client, 'Second');
    const [first = '', second = ''] = numbers;
    const { page, assertQuiet } = await openAs(client, '#/numbers');
    const dialog = page.getByRole('dialog');
    const open = async (action: string) => {
      await page
        .getByRole('region', { name: 'With the selected numbers' })
        .getByRole('button', { name: action })
        .click();
      await dialog.waitFor();
    };

    await page.getByLabel(`Select ${first}`).check();
    await page.getByLabel(`Select ${second}`).check();
    await page.getByText('2 numbers selected.').waitFor();
    await open('Assign to an agent');
    await dialog.getByLabel('Agent').fill('nobody');
    await dialog.getByText('must be agent_ followed by').waitFor();
    await dialog.getByLabel('Agent').fill('agent_day');
    await dialog.getByRole('button', { name: 'Preview' }).click();
    await dialog.getByText('2 numbers would be assigned to agent_day.').waitFor();
    await dialog.getByRole('row', { name: `${first} free possible` }).waitFor();
    await lookAt(page, 'numbers-assign');
    expect(await numbersOf(server, client)).toMatchObject(ids.map(() => ({ status: 'free' })));
    await dialog.getByRole('button', { name: 'Assign to an agent: 2 numbers' }).click();
    await page.getByText('2 numbers are assigned to agent_day.').waitFor();
    await page.getByRole('row', { name: first }).getByText('agent_day').waitFor();
    expect(await page.getByRole('region', { name: 'With the selected numbers' }).count()).toBe(0);

    await page.getByLabel('Select all shown').check();
    await page.getByText('3 numbers selected.').waitFor();
    await open('Delete');
    await dialog.getByText('Nothing would be done: 2 of 3 numbers cannot be deleted.').waitFor();
    await dialog.getByRole('row', { name: first }).getByText('blocks').waitFor();
    expect(await dialog.getByRole('button').allTextContents()).toEqual(['Cancel']);
    await lookAt(page, 'numbers-delete-blocked');
    await dialog.getByRole('button', { name: 'Cancel' }).press('Enter');
    await dialog.waitFor({ state: 'detached' });
    expect(await numbersOf(server, client)).toHaveLength(3);

    await open('Free');
    await dialog.getByText('3 numbers would be free.').waitFor();
    await dialog.getByRole('button', { name: 'Free: 3 numbers' }).click();
    await page.getByText('3 numbers are free.').waitFor();
    expect(await numbersOf(server, client)).toMatchObject(ids.map(() => ({ status: 'free' })));

    await page.getByLabel('Select all shown').check();
    await open('Move to an integration');
    await dialog.getByLabel('Integration').selectOption('Second');
    await dialog.getByRole('button', { name: 'Preview' }).click();
    await dialog.getByText('3 numbers would be moved to Second.').waitFor();
    await dialog.getByRole('button', { name: 'Move to an integration: 3 numbers' }).click();
    await page.getByText('3 numbers are moved to Second.').waitFor();
    expect(await numbersOf(server, client)).toMatchObject(ids.map(() => ({ integration_id: target })));

    await page.getByLabel('Select all shown').check();
    await open('Delete');
    await dialog.getByText('3 numbers would be deleted.').waitFor();
    await assign(server, client, ids[1] ?? '', 'agent_night');
    await dialog.getByRole('button', { name: 'Delete: 3 numbers' }).click();
    await dialog.getByRole('alert').waitFor();
    await dialog.getByRole('row', { name: second }).getByText('blocks').waitFor();
    expect(await numbersOf(server, client)).toHaveLength(3);
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    await assign(server, client, ids[1] ?? '', null);
    await open('Delete');
    await dialog.getByRole('button', { name: 'Delete: 3 numbers' }).click();
    await page.getByText('3 numbers are deleted.').waitFor();
    await page.getByText('There are no numbers yet.').waitFor();
    expect(await numbersOf(server, client)).toEqual([]);
    assertQuiet();
  });

  it('are added through an integration', async () => {
    const client = await server.newOrganization();
    const integration_id = await newIntegration(server, client, 'Twilio Production');
    const [number = ''] = newNumbers(1);
    const { page, assertQuiet } = await openAs(client, '#/numbers');
    await page.getByText('There are no numbers yet.').waitFor();
    await page.getByRole('button', { name: 'Add a number' }).click();

    await page.getByRole('textbox', { name: 'Number' }).fill('4155550100');
    await page.getByText('must be in E.164 form').waitFor();
    await page.getByRole('textbox', { name: 'Number' }).fill(number);
    await page.getByLabel('Integration', { exact: true }).selectOption('Twilio Production (Twilio)');
    await page.getByLabel('Supports inbound calls').check();
    await lookAt(page, 'number-add');
    await page.getByRole('button', { name: 'Add the number' }).click();
    await page.getByRole('alert').getByText('does not hold this phone number').waitFor();
    expect(await numbersOf(server, client)).toEqual([]);
    await page.getByLabel('Do not ask the account').check();
    await page.getByRole('button', { name: 'Add the number' }).click();
    await page.getByText(`${number} is imported, and free.`).waitFor();
    await page.getByRole('heading', { name: number, level: 1 }).waitFor();
    expect(await numbersOf(server, client)).toMatchObject([
      { phone_number: number, integration_id, supports_inbound: true, supports_outbound: false },
    ]);
    assertQuiet();
  });

  it('by SIP are added and edited, and their secrets are never shown', async () => {
    const client = await server.newOrganization();
    const [number = ''] = newNumbers(1);
    const { page, assertQuiet } = await openAs(client, '#/numbers/new');
    await page.getByLabel('How calls reach it').selectOption('By SIP');
    await page.getByRole('textbox', { name: 'Number' }).fill(number);
    await page.getByLabel('Trunk name').fill(HOSTILE);
    await page.getByLabel('Server address').fill('sip:example.com');
    await page.getByText('must be a host name').waitFor();
    await page.getByLabel('Server address').fill('sip.example.com:5061');
    await page.getByLabel('Transport').selectOption('tls');
    await page.getByLabel('User name').fill('trunk');
    await page.getByLabel('Inbound PIN').fill('4711');
    await lookAt(page, 'number-add-sip');
    await page.getByRole('button', { name: 'Add the number' }).click();
    await page.getByText('is required if sip_username is given').first().waitFor();
    expect(await page.getByLabel('Password').getAttribute('aria-invalid')).toBe('true');
    await page.getByLabel('Password').fill('plaintext-sip-password');
    await page.getByRole('button', { name: 'Add the number' }).click();
    await page.getByText(`${number} is imported, and free.`).waitFor();
    await page.getByRole('heading', { name: number, level: 1 }).waitFor();
    const shown = await page.content();
    expect(shown).not.toContain('plaintext-sip-password');
    expect(shown).not.toContain('4711');
    const [created] = await numbersOf(server, client);
    const phone_number_id = created?.phone_number_id ?? '';
    const saved = { sip_trunk_name: HOSTILE, sip_username: 'trunk', sip_transport: 'tls' };
    expect(await read(client, phone_number_id)).toMatchObject({ body: { data: saved } });
    expect(await page.getByRole('button', { name: 'Verify ownership now' }).count()).toBe(0);
    await lookAt(page, 'number-sip');

    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Nothing differs, so nothing was sent.').waitFor();
    await page.getByLabel('Trunk name').fill('');
    await page.getByRole('textbox', { name: /^Agent/ }).fill('agent_day');
    await page.getByLabel('Remove the user name and the password').check();
    expect(await page.getByRole('textbox', { name: /^Password/ }).isDisabled()).toBe(true);
    const sent = page.waitForRequest((request) => request.method() === 'PUT');
    await page.getByRole('button', { name: 'Save' }).click();
    expect((await sent).postDataJSON()).toEqual({
      assigned_agent_id: 'agent_day',
      sip_trunk_name: null,
      sip_username: null,
      sip_password: null,
    });
    await page.getByText(`${number} is changed.`).waitFor();
    const changed = { sip_trunk_name: null, sip_username: null, assigned_agent_id: 'agent_day', sip_transport: 'tls' };
    expect(await read(client, phone_number_id)).toMatchObject({ body: { data: changed } });

    await page.getByText('Remove the user name and the password').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByText('Free it first').waitFor();
    expect(await page.getByRole('button', { name: 'Delete the number' }).count()).toBe(0);
    await page.getByRole('button', { name: 'Keep it' }).click();
    await page.getByRole('textbox', { name: /^Agent/ }).fill('');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('definition').getByText('free').waitFor();
    await page.getByRole('button', { name: 'Delete' }).click();
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    expect(await read(client, phone_number_id)).toMatchObject({ status: 200 });
    await page.getByRole('button', { name: 'Delete' }).click();
    await lookAt(page, 'number-delete');
    await page.getByRole('button', { name: 'Delete the number' }).click();
    await page.getByText(`${number} is deleted.`).waitFor();
    expect(await read(client, phone_number_id)).toMatchObject(problem(404, 'phone_number_not_found'));
    assertQuiet();
  });

  it('are not overwritten unseen: a change by somebody else is shown, and either side can win', async () => {
    const client = await server.newOrganization();
    const { numbers, ids } = await withNumbers(client, 'Twilio Production', 1);
    const [[number = ''], [phone_number_id = '']] = [numbers, ids];
    const { page, assertQuiet } = await openAs(client, `#/numbers/${phone_number_id}`);
    const changed = page.getByRole('alert').filter({ hasText: 'Somebody changed this meanwhile.' });

    await page.getByRole('textbox', { name: /^Agent/ }).fill('agent_mine');
    await change(client, phone_number_id, { assigned_agent_id: 'agent_theirs', supports_inbound: true });
    await page.getByRole('button', { name: 'Save' }).click();
    await changed.getByRole('row', { name: 'Agent agent_mine agent_theirs' }).waitFor();
    await lookAt(page, 'number-changed');
    expect(await read(client, phone_number_id)).toMatchObject({
      body: { data: { assigned_agent_id: 'agent_theirs' } },
    });
    await page.getByRole('button', { name: 'Leave it as it is now' }).click();
    await changed.waitFor({ state: 'detached' });
    await expect.poll(() => page.getByRole('textbox', { name: /^Agent/ }).inputValue()).toBe('agent_theirs');

    await page.getByRole('textbox', { name: /^Agent/ }).fill('agent_mine');
    await change(client, phone_number_id, { assigned_agent_id: 'agent_others' });
    await page.getByRole('button', { name: 'Save' }).click();
    await changed.getByRole('row', { name: 'Agent agent_mine agent_others' }).waitFor();
    await page.getByRole('button', { name: 'Use my values' }).click();
    await page.getByText(`${number} is changed.`).waitFor();
    const both = { assigned_agent_id: 'agent_mine', supports_inbound: true };
    expect(await read(client, phone_number_id)).toMatchObject({ body: { data: both } });

    await page.getByRole('button', { name: 'Verify ownership now' }).click();
    await page.getByText(`The account does not hold ${number}: its ownership is unconfirmed.`).waitFor();

    await assign(server, client, phone_number_id, null);
    await page.reload();
    await page.getByLabel('Organization').fill(client.organization_id);
    await page.getByLabel('API key').fill(client.raw_key);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('button', { name: 'Delete' }).click();
    await change(client, phone_number_id, { supports_outbound: true });
    await page.getByRole('button', { name: 'Delete the number' }).click();
    await changed.getByRole('row', { name: 'Supports outbound calls no yes' }).waitFor();
    expect(await read(client, phone_number_id)).toMatchObject({ status: 200 });
    await page.getByRole('button', { name: 'Delete the number' }).click();
    await page.getByText(`${number} is deleted.`).waitFor();
    expect(await numbersOf(server, client)).toEqual([]);
    assertQuiet();
  });

  it('can only be read with a key of the role user', async () => {
    const client = await server.newOrganization();
    const { numbers, ids } = await withNumbers(client, 'Twilio Production', 1);
    const user = await server.newKey(client.organization_id, 'user');
    const { page, assertQuiet } = await openAs(user, '#/numbers');
    await page.getByRole('link', { name: numbers[0] ?? '' }).waitFor();
    expect(await page.getByRole('checkbox').count()).toBe(0);
    expect(await page.getByRole('button', { name: 'Add a number' }).count()).toBe(0);
    await page.getByRole('link', { name: numbers[0] ?? '' }).click();
    await page.getByText(ids[0] ?? '').waitFor();
    expect(await page.getByRole('textbox').count()).toBe(0);
    for (const name of ['Delete', 'Save', 'Verify ownership now']) {
      expect(await page.getByRole('button', { name }).count(), name).toBe(0);
    }
    await page.goto(`${server.url}/console#/numbers/new`);
    await page.getByText('The role of this key may not import numbers.').waitFor();
    assertQuiet();
  });
});
