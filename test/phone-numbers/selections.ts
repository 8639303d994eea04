/** What the tests of calls that act on many numbers share. */
import { env } from 'cloudflare:workers';
import * as z from 'zod';
import { interceptedBindings } from '../bindings.ts';
import { call, rows } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

export const AGENT = 'agent_a1b2c3d4e5f6';
export const NO_NUMBER = 'phon_000000000000';
export const NO_INTEGRATION = 'intg_000000000000';

const answered = z.object({
  data: z.strictObject({
    would_update: z.boolean().optional(),
    would_delete: z.boolean().optional(),
    results: z.array(
      z.strictObject({
        phone_number_id: z.string(),
        phone_number: z.string().nullable(),
        status: z.enum(['updated', 'deleted', 'failed', 'not_done']),
        code: z.string().nullable(),
        detail: z.string().nullable(),
      }),
    ),
  }),
});

export interface Sent {
  by: Client;
  query?: string;
  bindings?: typeof env;
  key?: string;
}

const sending =
  (path: string) =>
  (body: object, { by, query = '', bindings = env, key }: Sent) =>
    call(by, 'POST', `${path}${query}`, {
      body,
      bindings,
      ...(key !== undefined && { headers: { 'Idempotency-Key': key } }),
    });

export const bulkUpdate = sending('/api/phone-numbers/bulk-update');
export const bulkDelete = sending('/api/phone-numbers/bulk-delete');

export const dataOf = ({ body }: { body: unknown }) => answered.parse(body).data;
export const resultsOf = (answer: { body: unknown }) => dataOf(answer).results;
/** Of each number its code, or else its status. */
export const codesOf = (answer: { body: unknown }) => resultsOf(answer).map(({ code, status }) => code ?? status);

/** Everything that a mutation may change, but for the time at which a key was used. */
export async function kept() {
  return {
    numbers: await rows('phone_numbers'),
    events: await rows('audit_events'),
    organizations: await rows('organizations'),
    integrations: await rows('integrations'),
    purges: await rows('credential_purges'),
    remembered: await rows('idempotency_keys'),
  };
}

/** The events of the numbers in the order of the trail: action and target. */
export async function trail({ organization_id }: Client): Promise<{ action: unknown; target_id: unknown }[]> {
  const { results } = await env.DB.prepare(
    `SELECT action, target_id FROM audit_events
     WHERE organization_id = ? AND action GLOB 'phone_number.*' AND action <> 'phone_number.imported' ORDER BY sequence`,
  )
    .bind(organization_id)
    .all();
  return results.map(({ action, target_id }) => ({ action, target_id }));
}

export const assign = (client: Client, phone_number_id: string, assigned_agent_id: string | null = AGENT) =>
  call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, { body: { assigned_agent_id } });

/** The ids of an organization's numbers, in the order of the numbers. */
export async function idsOf({ organization_id }: Client): Promise<string[]> {
  const numbers = (await rows('phone_numbers')).filter((row) => row['organization_id'] === organization_id);
  const sorted = numbers.toSorted((one, other) =>
    String(one['phone_number']) < String(other['phone_number']) ? -1 : 1,
  );
  return sorted.map((row) => String(row['phone_number_id']));
}

const metered = z.array(z.object({ meta: z.object({ rows_read: z.number() }) }));

/** Bindings that count the batches, and the rows that they read. */
export function meteredBindings() {
  const meter = { batches: 0, rowsRead: 0 };
  const bindings = interceptedBindings(async (name, carryOut) => {
    const answers = await carryOut();
    if (name === 'DB.batch') {
      meter.batches += 1;
      for (const { meta } of metered.parse(answers)) meter.rowsRead += meta.rows_read;
    }
    return answers;
  });
  return { bindings, meter };
}
