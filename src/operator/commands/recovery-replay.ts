/**
 * `npm run recovery:replay`: run after a restore of D1, it repeats what was deleted, revoked or suspended since the
 * restore point. Then it reconciles rows and ciphertext.
 */
import { open } from 'node:fs/promises';
import { resolve } from 'node:path';
import * as z from 'zod';
import { parseJson } from '../../worker/core/json.ts';
import { actorTypes, auditActions, endingActions, eventReasons, purgeStates } from '../../worker/core/vocabulary.ts';
import type { AuditAction } from '../../worker/core/vocabulary.ts';
import { CommandError } from '../command-line/command-error.ts';
import { requireFile } from '../command-line/files.ts';
import { confirmation, filePath, isConfirmed, place, readOptions, withBindings } from '../command-line/options.ts';
import type { OperatorBindings } from '../command-line/platform.ts';
import { readRingFile } from '../command-line/ring-file.ts';
import type { ExportedRow } from '../recovery/export.ts';

const ROWS_PER_PAGE = 100;

const usage = `Usage: npm run recovery:replay -- --file FILE [--yes]
         [--remote --secrets-file FILE | --persist-to DIR [--secrets-file FILE]]
Example: npm run recovery:replay -- --file events.jsonl --remote --secrets-file secrets.json

  --file          the file that npm run recovery:export wrote before the restore
  --yes           does not ask for confirmation
  --remote        works on the deployed database and credentials instead of the local ones
  --secrets-file  the file that the ring of key-encryption keys is deployed from, like secrets.json. With it, credentials that
                  cannot be decrypted are found too, not only those whose ciphertext is gone. --remote needs it
  --persist-to    the directory of the local database and credentials, as for npm run dev
`;

const resolved = filePath.transform((given) => resolve(given));

const schema = z
  .strictObject({ file: resolved, 'secrets-file': resolved.optional(), ...place, ...confirmation })
  .refine((given) => !given.remote || given['secrets-file'] !== undefined, {
    path: ['secrets-file'],
    message: 'is needed with --remote',
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
  sequence: z.int(),
  // Older exports do not have these columns.
  actor_type: z.enum(actorTypes).nullable().default(null),
  actor_id: z.string().nullable().default(null),
  actor_name: z.string().nullable().default(null),
  changes: z.string().nullable().default(null),
  reason: z.enum(eventReasons).nullable().default(null),
});

const purge = z.strictObject({
  kv_key: z.string(),
  organization_id: z.string(),
  due_at: z.int(),
  attempts: z.int(),
  first_due_at: z.int(),
  state: z.enum(purgeStates),
  kek_id: z.string().nullable(),
});

const assignment = z.strictObject({
  organization_id: z.string(),
  phone_number_id: z.string(),
  integration_id: z.string().nullable(),
});

const retiredKek = z.strictObject({
  kek_id: z.string(),
  check_value: z.string(),
  created_at: z.int(),
  retired_at: z.int(),
  rewrap_place: z.string().nullable(),
});

const exportedRow = z.union([auditEvent, purge, assignment, retiredKek]);
const endings: readonly AuditAction[] = endingActions;

const { file, yes, 'secrets-file': secretsFile, ...options } = readOptions(usage, schema);
await requireFile(file);
const ring = secretsFile === undefined ? undefined : (await readRingFile(secretsFile)).ring;
const { readKeks } = await import('../../worker/credentials/data-keys.ts');
const { reconcile } = await import('../recovery/reconcile.ts');
const { replay } = await import('../recovery/replay.ts');
process.exitCode = await withBindings(options, async (env) => {
  if (!(await isConfirmed(await preview(env), yes))) return 1;
  await recover(env);
  return 0;
});

/** Reads the whole file, so that a damaged one is refused before anything is done. */
async function preview({ DB }: OperatorBindings): Promise<string> {
  const counts = new Map<string, number>();
  let events = 0;
  for await (const page of readFile()) {
    for (const row of page) {
      if (!('event_id' in row)) continue;
      events += 1;
      if (endings.includes(row.action)) counts.set(row.action, (counts.get(row.action) ?? 0) + 1);
    }
  }
  const ended = [...counts].map(([action, count]) => `  ${count} × ${action}`);
  const { inUse } = await readKeks(DB, ring?.current ?? '');
  const lacking = ring ? inUse.filter((kek_id) => !Object.hasOwn(ring.keys, kek_id)) : [];
  return `In the ${options.remote ? 'deployed' : 'local'} D1:
puts back missing audit events, of the ${events} in ${file}, and repeats these actions where they were undone:
${ended.length > 0 ? ended.join('\n') : '  none'}
Then marks integrations that have lost their credentials as credentials_missing. Ciphertext that no row names will be removed in 31 days.${lacking.length > 0 ? `\nThe ring has no ${lacking.join(', ')}: all credentials under it count as lost.` : ''}`;
}

async function recover({ DB, CREDENTIALS }: OperatorBindings): Promise<void> {
  const replayed = await replay(DB, readFile, (rows) => console.log(`${rows} rows of ${file} read`));
  const count = (name: keyof typeof replayed) => replayed[name].length;
  console.log(
    `${count('events_put_back')} audit events put back, ${count('integrations_deleted') + count('phone_numbers_deleted') + count('webhook_endpoints_deleted')} deleted again, ` +
      `${count('keys_revoked')} keys revoked again, ${count('organizations_changed')} organizations changed again, ` +
      `${count('phone_numbers_reassigned')} phone numbers reassigned again, ${count('organizations_put_back')} organizations put back`,
  );
  const { credentials_missing, sip_numbers_missing, orphans } = await reconcile(
    { DB, CREDENTIALS, CREDENTIALS_KEKS: ring && JSON.stringify(ring) },
    ({ kv_keys, data_keys }) => console.log(`${kv_keys} KV keys and ${data_keys} data keys checked`),
  );
  console.log(`${orphans.length} ciphertexts that no row names are in the outbox`);
  report(
    'Integrations that were deleted, but are kept without credentials because phone numbers use them. Reassign the numbers, then replay again',
    replayed.integrations_kept,
  );
  report(
    'Deleted after the restore by late tries of calls that had been refused before. Their audit events say so',
    replayed.deleted_late,
  );
  report(
    'API keys that were rotated, but whose successors are lost. They still work. Rotate them again',
    replayed.keys_to_rotate,
  );
  report(
    'Webhook endpoints whose secret was rotated, but whose new one is lost. They sign with the one of before. Rotate it again',
    replayed.webhook_secrets_to_rotate,
  );
  report(
    'Organizations that are newer than the restore point. They are back as starter, with only their audit events. keys:create sets the tier and makes a key',
    replayed.organizations_without_keys,
  );
  report(
    'Integrations that have lost their credentials (credentials_missing). Send the credentials again by PUT',
    credentials_missing,
  );
  report(
    'SIP numbers that have lost their credentials. Give them new ones with a PUT of sip_password and inbound_pin',
    sip_numbers_missing,
  );
}

function report(what: string, ids: string[]): void {
  const each = [...new Set(ids)];
  if (each.length > 0) console.log(`${what}\n${each.map((id) => `  ${id}`).join('\n')}`);
}

async function* readFile(): AsyncGenerator<ExportedRow[], void> {
  const input = await open(file);
  let page: ExportedRow[] = [];
  let number = 0;
  for await (const line of input.readLines()) {
    number += 1;
    const { data } = exportedRow.safeParse(parseJson(line));
    if (!data) throw new CommandError(`${file}, line ${number}, is not what recovery:export writes`);
    page.push(data);
    if (page.length < ROWS_PER_PAGE) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}
