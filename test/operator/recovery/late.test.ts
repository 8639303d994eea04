/** Late tries of what happened behind the restore point, landing behind the restore: they change nothing that the replay has done. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { markKekRetired } from '../../../src/operator/keks/retire.ts';
import { offboardOrganization } from '../../../src/operator/organizations/offboard.ts';
import { resumeOrganization, suspendOrganization } from '../../../src/operator/organizations/suspend.ts';
import { reconcile } from '../../../src/operator/recovery/reconcile.ts';
import { parseKekRing } from '../../../src/worker/credentials/kek-ring.ts';
import type { Bindings } from '../../../src/worker/env.ts';
import { interceptedBindings } from '../../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  importNumber,
  newClient,
  rowOf,
  rows,
  twilio,
  unusedNumber,
} from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';
import { exportedSince, replayRows, restorePoint } from './restore.ts';

let client: Client;
let integration_id: string;

beforeEach(async () => {
  await env.DB.batch(
    ['phone_numbers', 'integrations', 'credential_purges', 'audit_events', 'key_encryption_keys'].map((table) =>
      env.DB.prepare(`DELETE FROM ${table}`),
    ),
  );
  client = await newClient();
  integration_id = await createIntegration(client);
});

const exported = () => exportedSince(Math.floor(Date.now() / 1000));
const statusNow = async () =>
  (await rows('organizations')).find((row) => row['organization_id'] === client.organization_id)?.['status'];
const put = (path: string, body: object, bindings: Bindings = env) => call(client, 'PUT', path, { body, bindings });
const bulk = (verb: 'bulk-update' | 'bulk-delete', body: object, bindings: Bindings = env) =>
  call(client, 'POST', `/api/phone-numbers/${verb}`, { body, bindings });
const integrationPath = () => `/api/integrations/${integration_id}`;

/** Bindings that keep the batches with a statement that begins so, to land them once more. */
function keeping(statement: string) {
  const kept: (() => Promise<unknown>)[] = [];
  const bindings = interceptedBindings((name, carryOut, { statements }) => {
    if (name === 'DB.batch' && statements.some(({ sql }) => sql.startsWith(statement))) kept.push(carryOut);
    return carryOut();
  });
  const landAgain = async () => {
    expect(kept).toHaveLength(1);
    for (const land of kept) await land();
  };
  return { bindings, landAgain };
}

/** Does something, restores D1 to what it was before, and replays what happened. */
async function undoneAndReplayed(happens: () => Promise<unknown>) {
  const restore = await restorePoint();
  await happens();
  const events = await exported();
  await restore();
  return replayRows(events);
}

