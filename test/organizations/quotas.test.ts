/** How much an organization may hold, and how much it holds. */
import { env } from 'cloudflare:workers';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { suspendOrganization } from '../../src/operator/organizations/suspend.ts';
import { quotas, tiers } from '../../src/worker/core/vocabulary.ts';
import type { Quota } from '../../src/worker/core/vocabulary.ts';
import { quotaDefaults } from '../../src/worker/organizations/quotas.ts';
import {
  call,
  createIntegration,
  importNumber,
  newClient,
  resources,
  rows,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip, mutations, sip } from '../mutations.ts';
import type { Case, Mutation } from '../mutations.ts';

const counters: Record<Quota, string> = {
  integrations: 'integration_count',
  phone_numbers: 'phone_number_count',
  unconfirmed_numbers: 'unconfirmed_number_count',
  api_keys: 'api_key_count',
  audit_events: 'audit_event_count',
};

const setColumn = (client: Client, column: string, value: string) =>
  env.DB.prepare(`UPDATE organizations SET ${column} = ${value} WHERE organization_id = ?`)
    .bind(client.organization_id)
    .run();

/** From now on the organization has what it may have. */
const fill = (client: Client, quota: Quota) => setColumn(client, `max_${quota}`, counters[quota]);

const creation: Mutation = {
  method: 'POST',
  path: '/api/integrations',
  body: { name: 'One more', credentials: twilio },
};

/** What takes one more of each. */
const takers: [Quota, string, (client: Client) => Promise<Mutation>][] = [
  ['integrations', 'the creation of an integration', async () => creation],
  [
    'phone_numbers',
    'the import of a number through an integration',
    async (client) => ({
      method: 'POST',
      path: '/api/phone-numbers?verify=false',
      body: { phone_number: unusedNumber(), provider: 'twilio', integration_id: await createIntegration(client) },
    }),
  ],
  [
    'phone_numbers',
    'the import of a SIP number',
    async () => ({ method: 'POST', path: '/api/phone-numbers', body: sip() }),
  ],
  [
    'unconfirmed_numbers',
    'the import of a SIP number with credentials',
    async () => ({ method: 'POST', path: '/api/phone-numbers', body: sip() }),
  ],
  [
    'unconfirmed_numbers',
    'the import of a SIP number without credentials',
    async () => ({
      method: 'POST',
      path: '/api/phone-numbers',
      body: { phone_number: unusedNumber(), provider: 'sip' },
    }),
  ],
  [
    'api_keys',
    'the creation of an API key',
    async () => ({ method: 'POST', path: '/api/api-keys', body: { name: 'One more', role: 'user' } }),
  ],
  [
    'api_keys',
    'a rotation whose old key lives on',
    async (client) => {
      const { key_id } = await newClient({ organization_id: client.organization_id });
      return { method: 'POST', path: `/api/api-keys/${key_id}/rotate`, body: { overlap_seconds: 60 } };
    },
  ],
];

const send = (client: Client, { method, path, body, headers = {} }: Mutation) =>
  call(client, method, path, { body, headers });

const stored = async () => ({ ...(await resources()), keys: (await rows('api_keys')).length });

async function organizationOf({ organization_id }: Client) {
  const found = (await rows('organizations')).find((row) => row['organization_id'] === organization_id);
  return found ?? {};
}

describe.each(takers)('at the quota of %s, %s', (quota, _, prepare) => {
  it('is a 409 that names quota and limit, and leaves nothing behind', async () => {
    const client = await newClient();
    const mutation = await prepare(client);
    await fill(client, quota);
    const limit = (await organizationOf(client))[`max_${quota}`];
    const before = await stored();

    const answer = await send(client, mutation);

    expect(answer).toMatchObject({
      status: 409,
      body: { code: 'quota_exceeded', quota, limit },
    });
    expect(await stored()).toEqual(before);
  });

  it('is refused under an Idempotency-Key too, and done under the same key when there is room', async () => {
    const client = await newClient();
    const { method, path, body } = await prepare(client);
    await fill(client, quota);
    const headers = { 'Idempotency-Key': `quota-${crypto.randomUUID()}` };

    const refused = await call(client, method, path, { body, headers });
    await setColumn(client, `max_${quota}`, 'NULL');
    const done = await call(client, method, path, { body, headers });

    expect([refused.status, done.status]).toEqual([409, 201]);
  });

  it('takes the last place once, where two are sent at the same time', async () => {
    const client = await newClient();
    const both = [await prepare(client), await prepare(client)];
    await setColumn(client, `max_${quota}`, `${counters[quota]} + 1`);

    const answers = await Promise.all(both.map((mutation) => send(client, mutation)));

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201, 409]));
  });
});

const acting = mutations.filter(({ status }) => status < 400);
/** What moves stays, and leaves an event. */
const isEnding = ({ name }: Case) => /^the (deletion|revocation)/.test(name) && !name.includes('go to another');
const adding = acting.filter((mutation) => !isEnding(mutation));
const ending = acting.filter(isEnding);

describe('at the quota of audit events', () => {
  it.each(adding)('$name is refused, and nothing happens', async ({ prepare }) => {
    const client = await newClient();
    const mutation = await prepare(client);
    await fill(client, 'audit_events');
    const before = await stored();

    const answer = await send(client, mutation);

    expect(answer).toMatchObject({ status: 409, body: { code: 'quota_exceeded', quota: 'audit_events' } });
    expect(await stored()).toEqual(before);
  });

  it.each(ending)('$name works', async ({ prepare, status }) => {
    const client = await newClient();
    const mutation = await prepare(client);
    await fill(client, 'audit_events');

    expect((await send(client, mutation)).status).toBe(status);
  });

  it('a suspension works', async () => {
    const client = await newClient();
    await fill(client, 'audit_events');

    expect(await suspendOrganization(env.DB, client.organization_id)).toMatchObject({ status: 'active' });
  });
});

