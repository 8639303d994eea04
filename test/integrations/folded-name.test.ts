/** Integrations by the beginning of their name: what is folded, what is found, and what is folded later. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { foldName } from '../../src/worker/core/folded-name.ts';
import worker from '../../src/worker/index.ts';
import { call, createIntegration, eventsOn, newClient, page, rowOf, rows } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  await env.DB.prepare('DELETE FROM integrations').run();
  client = await newClient();
});

const rename = (integration_id: string, name: string) =>
  call(client, 'PUT', `/api/integrations/${integration_id}`, { body: { name } });

async function create(...names: string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const name of names) {
    const integration_id = await createIntegration(client, undefined, '?verify=false');
    await rename(integration_id, name);
    ids.push(integration_id);
  }
  return ids;
}

const find = async (prefix: string, more = '') =>
  (await page(client, `/api/integrations?name_prefix=${encodeURIComponent(prefix)}${more}`)).data.map(
    ({ name }) => name,
  );

/** As the Worker of before the column does. */
const renameAsBefore = (integration_id: string, name: string) =>
  env.DB.prepare('UPDATE integrations SET name = ?, revision = revision + 1 WHERE integration_id = ?')
    .bind(name, integration_id)
    .run();

const runCron = () => worker.scheduled(createScheduledController(), env);
const foldedOf = async (integration_id: string) => (await rowOf('integrations', integration_id))['name_folded'];

describe('the integrations whose name begins so', () => {
  it.each([
    ['the same letters', 'Twilio Europe', 'Twilio'],
    ['other case', 'Twilio Europe', 'tWILIO e'],
    ['the whole name', 'Twilio', 'Twilio'],
    ['white space at the end', 'Twilio Europe', 'Twilio '],
    ['an accent, in other case', 'ÉLAN', 'élan'],
    ['an accent that is a character of its own', 'Élan', 'E\u0301lan'],
    ['a letter whose accent is not given', 'Élan', 'e'],
    ['a sharp s as two', 'Straße', 'STRASS'],
    ['a capital sharp s', 'STRA\u1E9EE', 'straße'],
    ['two s as a sharp one', 'STRASSE', 'straß'],
    ['a sigma within a word, as one at the end', 'ΟΔΟΣΑ', 'ΟΔΟΣ'],
    ['a sigma at the end, as one within a word', 'Οδός', 'ΟΔΌΣ'],
    ['the first letter of a Turkish name', 'İzmir', 'i'],
    ['a dotless i', 'ısı', 'ISI'],
    ['full-width letters', 'Ｔｗｉｌｉｏ', 'twil'],
    ['a ligature', 'ﬁber', 'FI'],
    ['a syllable of Hangul without its final', '각', '가'],
    ['characters beyond the BMP', '𐐀𐐁', '𐐨'],
    ['the greatest code point', 'a\u{10FFFF}\u{10FFFF}', 'a\u{10FFFF}'],
    ['a wildcard of LIKE, as it is', '100%', '100%'],
  ])('are found by %s: %j by %j', async (_, name, prefix) => {
    await create(name);

    expect(await find(prefix)).toEqual([name]);
  });

  it.each([
    ['another letter', 'Twilio', 'Twin'],
    ['a part that is not the beginning', 'Twilio Europe', 'Europe'],
    ['more than the name', 'Twilio', 'Twilio '],
    ['an accent that the name has not', 'Cafe', 'Café'],
    ['a wildcard of LIKE', 'Twilio', 'T%'],
    ['a wildcard of GLOB', 'Twilio', 'T*'],
    ['the letter after a Turkish İ', 'İzmir', 'iz'],
  ])('are not found by %s: %j by %j', async (_, name, prefix) => {
    await create(name);

    expect(await find(prefix)).toEqual([]);
  });

  it('are in the order of their folded names, and alike ones in that of their ids, page after page, both ways', async () => {
    const ids = await create('b', 'B', 'ba', 'Å', 'a', 'B\u{10FFFF}', 'c');
    const [b = '', capital = ''] = ids;
    const alike = b < capital ? ['b', 'B'] : ['B', 'b'];

    expect(await find('b')).toEqual([...alike, 'ba', 'B\u{10FFFF}']);
    expect(await find('b', '&order=desc')).toEqual(['B\u{10FFFF}', 'ba', ...alike.toReversed()]);
    expect(await find('a')).toEqual(['a', 'Å']);
    const first = await page(client, '/api/integrations?name_prefix=B&page_size=1');
    const next = await page(client, `/api/integrations?name_prefix=B&page_size=3&cursor=${first.next_cursor}`);
    expect([...first.data, ...next.data].map(({ name }) => name)).toEqual([...alike, 'ba', 'B\u{10FFFF}']);
    expect(next).toMatchObject({ next_cursor: null, total_count: 4 });
  });

  it.each([
    ['Élan', 'élan'],
    ['Straße', 'Strasse'],
    ['E\u0301lan', 'Élan'],
  ])('are found at once where the new name folds as the old one: %s, %s', async (before, after) => {
    const [id = ''] = await create(before);

    await call(client, 'PUT', `/api/integrations/${id}`, { body: { name: after } });

    expect(await find(after)).toEqual([after]);
  });

  it('are shown as the other list shows them, and are of this organization alone', async () => {
    await create('Twilio');
    await createIntegration(await newClient(), undefined, '?verify=false');

    const { data } = await page(client, '/api/integrations');
    expect((await page(client, '/api/integrations?name_prefix=twilio&category=telephony')).data).toEqual(data);
  });

  it.each([
    ['an empty prefix', '', 'name_prefix'],
    ['101 characters', 'x'.repeat(101), 'name_prefix'],
    ['a control character', '\0', 'name_prefix'],
  ])('are a 422 for %s', async (_, prefix, path) => {
    const query = `?name_prefix=${encodeURIComponent(prefix)}`;

    expect(await call(client, 'GET', `/api/integrations${query}`)).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path }] },
    });
  });

  it('are found by a prefix of 100 characters that fold to many', async () => {
    await create('ﷺ'.repeat(100));

    expect(await find('ﷺ'.repeat(100))).toEqual(['ﷺ'.repeat(100)]);
    expect(await find('ﷺ'.repeat(99))).toEqual(['ﷺ'.repeat(100)]);
  });
});

