import { describe, expect, it } from 'vitest';
import { executablePath } from '../conformance/browser.ts';
import { joinServer } from '../conformance/server.ts';
import { lookAt, signIn, useBrowser } from './console.ts';

const server = joinServer();

describe.skipIf(!executablePath)('the console’s session', () => {
  const { open } = useBrowser(server.url);

  it('begins with an organization and its key, and ends with a click', async () => {
    const client = await server.newOrganization();
    const { page, assertQuiet } = await open();
    await lookAt(page, 'sign-in');
    await signIn(page, client);
    await page.getByRole('heading', { level: 1 }).waitFor();
    expect(await page.title()).toMatch(/· Patchbay$/);

    await page.getByRole('button', { name: 'Sign out' }).click();

    await page.getByText('You are signed out.').waitFor();
    assertQuiet();
  });
});
