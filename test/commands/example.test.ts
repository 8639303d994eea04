/**
 * The examples beside the server of `npm run dev`: a Worker, so two processes and a call from Worker to Worker; a Worker
 * that gets events; and a script.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { entries, patchbayClient, patchbayOperator, unwrap } from '../../src/client/client.ts';
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import { createOperatorKey } from '../../src/operator/operator-keys/create.ts';
import { operatorPermissions } from '../../src/worker/core/permissions.ts';
import { SECONDS_A_DAY, unixNow } from '../../src/worker/core/time.ts';
import { LAST_NET } from '../conformance/server.ts';
import { freePort, removeDirectory, run, startDev, startExample, temporaryDirectory } from '../processes.ts';
import { withState } from './state.ts';

const NUMBER = '+14155550100';

let directory: string;
let operatorKey: string;
let dev: Awaited<ReturnType<typeof startDev>>;
let example: Awaited<ReturnType<typeof startExample>>;

beforeAll(async () => {
  directory = await temporaryDirectory();
  const key = { name: 'Platform', permissions: operatorPermissions, expires_at: unixNow() + SECONDS_A_DAY };
  ({ raw_key: operatorKey } = await withState(directory, ({ DB }) => createOperatorKey(DB, key)));
  dev = await startDev(directory, await freePort(), {
    parameters: ['--var', 'OPERATOR_API:on', '--var', 'WEBHOOKS_TO_LOOPBACK:on'],
  });
  example = await startExample(directory, await freePort());
});

afterAll(async () => {
  await example.stop();
  await dev.stop();
  await removeDirectory(directory);
});

async function callIn(phone_number: string) {
  const response = await fetch(`${example.url}/incoming?to=${encodeURIComponent(phone_number)}`);
  return { status: response.status, body: await response.json() };
}

const listed = z.object({ data: z.array(z.object({ phone_number_id: z.string() })) });

async function call(method: string, path: string) {
  const { url, raw_key, organization_id } = dev.banner;
  const headers = { 'X-API-Key': raw_key, 'X-Organization-Id': organization_id };
  const response = await fetch(url + path, { method, headers });
  return { status: response.status, body: await response.json() };
}

describe('the call router', () => {
  it('answers a call to a number of the demo, and names the credentials, but shows none', async () => {
    // The two processes find each other a moment after both are ready.
    await vi.waitFor(async () => expect(await callIn(NUMBER)).toMatchObject({ status: 200 }), LAST_NET);

    expect(await callIn(NUMBER)).toEqual({
      status: 200,
      body: {
        would: `answer the call to ${NUMBER} through twilio, with account_sid, auth_token, region`,
        organization_id: 'org_demo',
        credentials_version: expect.stringMatching(/^[\w-]{21}$/),
        read_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      },
    });
  });

  it('does not know a number that was not imported', async () => {
    expect(await callIn('+14155550199')).toEqual({ status: 404, body: { code: 'phone_number_not_found' } });
    expect(await callIn('anonymous')).toEqual({ status: 404, body: { code: 'phone_number_not_found' } });
  });

  it('no longer knows the number once it and its integration are deleted', async () => {
    const { data } = listed.parse((await call('GET', '/api/phone-numbers')).body);
    for (const { phone_number_id } of data) {
      expect(await call('DELETE', `/api/phone-numbers/${phone_number_id}`)).toMatchObject({ status: 200 });
    }
    expect(await call('DELETE', `/api/integrations/${dev.banner.in_use}`)).toMatchObject({ status: 200 });

    expect(await callIn(NUMBER)).toEqual({ status: 404, body: { code: 'phone_number_not_found' } });
  });

  it('is on the record: in the log of the API, and once among the audit events', async () => {
    const printed = await readFile(dev.log, 'utf8');
    expect(printed).toMatch(/credentials_read \{.*consumer: 'call-router', purpose: 'answer call'.*outcome: 'ok' \}/);
    expect(printed).toMatch(/credentials_read \{.*outcome: 'phone_number_not_found' \}/);
    expect(await call('GET', '/api/audit-events?action=credentials.read')).toMatchObject({
      body: {
        data: [
          {
            action: 'credentials.read',
            outcome: 'succeeded',
            target_id: dev.banner.in_use,
            actor: { type: 'service', id: 'call-router', name: 'call-router' },
            actor_key_id: null,
            state: { integration_id: dev.banner.in_use, name: 'Twilio Production' },
            changes: null,
            reason: null,
          },
        ],
      },
    });
  });
});

describe('the webhook receiver', () => {
  const newSecret = () => `whsec_${randomBytes(32).toString('base64')}`;
  const file = 'examples/webhook-receiver/index.ts';

  let receiver: Awaited<ReturnType<typeof startExample>>;
  let secret: string;
  let endpoint_id: string;

  const client = () => {
    const { url, raw_key, organization_id } = dev.banner;
    return patchbayClient(url, { apiKey: raw_key, organizationId: organization_id }).api;
  };

  beforeAll(async () => {
    const port = await freePort();
    const json = { url: `http://127.0.0.1:${port}/`, events: ['integration.*' as const] };
    const { data } = await unwrap(client()['webhook-endpoints'].$post({ json }));
    if (data.secret === undefined) throw new Error('no secret');
    ({ secret } = data);
    ({ endpoint_id } = data.endpoint);
    const environment = { WEBHOOK_SECRETS: `${newSecret()} ${secret}` };
    receiver = await startExample(directory, port, { script: 'example:webhook-receiver', environment });
  });

  afterAll(() => receiver.stop());

  async function receive(id: string, { signedWith = secret, type = 'integration.deleted' } = {}) {
    const now = new Date();
    const data = { target_id: 'intg_0123456789ab' };
    const body = JSON.stringify({ id, type, created_at: now.toISOString(), organization_id: 'org_demo', data });
    const headers = {
      'webhook-id': id,
      'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
      'webhook-signature': new Webhook(signedWith).sign(id, now, body),
    };
    const response = await fetch(receiver.url, { method: 'POST', headers, body });
    return { status: response.status, body: await response.json() };
  }

  const actsOn = async (text: string) => (await readFile(receiver.log, 'utf8')).split(text).length - 1;

  it('is complete, and has under 40 lines', async () => {
    const lines = (await readFile(join(projectDirectory, file), 'utf8')).trimEnd().split('\n');

    expect(lines.length).toBeLessThan(40);
  });

  it('answers the test, and then gets what happens', async () => {
    const param = { endpoint_id };
    const { data } = await unwrap(client()['webhook-endpoints'][':endpoint_id'].test.$post({ param }));
    expect(data.last_test).toMatchObject({ succeeded: true, response_status: 200, error: null });

    const integration_id = dev.banner.spare;
    await unwrap(client().integrations[':integration_id'].$put({ param: { integration_id }, json: { name: 'Moved' } }));

    await vi.waitFor(async () => expect(await actsOn(`integration.updated ${integration_id}`)).toBe(1), LAST_NET);
    const deliveries = client()['webhook-endpoints'][':endpoint_id'].deliveries.$get;
    await vi.waitFor(async () => {
      const told: unknown[] = [];
      for await (const { event_type, status, response_body } of entries(deliveries, { param })) {
        told.push([event_type, status, response_body]);
      }
      expect(told).toEqual([['integration.updated', 'delivered', '{"is_new":true}']]);
    }, LAST_NET);
  });

  it('could ask the feed instead, which the client follows to its end', async () => {
    const followed = new Map<string, string>();
    let count = 0;
    for await (const event of entries(client()['audit-events'].$get, { after: '', page_size: 3 })) {
      followed.set(event.event_id, `${event.action} ${event.target_id}`);
      count += 1;
    }

    expect(count).toBeGreaterThan(3);
    expect(followed.size).toBe(count);
    const told = [...followed.values()];
    expect(told).toContain(`integration.updated ${dev.banner.spare}`);
    expect(told).toContain(`webhook_endpoint.tested ${endpoint_id}`);
  });

  it('acts once on an event that comes several times', async () => {
    const id = randomUUID();
    const type = 'integration.credentials_missing';

    expect(await receive(id, { type })).toEqual({ status: 200, body: { is_new: true } });
    expect(await receive(id, { type })).toEqual({ status: 200, body: { is_new: false } });
    expect(await receive(randomUUID())).toEqual({ status: 200, body: { is_new: true } });
    await vi.waitFor(async () => expect(await actsOn('integration.deleted intg_')).toBe(1), LAST_NET);
    expect(await actsOn(`${type} intg_`)).toBe(1);
  });

  it('refuses what is not signed with one of its secrets', async () => {
    expect(await receive(randomUUID(), { signedWith: newSecret() })).toEqual({
      status: 400,
      body: { detail: 'No matching signature found' },
    });
    expect((await fetch(receiver.url)).status).toBe(400);
  });
});

describe('the script that provisions', () => {
  it('takes an organization from its first key to its end', async () => {
    const { url } = dev.banner;
    const environment = { PATCHBAY_URL: url, PATCHBAY_OPERATOR_KEY: operatorKey };

    const ran = await run(process.execPath, ['examples/provision/provision.ts'], { environment });

    expect(ran).toMatchObject({ code: 0, stderr: '' });
    const [organization_id = ''] = /^org_\w+/.exec(ran.stdout) ?? [];
    expect(ran.stdout).toContain('+14155550102 is imported');
    const { operator } = patchbayOperator(url, { operatorKey });
    const read = operator.organizations[':organization_id'].$get({ param: { organization_id } });
    expect(await unwrap(read)).toMatchObject({
      data: {
        organization_id,
        status: 'offboarded',
        counts: { integrations: 0, phone_numbers: 0, api_keys: 0, refused_verifications: 0 },
      },
    });
    const actions = new Set<string>();
    for await (const { action } of entries(operator['audit-events'].$get, { organization_id })) actions.add(action);
    expect(actions).toEqual(
      new Set([
        'organization.created',
        'api_key.created',
        'integration.created',
        'phone_number.imported',
        'organization.suspended',
        'organization.offboarded',
        'phone_number.deleted',
        'integration.deleted',
        'api_key.revoked',
      ]),
    );
  });
});
