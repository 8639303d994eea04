import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { createKeyByCommand } from '../../../src/operator/api-keys/create.ts';
import { offboardOrganization } from '../../../src/operator/organizations/offboard.ts';
import { resumeOrganization, suspendOrganization } from '../../../src/operator/organizations/suspend.ts';
import { reconcile } from '../../../src/operator/recovery/reconcile.ts';
import type { Replayed } from '../../../src/operator/recovery/replay.ts';
import { forgetOldEvents } from '../../../src/worker/audit/retention.ts';
import { newEventId } from '../../../src/worker/core/ids.ts';
import type { AuditAction } from '../../../src/worker/core/vocabulary.ts';
import { drainPurges } from '../../../src/worker/credentials/drain.ts';
import worker from '../../../src/worker/index.ts';
import { failingBindings, interceptedBindings, stallingBindings } from '../../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  eventsOn,
  importNumber,
  newClient,
  openCredentials,
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
  await env.DB.prepare('DELETE FROM audit_events').run();
  client = await newClient();
  integration_id = await createIntegration(client);
});

const exported = () => exportedSince(Math.floor(Date.now() / 1000));

/** Does something, restores D1 to what it was before, and replays what happened. */
async function undoneAndReplayed(happens: () => Promise<unknown>, database = env.DB): Promise<Replayed> {
  const restore = await restorePoint();
  await happens();
  const events = await exported();
  await restore();
  return replayRows(events, database);
}

/** An event of an operator's command, as if it had been carried out. */
async function record(action: AuditAction, target_id: string): Promise<void> {
  await env.DB.prepare(
    `INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id, state, created_at, sequence) SELECT organization_id, ?2, ?3, ?4, NULL, 'request', '{}', unixepoch(), last_sequence + 1
     FROM organizations WHERE organization_id = ?1`,
  )
    .bind(client.organization_id, newEventId(), action, target_id)
    .run();
}

const path = (id: string) => `/api/${id.startsWith('intg_') ? 'integrations' : 'phone-numbers'}/${id}`;
const remove = (id: string) => call(client, 'DELETE', path(id));
const statusOf = async (id: string) => (await call(client, 'GET', path(id))).status;
const outbox = async () => (await rows('credential_purges')).map(({ kv_key }) => kv_key);
const kvKey = async (table: 'integrations' | 'phone_numbers', id: string) =>
  `v1/${client.organization_id}/${id}/${String((await rowOf(table, id))['credentials_version'])}`;

async function importSip(): Promise<string> {
  const number = { provider: 'sip', sip_trunk_name: 'trunk', sip_username: 'user', sip_password: 'secret' };
  const phone_number = unusedNumber();
  await call(client, 'POST', '/api/phone-numbers', { body: { ...number, phone_number } });
  return String((await rowOf('phone_numbers', phone_number))['phone_number_id']);
}

