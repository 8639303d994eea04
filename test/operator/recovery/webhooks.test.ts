import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Replayed } from '../../../src/operator/recovery/replay.ts';
import { call, newClient } from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';
import {
  behave,
  createEndpoint,
  deliveriesOf,
  logOf,
  messagesAt,
  rename,
  verifiedEndpoint,
  wake,
} from '../../webhooks/receivers.ts';
import { exportedSince, replayRows, restorePoint } from './restore.ts';

let client: Client;

beforeEach(async () => {
  await env.DB.prepare('DELETE FROM audit_events').run();
  client = await newClient();
});

/** Does something, restores D1 to what it was before, and replays what happened. */
async function undoneAndReplayed(happens: () => Promise<unknown>): Promise<Replayed> {
  const restore = await restorePoint();
  await happens();
  const events = await exportedSince(Math.floor(Date.now() / 1000));
  await restore();
  return replayRows(events, env.DB);
}

describe('a replay after a restore of D1', () => {
  it('deletes a deleted webhook endpoint again, with its secrets and deliveries', async () => {
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 500);
    await rename(client, 'Renamed');
    await wake([client.organization_id]);
    expect(await deliveriesOf(client, endpoint)).toHaveLength(1);

    const replayed = await undoneAndReplayed(() => call(client, 'DELETE', endpoint.path));

    expect(replayed.webhook_endpoints_deleted).toEqual([endpoint.endpoint_id]);
    expect(await call(client, 'GET', endpoint.path)).toMatchObject({ status: 404 });
    for (const table of ['webhook_endpoints', 'webhook_secrets', 'webhook_deliveries']) {
      expect((await env.DB.prepare(`SELECT * FROM ${table}`).all()).results).toEqual([]);
    }
  });

  it('names the endpoint whose new secret is lost, until it is rotated again', async () => {
    const endpoint = await createEndpoint(client);
    // It was made some time before.
    await env.DB.prepare('UPDATE webhook_secrets SET created_at = created_at - 3600').run();
    const rotate = () => call(client, 'POST', `${endpoint.path}/rotate-secret`, { body: {} });

    const replayed = await undoneAndReplayed(rotate);

    expect(replayed.webhook_secrets_to_rotate).toEqual([endpoint.endpoint_id]);
    const again = await undoneAndReplayed(async () => {});
    expect(again.webhook_secrets_to_rotate).toEqual([endpoint.endpoint_id]);
    await rotate();
    const rotated = await undoneAndReplayed(async () => {});
    expect(rotated.webhook_secrets_to_rotate).toEqual([]);
  });

  it('lets endpoints have the events that were undone before they were sent, also behind newer ones', async () => {
    const endpoint = await verifiedEndpoint(client);
    const restore = await restorePoint();
    await rename(client, 'Undone');
    const events = await exportedSince(Math.floor(Date.now() / 1000));
    await restore();
    await rename(client, 'Newer');
    await wake([client.organization_id]);
    await replayRows(events);
    await wake([client.organization_id]);

    const changes = (await messagesAt(endpoint.url, endpoint.secret)).map(({ data }) =>
      JSON.stringify(data['changes']),
    );
    expect(changes.filter((one) => one?.includes('"Newer"')).length).toBeGreaterThan(0);
    expect(changes.filter((one) => one?.includes('"Undone"'))).toHaveLength(1);

    await replayRows(events);
    await wake([client.organization_id]);
    expect((await logOf(endpoint.url)).received).toHaveLength(changes.length);
  });
});