describe('a late try behind a restore and its replay', () => {
  it('of a suspension that was resumed suspends nothing', async () => {
    const { bindings, landAgain } = keeping('insert');
    await undoneAndReplayed(async () => {
      await suspendOrganization(bindings.DB, client.organization_id);
      await resumeOrganization(env.DB, client.organization_id);
    });

    await landAgain();

    expect(await statusNow()).toBe('active');
  });

  it('of a resumption does not bring an offboarded organization back', async () => {
    const { bindings, landAgain } = keeping('insert');
    await undoneAndReplayed(async () => {
      await suspendOrganization(env.DB, client.organization_id);
      await resumeOrganization(bindings.DB, client.organization_id);
      await offboardOrganization(env.DB, client.organization_id);
    });

    await landAgain();

    expect(await statusNow()).toBe('offboarded');
  });

  it('of an update of credentials makes no version live that is on its way out', async () => {
    const { bindings, landAgain } = keeping('update "integrations"');
    await undoneAndReplayed(async () => {
      await put(integrationPath(), { name: 'Renamed' });
      await put(integrationPath(), { credentials: { ...twilio, auth_token: 'another' } }, bindings);
    });
    expect((await reconcile(env)).credentials_missing).toEqual([integration_id]);
    const before = await rowOf('integrations', integration_id);

    await landAgain();

    expect(await rowOf('integrations', integration_id)).toEqual(before);
  });

  it('of a new name that was changed again changes nothing', async () => {
    const { bindings, landAgain } = keeping('update "integrations"');
    await undoneAndReplayed(async () => {
      await put(integrationPath(), { name: 'First' }, bindings);
      await put(integrationPath(), { name: 'Second' });
    });
    const before = await rowOf('integrations', integration_id);

    await landAgain();

    expect(await rowOf('integrations', integration_id)).toEqual(before);
  });

  it('of a new name for an API key that was changed again changes nothing', async () => {
    const { key_id } = await newClient({ organization_id: client.organization_id });
    const { bindings, landAgain } = keeping('update "api_keys" set "name"');
    await undoneAndReplayed(async () => {
      await put(`/api/api-keys/${key_id}`, { name: 'First' }, bindings);
      await put(`/api/api-keys/${key_id}`, { name: 'Second' });
    });
    const before = await rowOf('api_keys', key_id);

    await landAgain();

    expect(await rowOf('api_keys', key_id)).toEqual(before);
  });

  it('of an assignment that was taken back changes nothing', async () => {
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const path = `/api/phone-numbers/${phone_number_id}`;
    const { bindings, landAgain } = keeping('update "phone_numbers"');
    await undoneAndReplayed(async () => {
      await put(path, { assigned_agent_id: 'agent_000000000001' }, bindings);
      await put(path, { assigned_agent_id: null });
    });
    const before = await rowOf('phone_numbers', phone_number_id);

    await landAgain();

    expect(await rowOf('phone_numbers', phone_number_id)).toEqual(before);
  });

  it('of a change of many numbers that was taken back changes nothing', async () => {
    const phone_number_ids = [
      await importNumber(client, integration_id, unusedNumber()),
      await importNumber(client, integration_id, unusedNumber()),
    ];
    const { bindings, landAgain } = keeping('update "phone_numbers"');
    await undoneAndReplayed(async () => {
      await bulk('bulk-update', { phone_number_ids, set: { assigned_agent_id: 'agent_000000000001' } }, bindings);
      await bulk('bulk-update', { phone_number_ids, set: { assigned_agent_id: null } });
    });
    const before = await rows('phone_numbers');

    await landAgain();

    expect(await rows('phone_numbers')).toEqual(before);
  });

  it('of a deletion of an integration’s numbers spares those that came since', async () => {
    const deleted = [
      await importNumber(client, integration_id, unusedNumber()),
      await importNumber(client, integration_id, unusedNumber()),
    ];
    const { bindings, landAgain } = keeping('delete from "phone_numbers"');
    const replayed = await undoneAndReplayed(() => bulk('bulk-delete', { integration_id }, bindings));
    expect(replayed.phone_numbers_deleted.toSorted()).toEqual(deleted.toSorted());
    const came = await importNumber(client, integration_id, unusedNumber());

    await landAgain();

    expect((await rows('phone_numbers')).map((row) => row['phone_number_id'])).toEqual([came]);
    for (const id of deleted) {
      expect(await actionsOn(id)).toEqual(['phone_number.imported', 'phone_number.deleted']);
    }
  });

  it.each(['remove_phone_numbers=true', 'reassign_to='])(
    'of a delete with its numbers leaves alone what the replay has left to the integration: %s',
    async (way) => {
      const target = way.endsWith('_to=') ? await createIntegration(client) : '';
      const phone_number_id = await importNumber(client, integration_id, unusedNumber());
      const { bindings, landAgain } = keeping('delete from "integrations"');
      const replayed = await undoneAndReplayed(async () => {
        await put(`/api/phone-numbers/${phone_number_id}`, { integration_id: await createIntegration(client) });
        await call(client, 'DELETE', `${integrationPath()}?${way}${target}`, { bindings });
      });
      expect(replayed.integrations_kept).toEqual([integration_id]);
      const before = [await rows('phone_numbers'), await rows('audit_events')];

      // The foreign key undoes it.
      await landAgain().catch(() => {});

      expect([await rows('phone_numbers'), await rows('audit_events')]).toEqual(before);
    },
  );

  it('of a rotation whose successor is lost does not end the key that lives on', async () => {
    const other = await newClient({ organization_id: client.organization_id });
    const { bindings, landAgain } = keeping('insert into "api_keys"');
    const replayed = await undoneAndReplayed(() =>
      call(client, 'POST', `/api/api-keys/${other.key_id}/rotate`, { body: { overlap_seconds: 0 }, bindings }),
    );
    expect(replayed.keys_to_rotate).toEqual([other.key_id]);

    await landAgain();

    expect(await rowOf('api_keys', other.key_id)).toMatchObject({ expires_at: null, ended_at: null });
  });
});

