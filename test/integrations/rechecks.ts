/** Many integrations that the cron must check, and what its runs do with them: on a simulated clock. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { vi } from 'vitest';
import { seal } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import type { Bindings } from '../../src/worker/env.ts';
import worker from '../../src/worker/index.ts';
import { RECHECK_CRON } from '../../src/worker/integrations/recheck.ts';
import { notedBindings } from '../bindings.ts';
import type { Invocation } from '../bindings.ts';
import type { Client } from '../fixtures.ts';

export const cron = (bindings = env) => worker.scheduled(createScheduledController({ cron: RECHECK_CRON }), bindings);

const ROWS_AT_ONCE = 200;

/** Stores integrations as the API does, but many at once; their secrets are `plaintext-0`, `plaintext-1`, and so on. */
export async function fillIntegrations({ organization_id }: Client, count: number): Promise<void> {
  const ring = await parseKekRing(env.CREDENTIALS_KEKS);
  for (let first = 0; first < count; first += ROWS_AT_ONCE) {
    const indexes = Array.from({ length: Math.min(ROWS_AT_ONCE, count - first) }, (_, index) => first + index);
    const inserts = indexes.map(async (index) => {
      const integration_id = `intg_${index.toString(16).padStart(12, '0')}`;
      const kv_key = credentialsKey(organization_id, integration_id, 'v');
      const credentials = { provider: 'telnyx', api_key: `plaintext-${index}` };
      const { ciphertext, data_key, kek_id } = await seal(ring, kv_key, credentials);
      await env.CREDENTIALS.put(kv_key, ciphertext);
      return env.DB.prepare(
        `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status,
           credentials_version, data_key, kek_id, created_at, updated_at)
         VALUES (?, ?, 'Filled', 'telnyx', 'telephony', 'active', 'v', ?, ?, 0, 0)`,
      ).bind(organization_id, integration_id, data_key, kek_id);
    });
    await env.DB.batch(await Promise.all(inserts));
  }
}

/** What the providers saw. */
export interface Seen {
  checks: Map<string, number>;
  mostAtOnce: number;
  /** Checked while a check of the same was under way. */
  twiceAtOnce: string[];
}

/** Providers that take two seconds for each answer, by the simulated clock. Four at once take half a second each. */
export function slowProviders(): Seen {
  const seen: Seen = { checks: new Map(), mostAtOnce: 0, twiceAtOnce: [] };
  const underWay = new Set<string>();
  vi.stubGlobal('fetch', async (_: string, { headers }: { headers: { Authorization: string } }) => {
    const { Authorization: who } = headers;
    if (underWay.has(who)) seen.twiceAtOnce.push(who);
    underWay.add(who);
    seen.mostAtOnce = Math.max(seen.mostAtOnce, underWay.size);
    seen.checks.set(who, (seen.checks.get(who) ?? 0) + 1);
    vi.setSystemTime(Date.now() + 500);
    await new Promise((resolve) => setTimeout(resolve, 0));
    underWay.delete(who);
    return Response.json({ data: { record_type: 'balance' } });
  });
  return seen;
}

export interface Run {
  /** By the simulated clock. */
  seconds: number;
  statements: number;
  calls: number;
  invocation: Invocation;
}

/** Runs the cron every two minutes, until a run checks nothing. */
export async function runUntilIdle(seen: Seen, others: Partial<Bindings> = {}): Promise<Run[]> {
  const runs: Run[] = [];
  for (;;) {
    const began = Date.now();
    const checked = seen.checks.size;
    const { bindings, invocation } = notedBindings();
    await cron({ ...bindings, ...others });
    runs.push({
      seconds: (Date.now() - began) / 1000,
      statements: invocation.calls.reduce((sum, { statements }) => sum + statements.length, 0),
      calls: invocation.calls.length,
      invocation,
    });
    if (seen.checks.size === checked) return runs;
    vi.setSystemTime(Math.max(Date.now(), began + 120_000));
  }
}
