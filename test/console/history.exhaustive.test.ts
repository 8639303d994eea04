import { readFile } from 'node:fs/promises';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { executablePath } from '../conformance/browser.ts';
import { joinServer, newNumbers } from '../conformance/server.ts';
import type { Client } from '../conformance/server.ts';
import { lookAt, useBrowser } from './console.ts';

const server = joinServer();

const createdKey = z.object({
  data: z.object({ raw_key: z.string(), key: z.object({ key_id: z.string(), prefix: z.string() }) }),
});

async function createKey(client: Client, name: string) {
  const answer = await server.call(client, 'POST', '/api/api-keys', { body: { name, role: 'admin' } });
  const { raw_key, key } = createdKey.parse(answer.body).data;
  return { organization_id: client.organization_id, raw_key, ...key };
}

const eventPage = z.object({
  data: z.array(z.looseObject({ event_id: z.string() })),
  pagination: z.object({ next_cursor: z.nullable(z.string()) }),
});

/** What the API says that happened, newest first. */
async function eventsOf(client: Client, filter: string) {
  const events: object[] = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const query = `order=desc&page_size=100&${filter}${cursor && `&cursor=${cursor}`}`;
    const { data, pagination } = eventPage.parse((await server.call(client, 'GET', `/api/audit-events?${query}`)).body);
    events.push(...data);
    cursor = pagination.next_cursor;
  }
  return events;
}

const lines = (page: Page) => page.getByRole('main').getByRole('listitem');

/** The sentences of the list, once there are so many. */
async function sentences(page: Page, count: number): Promise<string[]> {
  await lines(page)
    .nth(count - 1)
    .waitFor();
  const texts = await lines(page).locator('p:first-child').allTextContents();
  return texts.slice(0, count).map((text) => text.trim());
}

async function exported(page: Page, format: string): Promise<{ name: string; text: string }> {
  const started = page.waitForEvent('download');
  await page.getByRole('button', { name: `Export as ${format}` }).click();
  const download = await started;
  return { name: download.suggestedFilename(), text: await readFile(await download.path(), 'utf8') };
}

/** The cells of a file by RFC 4180. */
function parseCsv(text: string): string[][] {
  const cells = text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/g);
  const rows: string[][] = [[]];
  for (const [, quoted, plain, end] of cells) {
    rows.at(-1)?.push(quoted?.replaceAll('""', '"') ?? plain ?? '');
    if (end !== ',') rows.push([]);
  }
  return rows.slice(0, -1);
}

