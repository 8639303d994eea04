/** The audit event of a read. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { offboardOrganization } from '../../src/operator/organizations/offboard.ts';
import { resumeOrganization, suspendOrganization } from '../../src/operator/organizations/suspend.ts';
import { interceptedBindings, notedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  importNumber,
  newClient,
  page,
  rows,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip } from '../mutations.ts';
import { LAST_NET, read, startRead } from './reader.ts';

const DAY_MILLISECONDS = 24 * 60 * 60 * 1000;
let client: Client;
let organization_id: string;
let integration_id: string;

beforeEach(async () => {
  client = await newClient();
  ({ organization_id } = client);
  integration_id = await createIntegration(client);
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const request = () => ({ organization_id, integration_id });

/** The reads that are on record, with what tells them apart. */
async function recorded(): Promise<unknown[]> {
  const { data } = await page(client, '/api/audit-events?action=credentials.read');
  return data.map(({ target_id, actor }) => [target_id, Object(actor).id]);
}

/** On the next day by this isolate's clock, which asks D1 again: it remembers until then what D1 has. */
function tomorrowInThisIsolate(): void {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + DAY_MILLISECONDS });
}

/** Reads, and lets the event be written when the returned function is called. */
async function readAndRecordLater(): Promise<() => Promise<void>> {
  const stalled = Promise.withResolvers<void>();
  let batches = 0;
  const bindings = interceptedBindings(async (name, carryOut) => {
    if (name === 'DB.batch' && (batches += 1) === 2) await stalled.promise;
    return carryOut();
  });
  const { settle } = await startRead('read', request(), { bindings });
  await vi.waitFor(() => expect(batches).toBe(2), LAST_NET);
  return () => {
    stalled.resolve();
    return settle();
  };
}

const setEvents = (assignment: string) =>
  env.DB.prepare(`UPDATE audit_events SET ${assignment} WHERE organization_id = ? AND action = 'credentials.read'`)
    .bind(organization_id)
    .run();

