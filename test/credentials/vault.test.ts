import { env } from 'cloudflare:workers';
import { describe, expect, it } from 'vitest';
import { open, parseKekRing } from '../../src/credentials/envelope.ts';
import { credentialsKey } from '../../src/credentials/vault.ts';
import { call, createIntegration, newClient, twilio } from '../fixtures.ts';
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
    const bindings = { ...env, CREDENTIALS_KEKS: 'not-a-ring' };

    const { status, text } = await call(client, 'POST', '/api/integrations', {
      body: { name: 'Twilio', credentials: twilio },
      bindings,
    });

    expect(status).toBe(500);
    expect(text).not.toContain('KEKS');
    const { results } = await env.DB.prepare('SELECT * FROM credential_purges').all();
    expect(results).toEqual([]);
  });
});
