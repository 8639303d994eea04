/** A browser, where there is one, and the reference page in it. */
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';
import type { Browser, BrowserContextOptions } from 'playwright-core';
import { LAST_NET } from './server.ts';

const candidates = [
  process.env['CHROMIUM_PATH'] ?? '',
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];

export const executablePath = candidates.find((path) => existsSync(path));

export const launchBrowser = () =>
  chromium.launch({
    executablePath: executablePath ?? '',
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  });

/** Opens a page and notes what it asks for and complains of. */
export async function openPage(browser: Browser, url: string, options: BrowserContextOptions = {}) {
  // Not the page's own context: axe opens a second page in it.
  const context = await browser.newContext({ viewport: { width: 1280, height: 1600 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(LAST_NET.timeout);
  const origins = new Set<string>();
  const complaints: string[] = [];
  page.on('request', (request) => origins.add(new URL(request.url()).origin));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.exposeFunction('noteViolation', (directive: string) => complaints.push(directive));
  await page.addInitScript({
    content: `document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
      noteViolation(violatedDirective + ' ' + blockedURI));`,
  });
  const response = await page.goto(url);
  return { page, response, origins, complaints };
}

/** Opens the reference page. */
export async function openReferencePage(browser: Browser, url: string, options?: BrowserContextOptions) {
  const opened = await openPage(browser, url, options);
  await opened.page.waitForSelector('.opblock');
  return opened;
}
