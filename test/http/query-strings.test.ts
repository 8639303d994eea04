/** Query strings: no call ignores what it does not know, lest a typo turn a preview into a deletion. */
import { describe, expect, it } from 'vitest';
import { app } from '../../src/worker/app.ts';
import { call, newClient, resources, rows } from '../fixtures.ts';
import { mutations } from '../mutations.ts';

const stored = async () => ({
  ...(await resources()),
  events: await rows('audit_events'),
  keys: (await rows('api_keys')).map((row) => ({ ...row, last_used_at: null })),
});

const routes = [
  ...new Set(
    app.routes
      .filter(({ method, path }) => method !== 'ALL' && path.startsWith('/api/'))
      .map(({ method, path }) => `${method} ${path}`),
  ),
];

const ids: Record<string, string> = {
  integration_id: 'intg_000000000000',
  phone_number_id: 'phon_000000000000',
  key_id: 'apikey_000000000000',
  endpoint_id: 'whep_000000000000',
  delivery_id: 'whdel_000000000000',
};

describe.each(routes)('%s', (route) => {
  const [method = '', path = ''] = route.split(' ');
  const place = path.replaceAll(/:(\w+)/g, (_, name: string) => ids[name] ?? '');

  it.each(['?dry-run=true', '?Verify=true', '?verify=true&verify=true', '?verify=perhaps', '?=', '?__proto__=1'])(
    'refuses %s',
    async (query) => {
      const { status, body } = await call(await newClient(), method, `${place}${query}`, {
        body: method === 'GET' || method === 'DELETE' ? undefined : {},
      });

      expect(status).toBe(422);
      expect(body).toMatchObject({ code: 'validation_failed' });
    },
  );
});

describe.each(mutations)('$name', ({ prepare, status, dependsOnProvider }) => {
  it('does nothing with a parameter that it does not know', async () => {
    const client = await newClient();
    const { method, path, body, headers = {} } = await prepare(client);
    await call(client, 'GET', '/api/nothing');
    const before = await stored();

    const answer = await call(client, method, `${path}${path.includes('?') ? '&' : '?'}dry-run=true`, {
      body,
      headers,
    });

    expect(answer).toMatchObject({ status: 422, body: { code: 'validation_failed' } });
    expect(await stored()).toEqual(before);
  });

  it('may be told whether to verify, if it has a body', async () => {
    const client = await newClient();
    const { method, path, body, headers = {} } = await prepare(client);

    const told = path.includes('?verify=false') ? path : `${path}?verify=false`;
    const answer = await call(client, method, told, { body, headers });

    // What the provider would have refused is stored then, and what only its word would have allowed is refused.
    const done = dependsOnProvider ? [200, 201, 409] : [status];
    expect(body ? done : [422]).toContain(answer.status);
  });
});