describe('a quota', () => {
  it.each(tiers.flatMap((tier) => quotas.map((quota) => [tier, quota] as const)))(
    'of the tier %s for %s holds where the organization has none of its own',
    async (tier, quota) => {
      const client = await newClient({ tier });
      const taker = takers.find(([taken]) => taken === quota);
      const mutation = taker ? await taker[2](client) : creation;
      await setColumn(client, counters[quota], String(quotaDefaults[tier][quota]));

      const answer = await send(client, mutation);

      expect(answer).toMatchObject({ status: 409, body: { quota, limit: quotaDefaults[tier][quota] } });
    },
  );

  it('is of one organization: another is not refused', async () => {
    const [full, other] = [await newClient(), await newClient()];
    await fill(full, 'integrations');

    expect(await createIntegration(other)).toMatch(/^intg_/);
  });

  it('does not keep a key from being rotated where the old one ends at once', async () => {
    const client = await newClient();
    await fill(client, 'api_keys');

    const { status } = await send(client, {
      method: 'POST',
      path: `/api/api-keys/${client.key_id}/rotate`,
      body: { overlap_seconds: 0 },
    });

    expect(status).toBe(201);
  });

  it('is not told before what is missing, and not before the permission', async () => {
    const client = await newClient();
    const reader = await newClient({ organization_id: client.organization_id, role: 'user' });
    await fill(client, 'integrations');
    await fill(client, 'audit_events');

    expect((await send(reader, creation)).status).toBe(403);
    const update: Mutation = { method: 'PUT', path: '/api/integrations/intg_000000000000', body: { name: 'A' } };
    expect((await send(client, update)).status).toBe(404);
  });
});

const count = z.object({ n: z.number() });

const recounts: Record<string, string> = {
  integration_count: 'SELECT count(*) AS n FROM integrations WHERE organization_id = ?1',
  phone_number_count: 'SELECT count(*) AS n FROM phone_numbers WHERE organization_id = ?1',
  unconfirmed_number_count:
    "SELECT count(*) AS n FROM phone_numbers WHERE organization_id = ?1 AND ownership = 'unconfirmed'",
  api_key_count: 'SELECT count(*) AS n FROM api_keys WHERE organization_id = ?1 AND ended_at IS NULL',
  audit_event_count: `SELECT count(*) AS n FROM audit_events WHERE organization_id = ?1 AND action NOT LIKE '%refused'`,
  refusal_count: `SELECT count(*) AS n FROM audit_events WHERE organization_id = ?1 AND action LIKE '%refused'`,
};

async function counted(client: Client) {
  const recounted = await Promise.all(
    Object.entries(recounts).map(async ([name, sql]) => {
      const found = await env.DB.prepare(sql).bind(client.organization_id).first();
      return [name, count.parse(found).n] as const;
    }),
  );
  const organization = await organizationOf(client);
  const kept = Object.fromEntries(Object.keys(recounts).map((name) => [name, organization[name]]));
  return { kept, recounted: Object.fromEntries(recounted) };
}

async function countedOnIntegrations({ organization_id }: Client) {
  const of = (table: 'integrations' | 'phone_numbers') =>
    rows(table).then((all) => all.filter((row) => row['organization_id'] === organization_id));
  const [integrations, numbers] = [await of('integrations'), await of('phone_numbers')];
  const recounted = integrations.map(
    ({ integration_id }) => numbers.filter((number) => number['integration_id'] === integration_id).length,
  );
  return { kept: integrations.map((row) => row['phone_number_count']), recounted };
}

describe('what an organization holds', () => {
  it.each(mutations)('is counted to the row after $name', async ({ prepare }) => {
    const client = await newClient();
    await send(client, await prepare(client));

    const organization = await counted(client);
    const integrations = await countedOnIntegrations(client);

    expect(organization.kept).toEqual(organization.recounted);
    expect(integrations.kept).toEqual(integrations.recounted);
  });

  it('is counted to the row whoever writes', async () => {
    const client = await newClient();
    const [one, two] = [await createIntegration(client), await createIntegration(client)];
    const number = await importNumber(client, one, unusedNumber());
    await importNumber(client, one, unusedNumber());
    const sipNumber = await importSip(client);
    const { key_id } = await newClient({ organization_id: client.organization_id });
    await env.DB.batch(
      [
        `UPDATE phone_numbers SET integration_id = '${two}' WHERE phone_number_id = '${number}'`,
        `DELETE FROM phone_numbers WHERE phone_number_id = '${sipNumber}'`,
        `UPDATE api_keys SET status = 'revoked' WHERE key_id = '${key_id}'`,
        `DELETE FROM audit_events WHERE target_id = '${sipNumber}'`,
      ].map((sql) => env.DB.prepare(sql)),
    );

    const organization = await counted(client);
    const integrations = await countedOnIntegrations(client);

    expect(organization.recounted).toMatchObject({
      integration_count: 2,
      phone_number_count: 2,
      unconfirmed_number_count: 2,
    });
    expect(organization.recounted).toMatchObject({ api_key_count: 1 });
    expect(organization.kept).toEqual(organization.recounted);
    expect(integrations.kept).toEqual([1, 1]);
    expect(integrations.kept).toEqual(integrations.recounted);
  });
});