describe('between a restore and its replay', () => {
  it('a late try of a deletion that was refused is on record, beside the refusal, and told', async () => {
    const { bindings, landAgain } = keeping('delete from "integrations"');
    const restore = await restorePoint();
    await importNumber(client, integration_id, unusedNumber());
    expect((await call(client, 'DELETE', integrationPath(), { bindings })).status).toBe(409);
    const events = await exported();
    await restore();
    await landAgain();

    const replayed = await replayRows(events);

    expect(replayed.deleted_late).toEqual([integration_id]);
    expect(new Set(await actionsOn(integration_id))).toEqual(
      new Set(['integration.created', 'integration.delete_refused', 'integration.deleted']),
    );
    expect((await replayRows(events)).deleted_late).toEqual([]);
  });

  it('a late try of a deletion of many that takes one more is on record, and told', async () => {
    const first = await importNumber(client, integration_id, unusedNumber());
    const second = await importNumber(client, integration_id, unusedNumber());
    const { bindings, landAgain } = keeping('delete from "phone_numbers"');
    const restore = await restorePoint();
    await put(`/api/phone-numbers/${first}`, { integration_id: await createIntegration(client) });
    await bulk('bulk-delete', { integration_id }, bindings);
    const events = await exported();
    await restore();
    await landAgain();

    const replayed = await replayRows(events);

    expect(replayed.deleted_late).toEqual([first]);
    expect(await rows('phone_numbers')).toEqual([]);
    expect(await actionsOn(first)).toContain('phone_number.deleted');
    expect(await actionsOn(second)).toContain('phone_number.deleted');
    expect((await replayRows(events)).deleted_late).toEqual([first]);
  });

  it('a late try of a delete with numbers that takes one more is on record, and told', async () => {
    const moved = await importNumber(client, integration_id, unusedNumber());
    const { bindings, landAgain } = keeping('delete from "phone_numbers"');
    const restore = await restorePoint();
    await put(`/api/phone-numbers/${moved}`, { integration_id: await createIntegration(client) });
    const path = `${integrationPath()}?remove_phone_numbers=true`;
    expect((await call(client, 'DELETE', path, { bindings })).headers.get('X-Removed-Count')).toBe('0');
    const events = await exported();
    await restore();
    await landAgain();

    expect((await replayRows(events)).deleted_late).toEqual([moved]);
    expect(await actionsOn(moved)).toContain('phone_number.deleted');
  });

  it('a late try of a delete with numbers that an agent had refused is told, with its numbers', async () => {
    const held = await importNumber(client, integration_id, unusedNumber());
    const { bindings, landAgain } = keeping('delete from "phone_numbers"');
    const restore = await restorePoint();
    await put(`/api/phone-numbers/${held}`, { assigned_agent_id: 'agent_000000000001' });
    const path = `${integrationPath()}?remove_phone_numbers=true`;
    expect((await call(client, 'DELETE', path, { bindings })).status).toBe(409);
    const events = await exported();
    await restore();
    await landAgain();

    expect((await replayRows(events)).deleted_late.toSorted()).toEqual([held, integration_id].toSorted());
  });

  it('a late try of a change of many that changes one more leaves an event of each', async () => {
    const first = await importNumber(client, integration_id, unusedNumber());
    const second = await importNumber(client, integration_id, unusedNumber());
    const { bindings, landAgain } = keeping('update "phone_numbers"');
    const restore = await restorePoint();
    await put(`/api/phone-numbers/${first}`, { integration_id: await createIntegration(client) });
    await bulk('bulk-update', { integration_id, set: { assigned_agent_id: 'agent_000000000001' } }, bindings);
    const events = await exported();
    await restore();
    await landAgain();

    await replayRows(events);

    expect(await rowOf('phone_numbers', first)).toMatchObject({ assigned_agent_id: 'agent_000000000001' });
    for (const id of [first, second]) expect(await actionsOn(id)).toContain('phone_number.updated');
    const [, late] = (await rows('audit_events')).filter(({ target_id }) => target_id === first);
    expect(late).toBeDefined();
  });

  it('a resumption does not keep an organization from being offboarded again', async () => {
    await suspendOrganization(env.DB, client.organization_id);
    const restore = await restorePoint();
    await offboardOrganization(env.DB, client.organization_id);
    const events = await exported();
    await restore();
    await resumeOrganization(env.DB, client.organization_id);

    await replayRows(events);

    expect(await statusNow()).toBe('offboarded');
  });
});

describe('a key-encryption key that was retired behind the restore point', () => {
  it('stays so: nothing is stored under it', async () => {
    await call(client, 'DELETE', integrationPath());
    const { checkValues } = await parseKekRing(env.CREDENTIALS_KEKS);
    await undoneAndReplayed(() => markKekRetired(env.DB, { kek_id: 'k1', check_value: checkValues.get('k1') ?? '' }));

    const body = { name: 'Under k1', credentials: twilio };
    expect((await call(client, 'POST', '/api/integrations', { body })).status).toBe(503);
  });
});