describe('a replay', () => {
  it('deletes a deleted integration again, its ciphertext in the outbox', async () => {
    const kv_key = await kvKey('integrations', integration_id);

    const replayed = await undoneAndReplayed(() => remove(integration_id));

    expect(replayed.integrations_deleted).toEqual([integration_id]);
    expect(await statusOf(integration_id)).toBe(404);
    expect(await outbox()).toContain(kv_key);
  });

  it('deletes it with the version that came back, where it had been updated before', async () => {
    const kv_key = await kvKey('integrations', integration_id);
    const credentials = { ...twilio, auth_token: 'another' };

    await undoneAndReplayed(async () => {
      await call(client, 'PUT', path(integration_id), { body: { credentials } });
      await remove(integration_id);
    });

    expect(await outbox()).toContain(kv_key);
  });

  it('deletes deleted phone numbers before the integration that they used', async () => {
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());

    const replayed = await undoneAndReplayed(async () => {
      await remove(phone_number_id);
      await remove(integration_id);
    });

    expect(replayed.phone_numbers_deleted).toEqual([phone_number_id]);
    expect(replayed.integrations_deleted).toEqual([integration_id]);
    expect(replayed.integrations_kept).toEqual([]);
  });

  it('deletes an integration that a number was assigned away from: the number goes to where it was since', async () => {
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const other = await createIntegration(client);

    const replayed = await undoneAndReplayed(async () => {
      await call(client, 'PUT', `${path(phone_number_id)}?verify=false`, { body: { integration_id: other } });
      await remove(integration_id);
    });

    expect(replayed).toMatchObject({
      phone_numbers_reassigned: [phone_number_id],
      integrations_deleted: [integration_id],
      integrations_kept: [],
    });
    expect(await statusOf(integration_id)).toBe(404);
    expect(await rowOf('phone_numbers', phone_number_id)).toMatchObject({ integration_id: other });
  });

  it('keeps the row alone of an integration whose number has nowhere to go, and reports it, a second time too', async () => {
    const kv_key = await kvKey('integrations', integration_id);
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const restore = await restorePoint();
    const younger = await createIntegration(client);
    await call(client, 'PUT', `${path(phone_number_id)}?verify=false`, { body: { integration_id: younger } });
    await remove(integration_id);
    const events = await exported();
    await restore();

    for (const replayed of [await replayRows(events), await replayRows(events)]) {
      expect(replayed).toMatchObject({ integrations_kept: [integration_id], integrations_deleted: [] });
    }

    expect((await reconcile(env)).credentials_missing).toEqual([integration_id]);
    expect(await outbox()).toContain(kv_key);
    await remove(phone_number_id);
    expect(await replayRows(events)).toMatchObject({ integrations_kept: [], integrations_deleted: [integration_id] });
  });

  it('is done in one run, though the deletion of the number came after that of the integration', async () => {
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const other = await createIntegration(client);

    const replayed = await undoneAndReplayed(async () => {
      await call(client, 'PUT', `${path(phone_number_id)}?verify=false`, { body: { integration_id: other } });
      await remove(integration_id);
      await remove(phone_number_id);
      await remove(other);
    });

    expect(replayed.integrations_kept).toEqual([]);
    expect(replayed.integrations_deleted.toSorted()).toEqual([integration_id, other].toSorted());
  });

  it('is done in one run, where the deletion of an integration began before that of its number and was late', async () => {
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'DB.batch') return carryOut();
      batches += 1;
      if (batches > 1) return carryOut();
      await remove(phone_number_id);
      throw new Error('D1_ERROR: D1 DB is overloaded.');
    });

    const replayed = await undoneAndReplayed(async () => {
      expect((await call(client, 'DELETE', path(integration_id), { bindings })).status).toBe(200);
    });

    expect(batches).toBeGreaterThan(1);
    expect(replayed).toMatchObject({ integrations_deleted: [integration_id], integrations_kept: [] });
    expect(await statusOf(integration_id)).toBe(404);
  });

  it.each(['phone_number.deleted', 'phone_number.released'] as const)(
    'takes a SIP number of %s away with its credentials, an agent’s too',
    async (action) => {
      const phone_number_id = await importSip();
      await call(client, 'PUT', path(phone_number_id), { body: { assigned_agent_id: 'agent_000000000001' } });
      const kv_key = await kvKey('phone_numbers', phone_number_id);

      const replayed = await undoneAndReplayed(() => record(action, phone_number_id));

      expect(replayed.phone_numbers_deleted).toEqual([phone_number_id]);
      expect(await statusOf(phone_number_id)).toBe(404);
      expect(await outbox()).toContain(kv_key);
    },
  );

  it('revokes a revoked key again', async () => {
    const other = await newClient({ organization_id: client.organization_id });

    const replayed = await undoneAndReplayed(() => call(client, 'DELETE', `/api/api-keys/${other.key_id}`));

    expect(replayed.keys_revoked).toEqual([other.key_id]);
    expect((await call(other, 'GET', '/api/integrations')).status).toBe(401);
    expect((await call(client, 'GET', '/api/integrations')).status).toBe(200);
  });

  it.each<[AuditAction[], string]>([
    [['organization.suspended'], 'suspended'],
    [['organization.suspended', 'organization.resumed'], 'active'],
    [['organization.resumed', 'organization.suspended'], 'suspended'],
    [['organization.suspended', 'organization.offboarded'], 'offboarded'],
  ])('gives an organization the status of the last of %j', async (actions, status) => {
    await undoneAndReplayed(async () => {
      for (const action of actions) await record(action, client.organization_id);
    });

    expect(
      (await rows('organizations')).find((row) => row['organization_id'] === client.organization_id),
    ).toMatchObject({
      status,
    });
  });

  it('puts every event back, and adds none', async () => {
    const restore = await restorePoint();
    await remove(integration_id);
    await record('integration.updated', 'intg_000000000000');
    const events = await exported();
    const before = await rows('audit_events');
    await restore();

    const { events_put_back } = await replayRows(events);

    expect(events_put_back).toHaveLength(2);
    expect(await rows('audit_events')).toEqual(before);
  });

  it('touches no other organization', async () => {
    const stranger = await newClient();
    const theirs = await createIntegration(stranger);
    const number = await importNumber(stranger, theirs, unusedNumber());

    await undoneAndReplayed(async () => {
      await record('phone_number.deleted', number);
      await record('integration.deleted', theirs);
      await record('api_key.revoked', stranger.key_id);
    });

    expect((await call(stranger, 'GET', path(theirs))).status).toBe(200);
    expect((await call(stranger, 'GET', path(number))).status).toBe(200);
    expect(await rowOf('api_keys', stranger.key_id)).toMatchObject({ status: 'active' });
  });

  it('does nothing more a second time', async () => {
    const restore = await restorePoint();
    await remove(integration_id);
    await record('organization.suspended', client.organization_id);
    await record('organization.resumed', client.organization_id);
    const events = await exported();
    await restore();
    await replayRows(events);

    const again = await replayRows(events);

    expect(Object.values(again).flat()).toEqual([]);
  });

  it('does not undo what an operator did with an organization after the restore', async () => {
    const restore = await restorePoint();
    await record('organization.suspended', client.organization_id);
    const events = await exported();
    await restore();
    await replayRows(events);
    await record('organization.resumed', client.organization_id);
    await env.DB.prepare(`UPDATE organizations SET status = 'active'`).run();

    expect((await replayRows(events)).organizations_changed).toEqual([]);

    expect((await call(client, 'GET', '/api/integrations')).status).toBe(200);
  });

  it('is whole where the word of its commit is lost', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: 'Network connection lost.', times: 1 });

    await undoneAndReplayed(() => remove(integration_id), bindings.DB);

    expect(await statusOf(integration_id)).toBe(404);
    expect((await outbox()).filter((kv_key) => String(kv_key).includes(integration_id))).toHaveLength(1);
  });
});

