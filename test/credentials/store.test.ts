import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { open } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import { countedBindings, interceptedBindings } from '../bindings.ts';
import { call, createIntegration, newClient, resources, rows, twilio, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

interface Row {
  credentials_version: string;
  data_key: string;
  kek_id: string;
}

/** Reads credentials as the platform would: the row's data key, and what KV has at the row's version. */
async function read({ organization_id }: Client, integration_id: string) {
  const row = await env.DB.prepare('SELECT * FROM integrations WHERE organization_id = ? AND integration_id = ?')
    .bind(organization_id, integration_id)
    .first<Row>();
  if (!row) throw new Error('no row');
  const kv_key = credentialsKey(organization_id, integration_id, row.credentials_version);
  const ciphertext = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');
  if (!ciphertext) throw new Error('no ciphertext');
  const opened = open(await parseKekRing(env.CREDENTIALS_KEKS), kv_key, row, new Uint8Array(ciphertext));
  return { row, kv_key, ciphertext, opened };
}

describe('stored credentials', () => {
  it('are the ones that were sent', async () => {
    const client = await newClient();

    const { opened } = await read(client, await createIntegration(client));

    expect(await opened).toEqual(twilio);
  });

  it('do not open when their ciphertext is copied to another integration’s KV key', async () => {
    const client = await newClient();
    const [mine, other] = [await createIntegration(client), await createIntegration(client)];
    const { ciphertext } = await read(client, mine);
    const { kv_key } = await read(client, other);

    await env.CREDENTIALS.put(kv_key, ciphertext);

    await expect((await read(client, other)).opened).rejects.toThrow();
  });

  it('do not open when two rows’ data keys are swapped', async () => {
    const [client, stranger] = [await newClient(), await newClient()];
    const [mine, theirs] = [await createIntegration(client), await createIntegration(stranger)];
    const { row } = await read(stranger, theirs);

    await env.DB.prepare('UPDATE integrations SET data_key = ? WHERE integration_id = ?')
      .bind(row.data_key, mine)
      .run();

    await expect((await read(client, mine)).opened).rejects.toThrow();
  });

  it('do not open when a whole row’s credentials are copied with their ciphertext', async () => {
    const client = await newClient();
    const [mine, other] = [await createIntegration(client), await createIntegration(client)];
    const { row, ciphertext } = await read(client, mine);
    await env.DB.prepare('UPDATE integrations SET data_key = ?, credentials_version = ? WHERE integration_id = ?')
      .bind(row.data_key, row.credentials_version, other)
      .run();

    await env.CREDENTIALS.put(credentialsKey(client.organization_id, other, row.credentials_version), ciphertext);

    await expect((await read(client, other)).opened).rejects.toThrow();
  });

  it('are other bytes for the same plaintext', async () => {
    const client = await newClient();
    const [one, two] = [await createIntegration(client), await createIntegration(client)];

    const [first, second] = [await read(client, one), await read(client, two)];

    expect(new Uint8Array(first.ciphertext)).not.toEqual(new Uint8Array(second.ciphertext));
    expect(first.row.data_key).not.toBe(second.row.data_key);
  });

  it('cannot be stored, and nothing is, while the ring is unreadable; the client learns no word of it', async () => {
    const client = await newClient();
    const before = await resources();
    const bindings = { ...env, CREDENTIALS_KEKS: 'not-a-ring' };

    const { status, text } = await call(client, 'POST', '/api/integrations', {
      body: { name: 'Twilio', credentials: twilio },
      bindings,
    });

    expect(status).toBe(500);
    expect(text).not.toContain('KEKS');
    expect(await resources()).toEqual(before);
  });
});

describe('a request whose intent to store credentials was refused', () => {
  let client: Client;

  beforeEach(async () => {
    client = await newClient();
    await call(client, 'GET', '/api/nothing');
  });

  const setLimit = (limit: 'max_integrations' | 'max_audit_events', value: number | null) =>
    env.DB.prepare(`UPDATE organizations SET ${limit} = ? WHERE organization_id = ?`)
      .bind(value, client.organization_id)
      .run();

  /** What it asks for, what is in its way, and how that goes. */
  const requests = [
    [
      'a creation, at a quota',
      async () => ({
        method: 'POST',
        path: '/api/integrations',
        body: { name: 'Twilio', credentials: twilio },
        status: 201,
        obstruct: () => setLimit('max_integrations', 0),
        clear: () => setLimit('max_integrations', null),
      }),
    ],
    [
      'an update, at a quota',
      async () => ({
        method: 'PUT',
        path: `/api/integrations/${await createIntegration(client)}`,
        body: { credentials: { ...twilio, auth_token: 'replaced' } },
        status: 200,
        obstruct: () => setLimit('max_audit_events', 0),
        clear: () => setLimit('max_audit_events', null),
      }),
    ],
    [
      'an import, of a number that is held',
      async () => {
        const [phone_number, holder] = [unusedNumber(), await newClient()];
        return {
          method: 'POST',
          path: '/api/phone-numbers',
          body: { provider: 'sip', phone_number, sip_username: 'user', sip_password: 'plaintext-password' },
          status: 201,
          obstruct: () => call(holder, 'POST', '/api/phone-numbers', { body: { provider: 'sip', phone_number } }),
          clear: () => env.DB.prepare('DELETE FROM phone_numbers WHERE phone_number = ?').bind(phone_number).run(),
        };
      },
    ],
  ] as const;

  describe.each(requests)('%s', (_, prepare) => {
    it('is refused without a write, by its second batch', async () => {
      const { method, path, body, obstruct } = await prepare();
      await obstruct();
      const before = await resources();
      const { bindings, calls } = countedBindings();

      expect((await call(client, method, path, { body, bindings })).status).toBe(409);

      expect(await resources()).toEqual(before);
      expect(calls).toEqual(['DB.batch', 'DB.batch']);
    });

    it.each([{}, { 'Idempotency-Key': 'obstructed' }])(
      'begins again where what refused it has gone before it decided (%j)',
      async (headers) => {
        const { method, path, body, status, obstruct, clear } = await prepare();
        await obstruct();
        const [before, events] = [await rows('credential_purges'), await rows('audit_events')];
        const calls: string[] = [];
        const bindings = interceptedBindings(async (name, carryOut) => {
          const result = await carryOut();
          if (calls.push(name) === 1) await clear();
          return result;
        });

        expect((await call(client, method, path, { body, headers, bindings })).status).toBe(status);

        const ofBindings = calls.filter((name) => name !== 'provider.fetch');
        expect(ofBindings.slice(0, 5)).toEqual(['DB.batch', 'DB.batch', 'DB.batch', 'CREDENTIALS.put', 'DB.batch']);
        expect(await rows('credential_purges')).toEqual(before);
        const live = [...(await rows('integrations')), ...(await rows('phone_numbers'))].map((row) =>
          credentialsKey(
            String(row['organization_id']),
            String(row['phone_number_id'] ?? row['integration_id']),
            String(row['credentials_version']),
          ),
        );
        const { keys } = await env.CREDENTIALS.list({ prefix: `v1/${client.organization_id}/` });
        expect(keys).toHaveLength(1);
        expect(live).toContain(keys[0]?.name);
        expect(await rows('audit_events')).toHaveLength(events.length + 1);
      },
    );

    it('is not done where that comes and goes each time, and leaves nothing', async () => {
      const { method, path, body, obstruct, clear } = await prepare();
      const before = await resources();
      let batches = 0;
      const bindings = interceptedBindings(async (name, carryOut) => {
        if (name !== 'DB.batch') return carryOut();
        await ((batches += 1) % 2 ? obstruct() : clear());
        return carryOut();
      });

      const answer = await call(client, method, path, { body, bindings });

      expect(answer).toMatchObject({ status: 503, body: { outcome: 'not_done' } });
      expect(await resources()).toEqual(before);
      expect(batches).toBe(6);
    });
  });
});
