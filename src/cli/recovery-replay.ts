/** `npm run recovery:replay`: after a restore of D1, does again what had ended, and makes rows and ciphertext agree. */
import { open } from 'node:fs/promises';
import { resolve } from 'node:path';
import * as z from 'zod';
import type { AuditEventRow } from '../recovery/export.ts';
import { reconcile } from '../recovery/reconcile.ts';
import { isReplayed, replayEvents } from '../recovery/replay.ts';
import { auditActions } from '../schema.ts';
import type { OperatorBindings } from './platform.ts';
import { confirmation, isConfirmed, place, readOptions, withBindings } from './options.ts';

const EVENTS_PER_BATCH = 100;

const usage = `Usage: npm run recovery:replay -- --file FILE [--yes] [--remote | --persist-to DIR]

  --file        what npm run recovery:export wrote before the restore
  --yes         does not ask
  --remote      the deployed database and credentials instead of the local ones
  --persist-to  where the local ones are, as for npm run dev
`;

const schema = z.strictObject({
  file: z
    .string()
    .min(1)
    .transform((path) => resolve(path)),
  ...place,
  ...confirmation,
});

const auditEvent = z.strictObject({
  organization_id: z.string(),
  event_id: z.string(),
  action: z.enum(auditActions),
  target_id: z.string(),
  actor_key_id: z.string().nullable(),
  request_id: z.string(),
  state: z.string(),
  created_at: z.int(),
});

const { file, yes, ...options } = readOptions(usage, schema);
if (await isConfirmed(await preview(), yes)) await withBindings(options, recover);
else process.exitCode = 1;

/** Reads the whole file: one that is damaged is refused before anything is done. */
async function preview(): Promise<string> {
  const counts = new Map<string, number>();
  let events = 0;
  for await (const page of pagesOfFile()) {
    events += page.length;
    for (const { action } of page) if (isReplayed(action)) counts.set(action, (counts.get(action) ?? 0) + 1);
  }
  const replayed = [...counts].map(([action, count]) => `  ${count} × ${action}`);
  return `In the ${options.remote ? 'deployed' : 'local'} D1:
puts back ${events} audit events of ${file}, as far as they are missing, and does again what ended:
${replayed.length > 0 ? replayed.join('\n') : '  nothing'}
Then marks the integrations whose ciphertext is gone as credentials_missing, and has ciphertext removed that nothing names.`;
}

async function recover(env: OperatorBindings): Promise<void> {
  const kept: string[] = [];
  const toRotate = new Set<string>();
  let events = 0;
  for await (const page of pagesOfFile()) {
    const replayed = await replayEvents(env.DB, page);
    kept.push(...replayed.integrations_kept);
    for (const key_id of replayed.keys_to_rotate) toRotate.add(key_id);
    events += page.length;
    const { length: deleted } = [...replayed.integrations_deleted, ...replayed.phone_numbers_deleted];
    console.log(
      `${events} audit events: ${replayed.events_put_back.length} more put back, ${deleted} deleted again, ${replayed.keys_revoked.length} keys revoked again, ${replayed.organizations_changed.length} organizations changed again`,
    );
  }
  const { credentials_missing, sip_numbers_missing, orphans } = await reconcile(env, ({ kv_keys, data_keys }) =>
    console.log(`${kv_keys} KV keys and ${data_keys} data keys looked at`),
  );
  console.log(`${orphans.length} ciphertexts that nothing names are in the outbox`);
  report('Deleted before, and kept because phone numbers use them: reassign these, then replay again', kept);
  report('API keys rotated since, whose successors are lost: they live on as they are, rotate them again', [
    ...toRotate,
  ]);
  report('Integrations that have lost their credentials (credentials_missing): PUT them anew', credentials_missing);
  report('SIP numbers that have lost their credentials: delete and import them anew', sip_numbers_missing);
}

function report(what: string, ids: string[]): void {
  if (ids.length > 0) console.log(`${what}\n${ids.map((id) => `  ${id}`).join('\n')}`);
}

async function* pagesOfFile(): AsyncGenerator<AuditEventRow[], void> {
  const input = await open(file);
  let page: AuditEventRow[] = [];
  for await (const line of input.readLines()) {
    page.push(auditEvent.parse(JSON.parse(line)));
    if (page.length < EVENTS_PER_BATCH) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}