describe('a replay of a rotated API key', () => {
  let other: Client;

  beforeEach(async () => {
    other = await newClient({ organization_id: client.organization_id });
  });

  const rotate = () =>
    call(client, 'POST', `/api/api-keys/${other.key_id}/rotate`, { body: { overlap_seconds: 3600 } });
  const nothing = { keys_revoked: [], keys_to_rotate: [] };

  it('changes nothing where the rotation was before the restore point: it has its successor and its ending', async () => {
    expect((await rotate()).status).toBe(201);
    const before = await rows('api_keys');

    const replayed = await undoneAndReplayed(() => call(client, 'GET', '/api/integrations'));

    expect(replayed).toMatchObject(nothing);
    expect(await rows('api_keys')).toEqual(before);
  });

  it('leaves the old key as it is where its successor is lost, and reports it, a second time too', async () => {
    const before = await rowOf('api_keys', other.key_id);
    const restore = await restorePoint();
    await rotate();
    const events = await exported();
    await restore();

    const reports = [await replayRows(events), await replayRows(events)];

    for (const report of reports) expect(report).toMatchObject({ ...nothing, keys_to_rotate: [other.key_id] });
    expect(await rowOf('api_keys', other.key_id)).toEqual(before);
    expect((await call(other, 'GET', '/api/integrations')).status).toBe(200);
  });

  it('reports it no more once it is rotated again', async () => {
    const restore = await restorePoint();
    await rotate();
    const events = await exported();
    await restore();
    await replayRows(events);
    expect((await rotate()).status).toBe(201);

    expect(await replayRows(events)).toMatchObject(nothing);
  });

  it('is not taken in by another key that was made in the same second', async () => {
    const restore = await restorePoint();
    await rotate();
    const events = await exported();
    await restore();
    const rotated = events.find((row) => 'action' in row && row.action === 'api_key.rotated');
    const another = await newClient({ organization_id: client.organization_id });
    await env.DB.prepare('UPDATE api_keys SET created_at = ? WHERE key_id = ?')
      .bind(rotated && 'created_at' in rotated ? rotated.created_at : 0, another.key_id)
      .run();

    expect((await replayRows(events)).keys_to_rotate).toEqual([other.key_id]);
  });

  it('reports none that has been revoked since, or has expired', async () => {
    const revoked = await undoneAndReplayed(async () => {
      await rotate();
      await call(client, 'DELETE', `/api/api-keys/${other.key_id}`);
    });
    const expired = await newClient({ organization_id: client.organization_id });
    await env.DB.prepare('UPDATE api_keys SET expires_at = 1 WHERE key_id = ?').bind(expired.key_id).run();

    expect(revoked).toMatchObject({ keys_revoked: [other.key_id], keys_to_rotate: [] });
    expect((await undoneAndReplayed(() => record('api_key.rotated', expired.key_id))).keys_to_rotate).toEqual([]);
  });
});

