import { expect, it } from 'vitest';
import openApi from '../../public/openapi.json' with { type: 'json' };
import { executablePath, launchBrowser, openReferencePage } from './browser.ts';
import { joinServer } from './server.ts';

const operations = Object.values(openApi.paths).flatMap((methods) => Object.keys(methods));
const server = joinServer();

it.skipIf(!executablePath)(
  'the reference page keeps to its Content-Security-Policy and to 360 px with every operation opened',
  async () => {
    const browser = await launchBrowser();
    try {
      const { page, origins, complaints } = await openReferencePage(browser, `${server.url}/docs`, {
        viewport: { width: 360, height: 1600 },
      });

      for (const summary of await page.locator('.opblock-summary-control').all()) await summary.click();
      await page
        .locator('.responses-inner')
        .nth(operations.length - 1)
        .waitFor();

      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360);
      expect([...origins]).toEqual([server.url]);
      expect(complaints).toEqual([]);
    } finally {
      await browser.close();
    }
  },
);
