import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { expect, it, vi } from 'vitest';
import worker from '../src/worker/index.ts';
import { rows } from './fixtures.ts';

it('the cron gives every chore its turn where one fails, names that one in the log, and fails itself', async () => {
  const error = vi.spyOn(console, 'error').mockImplementation(() => {});
  await env.DB.prepare(
    `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at) VALUES ('v1/org_a/intg_1/due', 'org_a', 0, 0, unixepoch())`,
  ).run();

  const turn = worker.scheduled(createScheduledController(), { ...env, CREDENTIALS_KEKS: 'not-a-ring' });

  await expect(turn).rejects.toThrow('CREDENTIALS_KEKS is not');
  expect(await rows('credential_purges')).toEqual([]);
  expect(error.mock.calls).toEqual([[expect.stringMatching(/"rewrap_failed".*CREDENTIALS_KEKS is not/)]]);
});