describe('a replay in an organization', () => {
  const statusNow = async (organization_id = client.organization_id) =>
    (await rows('organizations')).find((row) => row['organization_id'] === organization_id)?.['status'];

  it('that is offboarded leaves it so, whatever was resumed by a clock that was ahead', async () => {
    await suspendOrganization(env.DB, client.organization_id);
    const saved = await exported();
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 3_600_000 });
    await resumeOrganization(env.DB, client.organization_id);
    vi.useRealTimers();
    await offboardOrganization(env.DB, client.organization_id);
    const restore = await restorePoint();
    const events = await exported();
    await restore();

    await replayRows(events);
    // One of before the offboarding, too.
    await replayRows([...saved, ...events.filter((row) => 'action' in row && row.action === 'organization.resumed')]);

    expect(await statusNow()).toBe('offboarded');
  });

  it('that the restore lost keeps its events, counts them, and lets them be exported and forgotten', async () => {
    const restore = await restorePoint();
    const lost = await newClient();
    await createIntegration(lost);
    const events = await exported();
    await restore();

    const [first, second] = [await replayRows(events), await replayRows(events)];

    const { organization_id } = lost;
    expect(first.organizations_put_back).toEqual([organization_id]);
    for (const replayed of [first, second]) expect(replayed.organizations_without_keys).toEqual([organization_id]);
    const row = (await rows('organizations')).find((found) => found['organization_id'] === organization_id);
    expect(row).toMatchObject({ status: 'active', tier: 'starter', audit_event_count: 2, last_sequence: 3 });
    const ours = (await exported()).filter((found) => 'sequence' in found && found.organization_id === organization_id);
    expect(ours.map((event) => 'sequence' in event && event.sequence)).toEqual([1, 2]);
    await env.DB.prepare('UPDATE audit_events SET created_at = 1 WHERE organization_id = ?')
      .bind(organization_id)
      .run();
    await forgetOldEvents(env);
    expect((await rows('audit_events')).filter((event) => event['organization_id'] === organization_id)).toEqual([]);
    const { key } = await createKeyByCommand(env.DB, { organization_id, role: 'user', name: 'New', expires_at: null });
    expect((await eventsOn(key.key_id))[0]).toMatchObject({ sequence: 4 });
  });

  it('that the restore lost and that was offboarded makes no key for it ever again', async () => {
    const restore = await restorePoint();
    const { organization_id } = await newClient();
    await offboardOrganization(env.DB, organization_id);
    const events = await exported();
    await restore();

    await replayRows(events);

    expect(await statusNow(organization_id)).toBe('offboarded');
    await expect(
      createKeyByCommand(env.DB, { organization_id, role: 'user', name: 'New', expires_at: null }),
    ).rejects.toThrow('is offboarded, for good');
  });
});