describe.skipIf(!executablePath)('the console’s history', () => {
  const { openAs } = useBrowser(server.url);

  it('says who did what to what', async () => {
    const client = await server.newOrganization();
    const ci = await createKey(client, 'CI key');
    const first = await server.createIntegration(ci);
    const second = await server.createIntegration(ci);
    const [phone_number = ''] = newNumbers(1);
    const phon = await server.importNumber(ci, first, phone_number);
    await server.call(ci, 'PUT', `/api/phone-numbers/${phon}?verify=false`, { body: { integration_id: second } });
    await server.call(ci, 'PUT', `/api/phone-numbers/${phon}`, { body: { assigned_agent_id: 'agent_7' } });
    await server.call(ci, 'DELETE', `/api/integrations/${second}`);
    await server.call(ci, 'PUT', `/api/integrations/${first}`, { body: { name: 'Twilio Europe' } });
    await server.call(ci, 'DELETE', `/api/integrations/${first}`);
    const { page, assertQuiet } = await openAs(client, '#/history');

    expect(await sentences(page, 9)).toEqual([
      'CI key deleted integration Twilio Europe.',
      'CI key renamed integration Twilio Production to Twilio Europe.',
      'CI key could not delete integration Twilio Production, because phone numbers use it. ✕ refused',
      `CI key assigned number ${phone_number} to agent_7.`,
      `CI key moved number ${phone_number} from ${first} to ${second}.`,
      `CI key imported number ${phone_number} through ${first}.`,
      'CI key created integration Twilio Production.',
      'CI key created integration Twilio Production.',
      'Test created key CI key, with the role admin.',
    ]);
    await lines(page).nth(1).getByText('Details').click();
    const details = lines(page).nth(1);
    await details.getByRole('row', { name: 'name Twilio Production Twilio Europe' }).waitFor();
    expect(await details.getByRole('link', { name: first, exact: true }).getAttribute('href')).toBe(
      `#/integrations/${first}`,
    );
    expect(await details.getByText('"client_id"').textContent()).toContain(`"integration_id": "${first}"`);
    await lookAt(page, 'history');
    assertQuiet();
  });

  it('tells who revoked a key, by one filter at a time', async () => {
    const client = await server.newOrganization();
    const keyA = await createKey(client, 'Key A');
    const keyB = await createKey(client, 'Key B');
    await server.createIntegration(keyB);
    await server.call(keyA, 'DELETE', `/api/api-keys/${keyB.key_id}`);
    const { page, assertQuiet } = await openAs(client, '#/history');
    await page.getByLabel('Only').selectOption('One target');
    await page.getByLabel('Target id').fill(keyB.key_id);
    await page.getByRole('button', { name: 'Show', exact: true }).click();
    await page.getByText('2 of 2 events shown').waitFor();
    expect(await sentences(page, 2)).toEqual([
      'Key A revoked key Key B.',
      'Test created key Key B, with the role admin.',
    ]);
    expect(page.url()).toContain(`#/history?target_id=${keyB.key_id}`);

    await lines(page).first().getByText('Details').click();
    await page.getByRole('link', { name: 'All events by this key' }).click();
    await page.getByText('1 of 1 events shown').waitFor();
    expect(await page.getByLabel('Key id').inputValue()).toBe(keyA.key_id);
    expect(await page.getByLabel('Target id').count()).toBe(0);

    await page.getByLabel('Only').selectOption('One action');
    await page.getByLabel('Action').selectOption('integration.created');
    await page.getByRole('button', { name: 'Show', exact: true }).click();
    await page.getByText('Key B created integration Twilio Production.').waitFor();
    expect(page.url()).toMatch(/#\/history\?action=integration\.created$/);
    assertQuiet();
  });

  it('filters by times in the reader’s zone', async () => {
    const client = await server.newOrganization();
    await createKey(client, 'Early');
    await server.query(
      'UPDATE audit_events SET created_at = unixepoch(?) WHERE organization_id = ?',
      '2024-03-01T12:00:00Z',
      client.organization_id,
    );
    const { page, assertQuiet } = await openAs(client, '#/history', { timezoneId: 'Asia/Tokyo' });
    await page.getByText('1 of 1 events shown').waitFor();
    await page.getByText('Mar 1, 2024, 9:00 PM').waitFor();
    await page.getByLabel('Until before').fill('2024-03-01T21:00');
    await page.getByRole('button', { name: 'Show', exact: true }).click();
    await page.getByText('No event is like that.').waitFor();
    expect(page.url()).toContain(`until=${encodeURIComponent('2024-03-01T12:00:00Z')}`);
    await lookAt(page, 'history-empty');

    await page.getByLabel('From').fill('2024-03-01T21:00');
    await page.getByLabel('Until before').fill('2024-03-01T21:01');
    await page.getByRole('button', { name: 'Show', exact: true }).click();
    await page.getByText('Test created key Early, with the role admin.').waitFor();

    await page.getByLabel('Until before').fill('2024-03-01T21:00');
    await page.getByRole('button', { name: 'Show', exact: true }).click();
    await page.getByText('No event is like that.').waitFor();
    await page.getByRole('link', { name: 'Show all events' }).click();
    await page.getByText('1 of 1 events shown').waitFor();
    expect(await page.getByLabel('From').inputValue()).toBe('');
    assertQuiet();
  });

  it('exports all that is filtered, page by page', async () => {
    const client = await server.newOrganization();
    const evil = await createKey(client, '=HYPERLINK("https://evil.example","x")');
    const integration_id = await server.createIntegration(client);
    const numbers = newNumbers(120);
    for (const phone_numbers of [numbers.slice(0, 60), numbers.slice(60)]) {
      const body = { integration_id, phone_numbers };
      await server.call(evil, 'POST', '/api/phone-numbers/bulk?verify=false', { body });
    }
    const { page, assertQuiet } = await openAs(client, '#/history?action=phone_number.imported');
    await page.getByText('50 of 120 events shown').waitFor();
    await page.getByRole('button', { name: 'Show more' }).click();
    await page.getByText('100 of 120 events shown').waitFor();

    const jsonl = await exported(page, 'JSON Lines');
    await page.getByText('Events in the file: 120.').waitFor();
    expect(jsonl.name).toMatch(/^audit-events-[\dT-]+\.jsonl$/);
    const events = await eventsOf(client, 'action=phone_number.imported');
    expect(events).toHaveLength(120);
    expect(
      jsonl.text
        .trimEnd()
        .split('\n')
        .map((line): unknown => JSON.parse(line)),
    ).toEqual(events);

    const file = await exported(page, 'CSV');
    expect(file.name).toMatch(/^audit-events-[\dT-]+\.csv$/);
    const [header = [], ...rows] = parseCsv(file.text);
    expect(rows).toHaveLength(120);
    const objects = rows.map((row) => Object.fromEntries(row.map((cell, index) => [header[index], cell])));
    expect(objects.map(({ event_id, state }) => ({ event_id, state: JSON.parse(state ?? '') as unknown }))).toEqual(
      events.map((event) => ({ event_id: Reflect.get(event, 'event_id'), state: Reflect.get(event, 'state') })),
    );
    expect(objects[0]).toMatchObject({
      actor_name: `'=HYPERLINK("https://evil.example","x")`,
      sentence: expect.stringMatching(
        new RegExp(
          `^'=HYPERLINK\\("https://evil.example","x"\\) imported number \\+\\d+ through ${integration_id}\\.$`,
        ),
      ),
      outcome: 'succeeded',
    });
    assertQuiet();
  });
});