describe('a folded name', () => {
  it('is the same for every character in upper and in lower case, composed or not, and is folded already', () => {
    const different: string[] = [];
    // None beyond has another form.
    for (let point = 0; point <= 0x2ffff; point += 1) {
      if (point >= 0xd800 && point <= 0xdfff) continue;
      const character = String.fromCodePoint(point);
      const [upper, lower, composed] = [character.toUpperCase(), character.toLowerCase(), character.normalize('NFC')];
      const folded = foldName(character);
      if (upper === lower && composed === folded) continue;
      const others = [upper, lower, composed, folded];
      if (others.some((other) => foldName(other) !== folded)) different.push(point.toString(16));
    }

    expect(different).toEqual([]);
  });

  it('begins with the folded beginning of the name, unless a mark follows', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), (beginning, end) => {
        fc.pre(!/^\p{M}/u.test(end.normalize('NFKD')));
        expect(foldName(beginning + end)).toBe(foldName(beginning) + foldName(end));
      }),
    );
  });

  it('is in no audit event', async () => {
    const [integration_id = ''] = await create('Élan');

    for (const event of await eventsOn(integration_id)) expect(JSON.stringify(event)).not.toContain('folded');
  });

  it('stays where only the credentials change', async () => {
    const [integration_id = ''] = await create('Élan');
    const credentials = {
      provider: 'twilio',
      account_sid: 'AC0123456789abcdef0123456789abcdef',
      auth_token: 'plaintext-new',
    };

    await call(client, 'PUT', `/api/integrations/${integration_id}?verify=false`, { body: { credentials } });

    expect(await foldedOf(integration_id)).toBe(foldName('Élan'));
  });
});

describe('a name that an older Worker writes', () => {
  it('is not found by what it was, and is found by what it is once the cron has run', async () => {
    const [integration_id = ''] = await create('Twilio');

    await renameAsBefore(integration_id, 'Élan');

    expect(await foldedOf(integration_id)).toBeNull();
    expect(await find('t')).toEqual([]);
    await runCron();
    expect(await find('ÉL')).toEqual(['Élan']);
  });

  it('stays folded where only the case of its ASCII changes', async () => {
    const [integration_id = ''] = await create('Twilio');

    await renameAsBefore(integration_id, 'TWILIO');

    expect(await foldedOf(integration_id)).toBe('twilio');
  });

  it('is found of a new integration once the cron has run, however many there are', async () => {
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250)
       INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
         data_key, kek_id, created_at, updated_at)
       SELECT ?, printf('intg_%012x', i), 'Ä ' || i, 'twilio', 'telephony', 'active', 'v', 'k', 'k1', 0, 0 FROM n`,
    )
      .bind(client.organization_id)
      .run();

    await runCron();

    expect((await page(client, `/api/integrations?name_prefix=${encodeURIComponent('ä')}`)).total_count).toBe(250);
    expect((await rows('integrations')).filter((row) => row['name_folded'] === null)).toEqual([]);
  });
});