describe('what is recorded between a restore and its replay', () => {
  const trail = async () =>
    (await rows('audit_events'))
      .filter((event) => event['organization_id'] === client.organization_id)
      .toSorted(
        (one, next) =>
          Number(one['created_at']) - Number(next['created_at']) || Number(one['sequence']) - Number(next['sequence']),
      );
  const sequencesOf = (events: Record<string, unknown>[]) => events.map(({ sequence }) => sequence);

  it('comes behind what was exported, in its order, so that a reader of before the restore misses none of it', async () => {
    const restore = await restorePoint();
    for (const name of ['one', 'two', 'three']) await call(client, 'PUT', path(integration_id), { body: { name } });
    const events = await exported();
    const read = await trail();
    await restore();
    const strays = [await createIntegration(client), await createIntegration(client)];

    for (const run of ['first', 'second']) {
      await replayRows(events);

      expect((await trail()).slice(0, read.length), run).toEqual(read);
      expect((await trail()).slice(read.length).map(({ target_id }) => target_id)).toEqual(strays);
      expect(new Set(sequencesOf(await trail())).size).toBe(read.length + 2);
    }
    await createIntegration(client);
    const sequences = sequencesOf(await trail());
    expect(sequences).toEqual(sequences.toSorted((one, next) => Number(one) - Number(next)));
  });

  it('by a late try that decides otherwise than was answered gives way to what was answered', async () => {
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const restore = await restorePoint();
    await remove(phone_number_id);
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name === 'DB.batch') late ??= carryOut;
      return carryOut();
    });
    expect((await call(client, 'DELETE', path(integration_id), { bindings })).status).toBe(200);
    const events = await exported();
    await restore();
    await late?.();
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.delete_refused']);

    await replayRows(events);

    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
    expect(await statusOf(integration_id)).toBe(404);
    const { audit_events } = await countersOf(client.organization_id);
    expect(audit_events).toEqual([(await trail()).length, 0]);
  });
});

async function countersOf(organization_id: string) {
  const row = (await rows('organizations')).find((found) => found['organization_id'] === organization_id);
  return { audit_events: [row?.['audit_event_count'], row?.['refusal_count']] };
}

describe('a run of the cron that is under way at the restore', () => {
  it('removes nothing that is live after it: credentials whose removal it holds are told to be missing', async () => {
    const untouched = await createIntegration(client);
    const restore = await restorePoint();
    const credentials = { ...twilio, auth_token: 'another' };
    const refusing = failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV: 503' });
    await call(client, 'PUT', path(integration_id), { body: { credentials }, bindings: refusing.bindings });
    await env.DB.prepare('UPDATE credential_purges SET due_at = 1').run();
    const { bindings, stalls, letGo } = stallingBindings('CREDENTIALS.delete');
    const cron = drainPurges(bindings);
    await stalls;

    const events = await exported();
    await restore();
    await replayRows(events);
    const { credentials_missing } = await reconcile(env);
    letGo();
    await cron;

    expect(credentials_missing).toEqual([integration_id]);
    expect((await call(client, 'GET', path(untouched))).body).toMatchObject({ data: { status: 'active' } });
    expect(await openCredentials(untouched)).toBeDefined();
    expect((await call(client, 'GET', path(integration_id))).body).toMatchObject({
      data: { status: 'credentials_missing' },
    });
  });
});

describe('the outbox, as it comes back,', () => {
  const name = () => `v1/${client.organization_id}/intg_000000000000/v`;
  const keep = async (state: string) => {
    await env.DB.prepare(
      `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, state) VALUES (?, ?, 1, 0, ?)`,
    )
      .bind(name(), client.organization_id, state)
      .run();
    await env.CREDENTIALS.put(name(), 'ciphertext');
  };
  const isStored = async () => (await env.CREDENTIALS.get(name())) !== null;

  it.each(['intended', 'owed'])(
    'removes nothing until Time Travel cannot undo the restore: what is %s',
    async (state) => {
      await keep(state);

      await undoneAndReplayed(async () => env.DB.prepare('DELETE FROM credential_purges').run());
      await drainPurges(env);

      expect(await isStored()).toBe(true);
      vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 31 * 86_400_000 });
      await drainPurges(env);
      vi.useRealTimers();
      expect(await isStored()).toBe(false);
    },
  );

  it('removes what was owed before the restore: nothing makes that live again', async () => {
    await keep('intended');

    await undoneAndReplayed(() => env.DB.prepare(`UPDATE credential_purges SET state = 'owed'`).run());
    await drainPurges(env);

    expect(await isStored()).toBe(false);
  });
});