describe('a read', () => {
  it('is an audit event of the consumer, with the integration as it was', async () => {
    await read('read', request());

    const { data } = await page(client, '/api/audit-events?action=credentials.read');
    const { body } = await call(client, 'GET', `/api/integrations/${integration_id}`);
    expect(data).toEqual([
      {
        event_id: expect.any(String),
        client_id: organization_id,
        action: 'credentials.read',
        outcome: 'succeeded',
        target_id: integration_id,
        actor: { type: 'service', id: 'call-router', name: 'call-router' },
        actor_key_id: null,
        request_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        state: Object(body).data,
        changes: null,
        reason: null,
        created_at: expect.any(String),
      },
    ]);
  });

  it('has the request id of its line in the log', async () => {
    const info = vi.spyOn(console, 'info').mockImplementation(() => {});

    await read('read', request());

    const [line] = info.mock.calls.map(([text]) => JSON.parse(String(text)));
    const { data } = await page(client, '/api/audit-events?action=credentials.read');
    expect(data).toEqual([expect.objectContaining({ request_id: line.request_id })]);
  });

  it('of a SIP number is an event of the number, and of another number one of its integration', async () => {
    const [sipNumber, number] = [unusedNumber(), unusedNumber()];
    const phone_number_id = await importSip(client, sipNumber);
    await importNumber(client, integration_id, number);

    await read('readByPhoneNumber', { phone_number: sipNumber });
    await read('readByPhoneNumber', { phone_number: number });
    await read('read', request());

    expect(await recorded()).toEqual([
      [phone_number_id, 'call-router'],
      [integration_id, 'call-router'],
    ]);
  });

  it('is recorded after its answer, and once in an isolate', async () => {
    const { bindings, invocation } = notedBindings();

    const first = await startRead('read', request(), { bindings });
    expect(invocation.calls.map((one) => one.call)).toEqual(['DB.batch', 'CREDENTIALS.get']);
    await first.settle();
    expect(invocation.calls.map((one) => one.call)).toEqual(['DB.batch', 'CREDENTIALS.get', 'DB.batch']);
    await read('read', request(), { bindings });

    expect(invocation.calls).toHaveLength(4);
    expect(await recorded()).toHaveLength(1);
  });

  it('is recorded once a day, whichever isolate reads, however many at once', async () => {
    await Promise.all(Array.from({ length: 5 }, () => read('read', request())));
    tomorrowInThisIsolate();
    await read('read', request());

    expect(await recorded()).toHaveLength(1);
  });

  it('is recorded by an isolate whose clock is ahead of D1’s, once the day has come for D1', async () => {
    tomorrowInThisIsolate();
    await read('read', request());
    await setEvents(`created_at = unixepoch('now', 'start of day') - 1`);
    await read('read', request());

    expect(await recorded()).toHaveLength(2);
  });

  it('is recorded again on the next day', async () => {
    await read('read', request());
    await setEvents(`created_at = unixepoch('now', 'start of day') - 1`);
    tomorrowInThisIsolate();
    await read('read', request());
    await read('read', request());

    expect(await recorded()).toHaveLength(2);
  });

  it('is recorded once for each consumer and each integration', async () => {
    const other = await createIntegration(client);

    for (const consumer of ['call-router', 'twilio-only']) {
      for (const id of [integration_id, other]) {
        await read('read', { organization_id, integration_id: id }, { consumer });
      }
    }

    expect(await recorded()).toEqual([
      [integration_id, 'call-router'],
      [other, 'call-router'],
      [integration_id, 'twilio-only'],
      [other, 'twilio-only'],
    ]);
  });

  it.each([
    ['that finds nothing', { integration_id: 'intg_000000000000' }, 'call-router'],
    ['that is not granted', {}, 'sip-only'],
    ['by an unknown consumer', {}, 'unknown'],
  ])('%s is not recorded', async (_, given, consumer) => {
    expect(await read('read', { ...request(), ...given }, { consumer })).toMatchObject({ ok: false });

    expect(await recorded()).toEqual([]);
  });

  it('of credentials that do not open is not recorded', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => {});
    await env.DB.prepare(`UPDATE integrations SET kek_id = 'k9' WHERE integration_id = ?`).bind(integration_id).run();

    await read('read', request());

    expect(await recorded()).toEqual([]);
  });

  it('whose event cannot be written is logged, and the next one is recorded', async () => {
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'DB.batch' && (batches += 1) > 1) throw new Error('Cannot resolve D1 DB due to transient issue');
      return carryOut();
    });

    expect(await read('read', request(), { bindings })).toMatchObject({ ok: true });
    expect(error.mock.calls).toEqual([[expect.stringContaining('"after_answer_failed"')]]);
    expect(await recorded()).toEqual([]);

    await read('read', request());
    expect(await recorded()).toHaveLength(1);
  });

  it('whose event was written and its answer lost is recorded once', async () => {
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'DB.batch' && (batches += 1) === 2) throw new Error('D1_ERROR: Network connection lost.');
      return result;
    });

    await read('read', request(), { bindings });

    expect(batches).toBe(3);
    expect(await recorded()).toHaveLength(1);
  });

  it.each([
    ['its suspension', () => suspendOrganization(env.DB, organization_id)],
    [
      'its new credentials',
      () => call(client, 'PUT', `/api/integrations/${integration_id}`, { body: { credentials: twilio } }),
    ],
  ])('that is recorded late leaves no event behind %s, and the next one is recorded', async (_, change) => {
    const record = await readAndRecordLater();
    await change();
    await record();
    expect(await actionsOn(integration_id)).not.toContain('credentials.read');

    await resumeOrganization(env.DB, organization_id);
    await read('read', request());
    expect(await recorded()).toHaveLength(1);
  });

  it.each([
    ['its deletion', async () => void (await call(client, 'DELETE', `/api/integrations/${integration_id}`))],
    ['the offboarding of its organization', async () => void (await offboardOrganization(env.DB, organization_id))],
  ])('that is recorded late leaves no event behind %s', async (_, end) => {
    const record = await readAndRecordLater();
    await end();
    await record();

    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
  });
});

describe('a database that is nearly full', () => {
  it('gets no event', async () => {
    const bindings = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if (!Array.isArray(result)) return result;
      return result.map((one) => ({ ...one, meta: { ...one.meta, size_after: 9.6e9 } }));
    });

    expect(await read('read', request(), { bindings })).toMatchObject({ ok: true });

    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });
});

describe('the quota of audit events', () => {
  it('does not count reads, and does not hold them up', async () => {
    await env.DB.prepare('UPDATE organizations SET max_audit_events = audit_event_count WHERE organization_id = ?')
      .bind(organization_id)
      .run();

    await read('read', request());

    expect(await recorded()).toHaveLength(1);
    const organization = (await rows('organizations')).find((row) => row['organization_id'] === organization_id);
    expect(organization).toMatchObject({ read_count: 1 });
    expect(organization?.['audit_event_count']).toBe(organization?.['max_audit_events']);
  });
});
