/** Offboardings of organizations with as many rows as wanted, killed anywhere, and what must hold once they have ended. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { expect } from 'vitest';
import * as z from 'zod';
import { suspendOrganization } from '../../src/operator/organizations/suspend.ts';
import type { Bindings } from '../../src/worker/env.ts';
import worker from '../../src/worker/index.ts';
import { interceptedBindings } from '../bindings.ts';
import { ciphertextsOf, dataOf } from '../faults/invariants.ts';
import {
  call,
  createIntegration,
  fillKeys,
  fillNumbers,
  importNumber,
  newClient,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client, Operator } from '../fixtures.ts';
import { importSip } from '../mutations.ts';

/** How many rows there are of each kind. */
export interface Size {
  numbers: number;
  /** Of the numbers: how many have SIP credentials. */
  sip: number;
  integrations: number;
  keys: number;
}

export const rowsIn = ({ numbers, integrations, keys }: Size) => numbers + integrations + keys;

/** A suspended organization with so many rows. Credentials have their ciphertext in KV. */
export async function filled(size: Size): Promise<Client> {
  const client = await newClient();
  const { organization_id } = client;
  const integration_id = await createIntegration(client, twilio, '?verify=false');
  await env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
     INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
       data_key, kek_id, created_at, updated_at)
     SELECT ?1, printf('intg_%012x', i), 'Filled', 'twilio', 'telephony', 'active', 'filled-' || i, 'k', 'k1', 0, 0 FROM n`,
  )
    .bind(organization_id, size.integrations - 1)
    .run();
  await fillNumbers(client, integration_id, size.numbers - size.sip);
  const [first = ''] = await fillNumbers(client, null, size.sip);
  await env.DB.prepare(
    `UPDATE phone_numbers SET credentials_version = 'filled-' || (substr(phone_number, 2) - substr(?2, 2) + 1),
       data_key = 'k', kek_id = 'k1'
     WHERE organization_id = ?1 AND provider = 'sip'`,
  )
    .bind(organization_id, first)
    .run();
  await fillKeys(client, size.keys - 1);
  await env.DB.prepare('UPDATE api_keys SET expires_at = NULL WHERE organization_id = ?').bind(organization_id).run();
  const { results } = await env.DB.prepare(
    `SELECT 'v1/' || organization_id || '/' || id || '/' || credentials_version AS kv_key FROM (
       SELECT organization_id, integration_id AS id, credentials_version FROM integrations
       UNION ALL SELECT organization_id, phone_number_id, credentials_version FROM phone_numbers)
     WHERE organization_id = ? AND credentials_version GLOB 'filled-*'`,
  )
    .bind(organization_id)
    .all();
  await Promise.all(results.map(({ kv_key }) => env.CREDENTIALS.put(String(kv_key), 'ciphertext')));
  await suspendOrganization(env.DB, organization_id);
  return client;
}

/** What a kill does to the call that it meets: it is not carried out, or its answer is lost. */
export type Kill = { call: number; when: 'before' | 'after' };

/** Bindings of an invocation that ends at one of its calls, the first being 0: whatever it asks for then fails. */
export function killedBindings(kill: Kill | undefined): { bindings: Bindings; calls: () => number } {
  let calls = 0;
  const bindings = interceptedBindings(async (_, carryOut) => {
    const index = calls;
    calls += 1;
    if (!kill || index < kill.call) return carryOut();
    if (index === kill.call && kill.when === 'after') await carryOut();
    // An error after which nothing is tried again.
    throw new Error('SQLITE_ABORT: killed');
  });
  return { bindings, calls: () => calls };
}

/** Asks for the offboarding, and waits for what goes on after the answer. */
export const requestOffboarding = (operator: Operator, { organization_id }: Client, bindings: Bindings = env) =>
  call(operator, 'POST', `/operator/organizations/${organization_id}/offboard`, {
    body: { organization_id },
    bindings,
  });

/** One turn of the cron. If it is killed, nobody hears of its error. */
export const turn = async (bindings: Bindings = env) =>
  worker.scheduled(createScheduledController(), bindings).catch(() => {});

const status = z.object({ status: z.string(), is_offboarding: z.number() });

export async function isUnderWay({ organization_id }: Client): Promise<boolean> {
  const row = await env.DB.prepare('SELECT status, is_offboarding FROM organizations WHERE organization_id = ?')
    .bind(organization_id)
    .first();
  const found = status.parse(row);
  return found.status === 'offboarded' && found.is_offboarding === 1;
}

/** Lets the cron take its turns until the offboarding has ended; fails if these are more than so many. */
export async function turnsUntilEnded(client: Client, most: number): Promise<number> {
  let turns = 0;
  while (await isUnderWay(client)) {
    expect(turns, 'turns of the cron').toBeLessThan(most);
    await turn();
    turns += 1;
  }
  return turns;
}

const endings = { numbers: 'phone_number.deleted', integrations: 'integration.deleted', keys: 'api_key.revoked' };

/** Nothing is left, each row has one event of its end, and what KV still has is in the outbox. */
export async function assertEnded(operator: Operator, { organization_id }: Client, size: Size): Promise<void> {
  const { body } = await call(operator, 'GET', `/operator/organizations/${organization_id}`);
  expect(body).toMatchObject({
    data: {
      status: 'offboarded',
      counts: { integrations: 0, phone_numbers: 0, api_keys: 0, refused_verifications: 0 },
    },
  });
  const { results } = await env.DB.prepare(
    `SELECT action, count(*) AS events, count(DISTINCT target_id) AS targets FROM audit_events
     WHERE organization_id = ? GROUP BY action`,
  )
    .bind(organization_id)
    .all();
  const recorded = Object.fromEntries(results.map(({ action, events, targets }) => [action, [events, targets]]));
  for (const kind of ['numbers', 'integrations', 'keys'] as const) {
    expect(recorded[endings[kind]], endings[kind]).toEqual([size[kind], size[kind]]);
  }
  expect(recorded['organization.offboarded']).toEqual([1, 1]);
  const trail = await env.DB.prepare(
    `SELECT count(*) AS events, count(DISTINCT sequence) AS sequences, min(sequence) AS first, max(sequence) AS last,
       (SELECT last_sequence FROM organizations WHERE organization_id = ?1) AS newest
     FROM audit_events WHERE organization_id = ?1`,
  )
    .bind(organization_id)
    .first();
  const length = trail?.['events'];
  expect(trail).toEqual({ events: length, sequences: length, first: 1, last: length, newest: length });

  const { credential_purges, api_keys } = await dataOf(organization_id);
  expect(new Set(api_keys.map((key) => key['status']))).toEqual(new Set(['revoked']));
  const owed = new Set(credential_purges.map(({ kv_key }) => kv_key));
  const unnamed = (await ciphertextsOf(organization_id)).filter((kv_key) => !owed.has(kv_key));
  expect(unnamed, 'ciphertext that is not in the outbox').toEqual([]);
}

/** An organization that has a bit of everything, and that nobody offboards. */
export async function newBystander(): Promise<Client> {
  const client = await newClient();
  await importNumber(client, await createIntegration(client), unusedNumber());
  await importSip(client);
  return client;
}

/** What a bystander has. */
export const belongings = async ({ organization_id }: Client) => [
  await dataOf(organization_id),
  await ciphertextsOf(organization_id),
];
