import { describe, expect, it } from 'vitest';
import { executablePath } from '../conformance/browser.ts';
import { joinServer, newNumbers, problem } from '../conformance/server.ts';
import type { Client } from '../conformance/server.ts';
import { lookAt, useBrowser } from './console.ts';
import { assign, HOSTILE, newIntegration, numbersOf } from './records.ts';

const server = joinServer();

/** An integration with some numbers. */
async function withNumbers(client: Client, name: string, count: number) {
  const integration_id = await newIntegration(server, client, name);
  const numbers = newNumbers(count);
  const ids: string[] = [];
  for (const number of numbers) ids.push(await server.importNumber(client, integration_id, number));
  return { integration_id, numbers, ids, hash: `#/integrations/${integration_id}/delete` };
}

const read = (client: Client, integration_id: string) =>
  server.call(client, 'GET', `/api/integrations/${integration_id}`);

describe.skipIf(!executablePath)('the console deletes an integration', () => {
  const { openAs } = useBrowser(server.url);

  it('after its numbers, which it names, have moved to another integration', async () => {
    const client = await server.newOrganization();
    const { integration_id, numbers, ids, hash } = await withNumbers(client, HOSTILE, 3);
    const { page, assertQuiet } = await openAs(client, hash);

    await page.getByText('It cannot be deleted now, because of this.').waitFor();
    for (const number of numbers) await page.getByRole('row', { name: number }).waitFor();
    expect(await page.getByRole('button', { name: 'Delete the integration' }).count()).toBe(0);
    await page.getByLabel('Move the numbers to another integration').check();
    await page.getByText('There is no other Twilio integration').waitFor();
    await page.getByRole('link', { name: 'Create one' }).waitFor();
    await lookAt(page, 'integration-delete-blocked');

    const target = await newIntegration(server, client, 'Twilio Reserve');
    await page.getByLabel('Remove the numbers').check();
    await page.getByText('3 numbers would be removed.').waitFor();
    await page.getByLabel('Move the numbers to another integration').check();
    await page.getByLabel('Move them to').selectOption('Twilio Reserve');
    await page.getByText('3 numbers would move to Twilio Reserve, and keep their agents and settings.').waitFor();
    await lookAt(page, 'integration-delete');

    const button = page.getByRole('button', { name: 'Delete the integration' });
    const name = page.getByLabel('Name of the integration');
    expect(await button.isDisabled()).toBe(true);
    await name.fill(HOSTILE.slice(0, -1));
    expect(await button.isDisabled()).toBe(true);
    await name.fill(HOSTILE);
    await name.press('Enter');
    expect(await button.isEnabled()).toBe(true);
    expect(await read(client, integration_id)).toMatchObject({ status: 200 });

    await button.click();
    await page
      .getByText(`Integration ${HOSTILE} and its credentials are deleted; 3 numbers moved to Twilio Reserve.`)
      .waitFor();
    await page.waitForURL(/#\/integrations$/);
    expect(await read(client, integration_id)).toMatchObject({ status: 404 });
    expect(await numbersOf(server, client)).toMatchObject(
      ids.map((phone_number_id) => ({ phone_number_id, integration_id: target, status: 'free' })),
    );
    assertQuiet();
  });

  it('together with its numbers, unless an agent holds one', async () => {
    const client = await server.newOrganization();
    const { integration_id, numbers, ids, hash } = await withNumbers(client, 'Old', 2);
    const [[first = ''], [held = '', free = '']] = [ids, numbers];
    await assign(server, client, first, 'agent_night');
    const { page, assertQuiet } = await openAs(client, hash);

    await page.getByLabel('Remove the numbers').check();
    const blocker = page.getByRole('row', { name: held });
    await blocker.getByText('Phone number is assigned').waitFor();
    await blocker.getByText('agent_night').waitFor();
    expect(await page.getByRole('row', { name: free }).count()).toBe(0);
    expect(await page.getByRole('button', { name: 'Delete the integration' }).count()).toBe(0);

    await assign(server, client, first, null);
    await page.getByLabel('Move the numbers to another integration').check();
    await page.getByLabel('Remove the numbers').check();
    await page.getByText('2 numbers would be removed.').waitFor();
    await page.getByLabel('Name of the integration').fill('Old');
    await assign(server, client, first, 'agent_day');
    await page.getByRole('button', { name: 'Delete the integration' }).click();

    const refusal = page.getByRole('list', { name: 'Numbers of the error' });
    await refusal.getByRole('link', { name: held }).waitFor();
    expect(await refusal.getByRole('link').count()).toBe(1);
    await page.getByText('It cannot be deleted now, because of this.').waitFor();
    expect(await read(client, integration_id)).toMatchObject({ status: 200 });
    expect(await numbersOf(server, client)).toHaveLength(2);

    await assign(server, client, first, null);
    await page.getByLabel('Move the numbers to another integration').check();
    await page.getByLabel('Remove the numbers').check();
    await page.getByLabel('Name of the integration').fill('Old');
    await page.getByRole('button', { name: 'Delete the integration' }).click();
    await page.getByText('Integration Old and its credentials are deleted; 2 numbers removed.').waitFor();
    expect(await numbersOf(server, client)).toEqual([]);
    assertQuiet();
  });

  it('only as it was previewed: a number or a name that is new since then must be seen first', async () => {
    const client = await server.newOrganization();
    const { integration_id, numbers, hash } = await withNumbers(client, 'Busy', 1);
    const { page, assertQuiet } = await openAs(client, hash);
    await page.getByLabel('Remove the numbers').check();
    await page.getByText('1 number would be removed.').waitFor();
    await page.getByLabel('Name of the integration').fill('Busy');
    const [late = ''] = newNumbers(1);
    await server.importNumber(client, integration_id, late);
    await page.getByRole('button', { name: 'Delete the integration' }).click();

    const changed = page.getByRole('alert').filter({ hasText: 'Somebody changed this meanwhile.' });
    await changed.getByRole('row', { name: 'Numbers 1 number 2 numbers' }).waitFor();
    await page.getByText('2 numbers would be removed.').waitFor();
    await page.getByRole('row', { name: late }).waitFor();
    expect(await page.getByLabel('Name of the integration').inputValue()).toBe('');
    expect((await numbersOf(server, client)).map(({ phone_number }) => phone_number).toSorted()).toEqual(
      [...numbers, late].toSorted(),
    );
    await lookAt(page, 'integration-delete-changed');

    await page.getByLabel('Name of the integration').fill('Busy');
    const path = `/api/integrations/${integration_id}`;
    await server.call(client, 'PUT', path, { body: { name: 'Busier' } });
    await page.getByRole('button', { name: 'Delete the integration' }).click();
    await changed.getByRole('row', { name: 'Name Busy Busier' }).waitFor();
    expect(await read(client, integration_id)).toMatchObject({ status: 200 });

    await page.getByLabel('Name of the integration').fill('Busier');
    await page.getByRole('button', { name: 'Delete the integration' }).click();
    await page.getByText('Integration Busier and its credentials are deleted; 2 numbers removed.').waitFor();
    expect(await numbersOf(server, client)).toEqual([]);
    assertQuiet();
  });

  it('that nothing uses, and says so if somebody else was faster', async () => {
    const client = await server.newOrganization();
    const kept = await newIntegration(server, client, 'Kept');
    const gone = await newIntegration(server, client, 'Gone');
    const { page, assertQuiet } = await openAs(client, `#/integrations/${gone}/delete`);
    await page.getByText('The integration Gone would be deleted.').waitFor();
    expect(await page.getByRole('radio').count()).toBe(0);
    await page.getByLabel('Name of the integration').fill('Gone');
    expect(await server.call(client, 'DELETE', `/api/integrations/${gone}`)).toMatchObject({ status: 200 });
    await page.getByRole('button', { name: 'Delete the integration' }).click();
    await page.getByText('This integration is gone already').waitFor();
    await lookAt(page, 'integration-delete-gone');

    await page.goto(`${server.url}/console#/integrations/${kept}/delete`);
    await page.getByLabel('Name of the integration').fill('Kept');
    await page.getByRole('button', { name: 'Delete the integration' }).click();
    await page.getByText('Integration Kept and its credentials are deleted.').waitFor();
    expect(await read(client, kept)).toMatchObject(problem(404, 'integration_not_found'));
    assertQuiet();
  });

  it('not with a key whose role may not', async () => {
    const client = await server.newOrganization();
    const { integration_id, hash } = await withNumbers(client, 'Ours', 1);
    const user = await server.newKey(client.organization_id, 'user');
    const { page, assertQuiet } = await openAs(user, hash);
    await page.getByText('The role of this key may not delete integrations.').waitFor();
    expect(await page.getByRole('textbox').count()).toBe(0);
    expect(await read(client, integration_id)).toMatchObject({ status: 200 });
    assertQuiet();
  });
});
