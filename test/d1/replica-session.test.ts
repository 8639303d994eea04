/** Where D1 is asked: by the arguments that its binding gets, since the local one has no replica and takes any bookmark. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import document from '../../public/openapi.json';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { countedBindings } from '../bindings.ts';
import { call, createIntegration, importNumber, newClient, start, twilio, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { createEndpoint } from '../webhooks/receivers.ts';

const BOOKMARK = '00000085-0000024c-00004c6d-8e61117bf38d7adb71b934ebbf891683';
const FORM = /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/;

let client: Client;
let ids: Record<string, string>;

beforeEach(async () => {
  client = await newClient();
  const integration_id = await createIntegration(client);
  const phone_number_id = await importNumber(client, integration_id, unusedNumber());
  const { endpoint_id } = await createEndpoint(client);
  ids = { integration_id, phone_number_id, key_id: client.key_id, endpoint_id };
});

/** Real bindings, and how D1 is asked through them: by a session from where, or at once. */
function observedBindings(): { bindings: Bindings; asked: unknown[] } {
  const asked: unknown[] = [];
  const DB = new Proxy(env.DB, {
    get(database, name) {
      if (name === 'withSession') {
        return (from: unknown) => {
          asked.push(from);
          return database.withSession(
            typeof from === 'string' && FORM.test(from) ? 'first-unconstrained' : String(from),
          );
        };
      }
      if (name === 'batch') {
        return (statements: D1PreparedStatement[]) => {
          asked.push('primary');
          return database.batch(statements);
        };
      }
      return (...parameters: unknown[]) => Reflect.apply(Reflect.get(database, name), database, parameters);
    },
  });
  return { bindings: { ...env, DB }, asked };
}

const operations = Object.entries(
  z.object({ paths: z.record(z.string(), z.record(z.string(), z.unknown())) }).parse(document).paths,
)
  .filter(([path]) => path.startsWith('/api'))
  .flatMap(([path, methods]) => Object.keys(methods).map((method) => ({ method: method.toUpperCase(), path })));

// The numbers of an account are asked for with credentials, and so by the primary's word.
const reads = operations.filter(({ method, path }) => method === 'GET' && !path.endsWith('/provider-numbers'));
const concrete = (path: string) => path.replace(/\{(\w+)\}/, (_, name: string) => ids[name] ?? '');

describe('a read', () => {
  it.each(reads)('of $path asks the nearest replica, and answers its bookmark', async ({ path }) => {
    const { bindings, asked } = observedBindings();

    const { status, headers } = await call(client, 'GET', concrete(path), { bindings });

    expect(status).toBe(200);
    expect(asked).toEqual(['first-unconstrained']);
    expect(headers.get('X-D1-Bookmark')).toMatch(FORM);
  });

  it.each(reads)('of $path asks one that is as new as the bookmark it is sent', async ({ path }) => {
    const { bindings, asked } = observedBindings();

    const { status } = await call(client, 'GET', concrete(path), {
      headers: { 'X-D1-Bookmark': BOOKMARK },
      bindings,
    });

    expect(status).toBe(200);
    expect(asked).toEqual([BOOKMARK]);
  });

  it.each(reads)('of $path is refused with what is no bookmark, and D1 never sees it', async ({ path }) => {
    for (const malformed of [
      '',
      'first-primary',
      BOOKMARK.toUpperCase(),
      `${BOOKMARK}0`,
      ` ${BOOKMARK} x`,
      'x'.repeat(9000),
    ]) {
      const { bindings, calls } = countedBindings();
      const { status, body } = await call(client, 'GET', concrete(path), {
        headers: { 'X-D1-Bookmark': malformed },
        bindings,
      });

      expect({ status, body }).toMatchObject({
        status: 422,
        body: { code: 'validation_failed', errors: [{ path: 'X-D1-Bookmark' }] },
      });
      expect(calls).toEqual([]);
    }
  });

  it('after a write asks one that has it, by the bookmark that the write answered', async () => {
    const path = `/api/integrations/${ids['integration_id']}`;
    const written = await call(client, 'PUT', path, { body: { name: 'New' } });
    const bookmark = written.headers.get('X-D1-Bookmark');
    const { bindings, asked } = observedBindings();

    const { body } = await call(client, 'GET', path, { headers: { 'X-D1-Bookmark': bookmark }, bindings });

    expect(bookmark).toMatch(FORM);
    expect(asked).toEqual([bookmark]);
    expect(body).toMatchObject({ data: { name: 'New' } });
  });
});

describe('a mutation', () => {
  const integration = () => `/api/integrations/${ids['integration_id']}`;
  const number = () => `/api/phone-numbers/${ids['phone_number_id']}`;
  const mutations: [string, string, () => string, object | undefined, unknown[]][] = [
    [
      'POST',
      'integrations',
      () => '/api/integrations',
      { name: 'x', credentials: twilio },
      ['first-primary', 'first-primary'],
    ],
    ['PUT', 'integration', integration, { name: 'x' }, ['first-primary']],
    [
      'PUT',
      'integration and its credentials',
      integration,
      { credentials: twilio },
      ['first-primary', 'first-primary'],
    ],
    ['PUT', 'phone number', number, { supports_inbound: true }, ['first-primary']],
    ['DELETE', 'phone number', number, undefined, ['first-primary']],
    ['POST', 'api-keys', () => '/api/api-keys', { name: 'x', role: 'user' }, ['first-primary']],
  ];

  it.each(mutations)('%s (%s) asks the primary, whatever bookmark it is sent, and answers one', async (...mutation) => {
    const [method, , path, body, expected] = mutation;
    const { bindings, asked } = observedBindings();

    const answer = await start(client, method, path(), {
      body,
      headers: { 'X-D1-Bookmark': BOOKMARK },
      bindings,
    });
    const before = [...asked];
    await answer.settle();

    expect(answer.status).toBeLessThan(300);
    expect(before).toEqual(expected);
    expect(answer.headers.get('X-D1-Bookmark')).toMatch(FORM);
  });

  it('that is refused answers no bookmark, which would tell what others write', async () => {
    const refused = await call(client, 'DELETE', integration());
    const absent = await call(client, 'DELETE', '/api/integrations/intg_000000000000');

    expect([refused.status, absent.status]).toEqual([409, 404]);
    expect([refused, absent].map(({ headers }) => headers.has('X-D1-Bookmark'))).toEqual([false, false]);
  });
});

describe('the look-up of a key that no cache knows', () => {
  it.each([
    ['where the read goes', 'GET', '/api/integrations', BOOKMARK],
    ['to the primary with a mutation', 'DELETE', '/api/integrations/intg_000000000000', 'first-primary'],
  ])('goes %s', async (_, method, path, expected) => {
    const hash = await hashKey(client.raw_key);
    forgetKey(hash);
    await env.KEY_CACHE.delete(hash);
    const { bindings, asked } = observedBindings();

    const answer = await start(client, method, path, { headers: { 'X-D1-Bookmark': BOOKMARK }, bindings });
    const before = [...asked];
    await answer.settle();

    expect(before).toEqual([expected]);
  });
});