describe('the undo of a restore', () => {
  it('has the credentials too that a late try of their creation has given up meanwhile', async () => {
    const restore = await restorePoint();
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings((_, carryOut, { statements }) => {
      if (statements.some(({ sql }) => sql.startsWith('insert into "integrations"'))) late = carryOut;
      return carryOut();
    });
    const body = { name: 'Young', credentials: twilio };
    const { text } = await call(client, 'POST', '/api/integrations', { body, bindings });
    const younger = String(JSON.parse(text).data.integration_id);
    const events = await exported();
    const undo = await restorePoint();
    await restore();
    await late?.();
    await replayRows(events);
    await reconcile(env);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 2 * 3_600_000 });
    await drainPurges(env);
    vi.useRealTimers();
    const since = await exported();

    await undo();
    await replayRows(since);
    const { credentials_missing } = await reconcile(env);

    expect(credentials_missing).not.toContain(younger);
    expect(await openCredentials(younger)).toEqual(twilio);
  });

  it('an hour later, the cron having run, has all live credentials again, and nothing that ended', async () => {
    const deleted = await createIntegration(client);
    const restore = await restorePoint();
    const younger = await createIntegration(client);
    const credentials = { ...twilio, auth_token: 'another' };
    await call(client, 'PUT', path(integration_id), { body: { credentials } });
    await remove(deleted);
    const events = await exported();
    const undo = await restorePoint();
    await restore();
    await replayRows(events);
    await reconcile(env);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 2 * 3_600_000 });
    await drainPurges(env);
    vi.useRealTimers();
    const since = await exported();

    await undo();
    await replayRows(since);

    const { credentials_missing } = await reconcile(env);
    expect(credentials_missing).not.toContain(integration_id);
    expect(credentials_missing).not.toContain(younger);
    expect(await openCredentials(integration_id)).toEqual(credentials);
    expect(await openCredentials(younger)).toBeDefined();
    expect(await statusOf(deleted)).toBe(404);
  });
});

describe('an offboarding', () => {
  const offboarded = async () => {
    const organization = (await rows('organizations')).find((row) => row['organization_id'] === client.organization_id);
    const { status, is_offboarding, integration_count, phone_number_count, api_key_count } = organization ?? {};
    return { status, is_offboarding, rows: [integration_count, phone_number_count, api_key_count] };
  };
  const ended = { status: 'offboarded', is_offboarding: 0, rows: [0, 0, 0] };
  const begin = () => {
    let isDecided = false;
    const bindings = interceptedBindings(async (_, carryOut, { statements }) => {
      if (isDecided) throw new Error('SQLITE_ABORT: killed');
      const result = await carryOut();
      isDecided = statements.some(({ sql }) => sql.startsWith('update "organizations"'));
      return result;
    });
    return expect(offboardOrganization(bindings.DB, client.organization_id)).rejects.toThrow('killed');
  };
  const turn = () => worker.scheduled(createScheduledController(), env);

  beforeEach(async () => {
    await importNumber(client, integration_id, unusedNumber());
    await importSip();
    await newClient({ organization_id: client.organization_id });
  });

  it('that has ended since the restore point is ended again, also what the restored trail tells nothing of', async () => {
    const replayed = await undoneAndReplayed(async () => {
      await offboardOrganization(env.DB, client.organization_id);
    });
    expect(replayed.organizations_changed).toEqual([client.organization_id]);

    await turn();

    expect(await offboarded()).toEqual(ended);
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
  });

  it('that was begun since the restore point, and no more, ends by itself behind the replay', async () => {
    await undoneAndReplayed(begin);
    expect(await offboarded()).toMatchObject({ status: 'offboarded', is_offboarding: 1 });

    await turn();

    expect(await offboarded()).toEqual(ended);
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
  });

  it.each(['ended', 'went on'] as const)(
    'that was under way at the restore point, and %s since, ends by itself behind the replay',
    async (since) => {
      await begin();

      await undoneAndReplayed(async () => {
        if (since === 'ended') await turn();
      });
      await turn();

      expect(await offboarded()).toEqual(ended);
      expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
    },
  );
});
