/** The console in a browser, on the server that all files share. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, onTestFinished } from 'vitest';
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import { launchBrowser, openPage } from '../conformance/browser.ts';
import type { Client } from '../conformance/server.ts';

/** Kept for people to look at, and not in git. */
const artefacts = join(projectDirectory, 'reports/console');

/** One browser for a file. */
export function useBrowser(url: string) {
  let browser: Browser;
  beforeAll(async () => {
    await mkdir(artefacts, { recursive: true });
    browser = await launchBrowser();
  });
  afterAll(() => browser.close());

  /**
   * Opens the console in a context of its own. At the end of the test it has asked no other host and complained of nothing.
   *
   * @param hash of the address: the view
   * @param tolerated complaints that the test means to cause: the browser reports each answer of 4xx and 5xx, and each
   *   request without an answer
   */
  const open = async (hash = '', options: BrowserContextOptions = {}, tolerated = /Failed to load resource/) => {
    const opened = await openPage(browser, `${url}/console${hash}`, options);
    onTestFinished(async () => {
      await opened.page.context().close();
    });
    return {
      ...opened,
      assertQuiet: () => {
        expect([...opened.origins].filter((origin) => !/^(?:blob|data):/.test(origin))).toEqual([url]);
        expect(opened.complaints.filter((complaint) => !tolerated.test(complaint))).toEqual([]);
      },
    };
  };

  return {
    open,
    /** Opens a view, signed in. */
    openAs: async (client: Client, hash = '', options: BrowserContextOptions = {}) => {
      const opened = await open(hash, options);
      await signIn(opened.page, client);
      return opened;
    },
  };
}

/** Fills in the form, and waits until a view is there. */
export async function signIn(page: Page, { organization_id, raw_key }: Client): Promise<void> {
  await page.getByLabel('Organization').fill(organization_id);
  await page.getByLabel('API key').fill(raw_key);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: 'Sign out' }).waitFor();
}

/** The link to a view in the navigation: a view may have one of the same name. */
export const linkTo = (page: Page, name: string) =>
  page.getByRole('navigation', { name: 'Views' }).getByRole('link', { name, exact: true });

export const dialogOf = (page: Page, name: string | RegExp) => page.getByRole('dialog', { name });

/** Where the page has a text, apart from the text of its elements. */
export const placesOf = (page: Page, text: string) =>
  page.evaluate<string[]>(`(() => {
    const text = ${JSON.stringify(text)};
    const attributes = [...document.querySelectorAll('*')].flatMap((element) => [...element.attributes]);
    const places = {
      attributes: attributes.map(({ value }) => value).join(),
      address: location.href,
      session: JSON.stringify(sessionStorage),
      local: JSON.stringify(localStorage),
      cookies: document.cookie,
      history: JSON.stringify(history.state),
    };
    return Object.keys(places).filter((place) => places[place]?.includes(text));
  })()`);

/** What axe finds. @see https://github.com/dequelabs/axe-core */
export async function expectAccessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => ({ id, where: nodes.map(({ html }) => html) }))).toEqual([]);
}

/** A picture of the whole view, for people to look at. */
export const keepPicture = (page: Page, name: string) =>
  page.screenshot({ path: join(artefacts, `${name}.png`), fullPage: true });

/**
 * Looks at a view in light and dark and at 360 px: axe finds nothing, and nothing scrolls sideways. Colors change at once,
 * so that nothing is seen halfway.
 */
export async function lookAt(page: Page, name: string): Promise<void> {
  const size = page.viewportSize() ?? { width: 1280, height: 1600 };
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await keepPicture(page, `${name}-${colorScheme}`);
    await expectAccessible(page);
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width: 360, height: 740 });
  await keepPicture(page, `${name}-360`);
  expect(await page.evaluate('document.documentElement.scrollWidth'), `${name} at 360 px`).toBeLessThanOrEqual(360);
  await page.setViewportSize(size);
}
