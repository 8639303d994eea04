/**
 * Run after a restore of D1: repeats what had ended since the restore point, from what was exported before (export.ts).
 */
import { and, eq, gt, inArray, isNotNull, isNull, lt, lte, max, ne, not, or, sql } from 'drizzle-orm';
import type { SQLWrapper } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import { BATCH_ID_LENGTH, newEventId } from '../../worker/core/ids.ts';
import { RESTORABLE_SECONDS, SECONDS_A_DAY } from '../../worker/core/time.ts';
import type { AuditAction } from '../../worker/core/vocabulary.ts';
import { credentialsKeyOf } from '../../worker/credentials/kv-key.ts';
import { owedRow } from '../../worker/credentials/outbox.ts';
import { batch } from '../../worker/d1/batch.ts';
import { existsIn, rowValues } from '../../worker/d1/columns.ts';
import { query } from '../../worker/d1/query.ts';
import type { BoundQuery, Builder, CompiledQuery, Placeholders } from '../../worker/d1/query.ts';
import {
  api_keys,
  audit_events,
  credential_purges,
  integrations,
  key_encryption_keys,
  organizations,
  phone_numbers,
  webhook_endpoints,
  webhook_secrets,
} from '../../worker/d1/schema.ts';
import { eventIdBesideOf, isDecision, isOfBatch, isOfTarget } from '../../worker/decision/event.ts';
import { isOrganization } from '../../worker/organizations/organization.ts';
import { databaseNow } from '../clock.ts';
import type { AssignmentRow, AuditEventRow, ExportedRow, PurgeRow, RetiredKekRow } from './export.ts';
import { isApiKey, isIntegration, isPhoneNumber, isWebhookEndpoint } from './subject.ts';
import type { CredentialsTable } from './subject.ts';

/** Each row takes up to seven statements. */
const ROWS_PER_BATCH = 100;

interface TargetParameters extends AuditEventRow {
  now: number;
}

type Target = Placeholders<TargetParameters>;
/** Returns what it changed or found. */
type Step<Parameters = TargetParameters> = CompiledQuery<Parameters, { id: string }[]>;

interface UpdatedParameters extends AuditEventRow {
  /** The last sequence among the organization's exported events. */
  last_sequence: number;
}

/** An organization's exported events: the time of the first, and the time and sequence of the last. */
interface Trail {
  organization_id: string;
  first_event_at: number;
  last_event_at: number;
  last_sequence: number;
}

/** What a step tells of each row that it has changed. */
const idOf = (column: SQLWrapper) => sql<string>`${column}`.as('id');

/**
 * Creates an organization that is newer than the restore point again. Its events need its row, which counts them, and a
 * suspension or offboarding that they record must hold. It has nothing else.
 */
const putOrganizationBack: Step<Trail> = query((db, parameters: Placeholders<Trail>) =>
  db
    .insert(organizations)
    .values({
      organization_id: parameters.organization_id,
      tier: 'starter',
      created_at: parameters.first_event_at,
    })
    .onConflictDoNothing()
    .returning({ id: idOf(organizations.organization_id) }),
);

/**
 * Events that were recorded after the restore, by late tries for example, have sequences that continue from the restore
 * point. They are moved after the exported events, as their times are.
 */
const moveBehind: Step<Trail> = query((db, parameters: Placeholders<Trail>) =>
  db
    .update(audit_events)
    .set({ sequence: sql`${audit_events.sequence} + ${parameters.last_sequence}` })
    .where(
      and(
        eq(audit_events.organization_id, parameters.organization_id),
        gt(audit_events.created_at, parameters.last_event_at),
        lte(audit_events.sequence, parameters.last_sequence),
      ),
    )
    .returning({ id: idOf(audit_events.event_id) }),
);

/**
 * Lets new events follow all of these, with one sequence between them: so none of these is the newest of its trail, and a
 * late try of its batch does nothing. For the same reason it raises `change_count` above anything that a command saw before
 * the restore.
 */
const continueTrail: Step<Trail> = query((db, parameters: Placeholders<Trail>) => {
  const { organization_id, last_event_at, last_sequence } = parameters;
  const moved = db
    .select({ sequence: max(audit_events.sequence) })
    .from(audit_events)
    .where(and(eq(audit_events.organization_id, organization_id), gt(audit_events.created_at, last_event_at)));
  return db
    .update(organizations)
    .set({
      last_sequence: sql`max(${organizations.last_sequence}, ${last_sequence} + 1, coalesce(${moved}, 0))`,
      last_event_at: sql`max(${organizations.last_event_at}, ${last_event_at})`,
      change_count: sql`max(${organizations.change_count}, ${last_sequence} + 1)`,
    })
    .where(isOrganization(parameters))
    .returning({ id: idOf(organizations.organization_id) });
});

/**
 * For the same reason, gives a row that was updated a revision that no event has seen. (Each update has an event, so
 * the last sequence is at least as high as any revision.)
 */
const moveRevision = (
  table: typeof integrations | typeof phone_numbers | typeof api_keys | typeof webhook_endpoints,
  isTarget: typeof isIntegration,
) =>
  query((db, parameters: Placeholders<UpdatedParameters>) =>
    db
      .update(table)
      .set({ revision: sql`${parameters.last_sequence} + 1` })
      .where(and(isTarget(parameters), lte(table.revision, parameters.last_sequence)))
      .returning({ id: idOf(parameters.target_id) }),
  );

const moveEndpoint = moveRevision(webhook_endpoints, isWebhookEndpoint);

const movedRevisions: Partial<Record<AuditAction, Step<UpdatedParameters>>> = {
  'integration.updated': moveRevision(integrations, isIntegration),
  'integration.credentials_missing': moveRevision(integrations, isIntegration),
  'phone_number.updated': moveRevision(phone_numbers, isPhoneNumber),
  'api_key.updated': moveRevision(api_keys, isApiKey),
  'webhook_endpoint.updated': moveEndpoint,
  'webhook_endpoint.tested': moveEndpoint,
  'webhook_endpoint.secret_rotated': moveEndpoint,
  'webhook_endpoint.replayed': moveEndpoint,
  'webhook_endpoint.disabled': moveEndpoint,
};

/** The event has the id of this one, and is about something else: a batch of many targets had another first one then. */
const isOfAnother = (parameters: Placeholders<AuditEventRow>) => ne(audit_events.target_id, parameters.target_id);

const deletions: AuditAction[] = ['integration.deleted', 'phone_number.deleted'];

/**
 * A late try after the restore may have had another first target. Its event gets the id that it would have behind a first
 * one.
 */
const renameOfAnother: Step<AuditEventRow> = query((db, parameters: Placeholders<AuditEventRow>) => {
  const taken = alias(audit_events, 'taken');
  const event_id = eventIdBesideOf(audit_events.event_id, audit_events.target_id);
  const isTaken = and(eq(taken.organization_id, parameters.organization_id), eq(taken.event_id, event_id));
  return db
    .update(audit_events)
    .set({ event_id })
    .where(and(isDecision(parameters), isOfAnother(parameters), not(existsIn(db, taken, isTaken))))
    .returning({ id: idOf(audit_events.target_id) });
});

/**
 * A delete that was refused before the restore may have had a late try, which then succeeded. The client was told of
 * the refusal, so its event is put back, and the event of the deletion gets another id.
 */
const renameLateDeletion: Step<AuditEventRow & { new_event_id: string }> = query(
  (db, parameters: Placeholders<AuditEventRow & { new_event_id: string }>) =>
    db
      .update(audit_events)
      .set({ event_id: sql`${parameters.new_event_id}` })
      .where(
        and(
          isDecision(parameters),
          inArray(audit_events.action, deletions),
          ne(audit_events.action, parameters.action),
        ),
      )
      .returning({ id: idOf(audit_events.target_id) }),
);

/**
 * A late try after the restore may have recorded the call again, with another decision. What the client was told
 * counts.
 */
const removeOther: Step<AuditEventRow> = query((db, parameters: Placeholders<AuditEventRow>) =>
  db
    .delete(audit_events)
    .where(
      and(
        isDecision(parameters),
        or(
          ne(audit_events.sequence, parameters.sequence),
          ne(audit_events.action, parameters.action),
          isOfAnother(parameters),
        ),
      ),
    )
    .returning({ id: idOf(audit_events.event_id) }),
);

/** Finds what a batch has deleted. */
const findDeleted: Step<BatchOfEvents> = query((db, parameters: Placeholders<BatchOfEvents>) =>
  db
    .select({ id: idOf(audit_events.target_id) })
    .from(audit_events)
    .where(and(isOfBatch(parameters), inArray(sql`+${audit_events.action}`, deletions))),
);

/** The batch of an exported event. */
type BatchOfEvents = Pick<AuditEventRow, 'organization_id' | 'event_id' | 'request_id'>;

/**
 * Before an event is put back: webhook endpoints that have passed its place, with events of after the restore, go back. It
 * may not have been sent yet.
 */
const moveCursorsBack: Step<AuditEventRow> = query((db, parameters: Placeholders<AuditEventRow>) =>
  db
    .update(webhook_endpoints)
    .set({
      cursor_at: sql`${parameters.created_at}`,
      cursor_sequence: sql`${parameters.sequence} - 1`,
      claim: sql`NULL`,
    })
    .where(
      and(
        eq(webhook_endpoints.organization_id, parameters.organization_id),
        sql`(${webhook_endpoints.cursor_at}, ${webhook_endpoints.cursor_sequence}) >= (${parameters.created_at}, ${parameters.sequence})`,
        not(existsIn(db, audit_events, isDecision(parameters))),
      ),
    )
    .returning({ id: idOf(webhook_endpoints.endpoint_id) }),
);

const putBack: Step<AuditEventRow> = query((db, parameters: Placeholders<AuditEventRow>) =>
  db
    .insert(audit_events)
    .values(rowValues(audit_events, parameters))
    .onConflictDoNothing()
    .returning({ id: idOf(audit_events.event_id) }),
);

/**
 * Rows that the restore brought back to the outbox, or that late tries have added since, may be of credentials that
 * became live after the restore point. They must wait until the restore can no longer be undone. (A row that waits
 * nearly as long is left alone.)
 */
const postponePurges: Step<{ until: number }> = query((db, { until }: Placeholders<{ until: number }>) =>
  db
    .update(credential_purges)
    .set({ due_at: sql`${until}`, first_due_at: sql`${until}` })
    .where(lt(credential_purges.due_at, sql`${until} - ${sql.raw(String(SECONDS_A_DAY))}`))
    .returning({ id: idOf(credential_purges.kv_key) }),
);

/** What was owed before the restore is an exception: nothing can make it live again, so its removal continues. */
const putPurgeBack: Step<PurgeRow> = query((db, parameters: Placeholders<PurgeRow>) =>
  db
    .insert(credential_purges)
    .values(rowValues(credential_purges, parameters))
    .onConflictDoUpdate({
      target: credential_purges.kv_key,
      set: {
        due_at: sql`excluded.due_at`,
        attempts: sql`max(${credential_purges.attempts}, excluded.attempts)`,
        first_due_at: sql`excluded.first_due_at`,
        state: 'owed',
      },
    })
    .returning({ id: idOf(credential_purges.kv_key) }),
);

/**
 * If a phone number is back at an integration that must be deleted again, it moves to the integration that it had at
 * the export, if that still exists. So it does not hold up the deletion.
 */
const reassign: Step<AssignmentRow> = query((db, parameters: Placeholders<AssignmentRow>) => {
  const { organization_id, phone_number_id, integration_id } = parameters;
  const home = alias(integrations, 'home');
  const isHome = and(
    eq(home.organization_id, organization_id),
    eq(home.integration_id, integration_id),
    eq(home.provider, phone_numbers.provider),
  );
  const isDeletion = isOfTarget(audit_events, { organization_id, target_id: phone_numbers.integration_id }, [
    'integration.deleted',
  ]);
  return db
    .update(phone_numbers)
    .set({ integration_id: sql`${integration_id}` })
    .where(
      and(
        eq(phone_numbers.phone_number_id, phone_number_id),
        eq(phone_numbers.organization_id, organization_id),
        ne(phone_numbers.integration_id, integration_id),
        existsIn(db, audit_events, isDeletion),
        existsIn(db, home, isHome),
      ),
    )
    .returning({ id: idOf(phone_numbers.phone_number_id) });
});

/** Retires a KEK again, even if the restore brought back rows that it wraps: nothing new may be wrapped with it. */
const retireAgain: Step<RetiredKekRow> = query((db, parameters: Placeholders<RetiredKekRow>) =>
  db
    .insert(key_encryption_keys)
    .values(rowValues(key_encryption_keys, parameters))
    .onConflictDoUpdate({ target: key_encryption_keys.kek_id, set: { retired_at: sql`excluded.retired_at` } })
    .returning({ id: idOf(key_encryption_keys.kek_id) }),
);

const isUsed = (db: Builder, parameters: Target) =>
  existsIn(
    db,
    phone_numbers,
    and(
      eq(phone_numbers.organization_id, parameters.organization_id),
      eq(phone_numbers.integration_id, parameters.target_id),
    ),
  );

/**
 * Enqueues the version that the row has now. The event may name a later version, which the restored row does not have.
 */
const enqueueFrom = (table: CredentialsTable, isSubject: typeof isIntegration): Step =>
  query((db, parameters: Target) =>
    db
      .insert(credential_purges)
      .select(
        db
          .select(
            owedRow({
              kv_key: credentialsKeyOf(table.organization_id, parameters.target_id, table.credentials_version),
              organization_id: sql`${table.organization_id}`,
              due_at: sql`${parameters.now}`,
            }),
          )
          .from(table)
          .where(and(isSubject(parameters), isNotNull(table.credentials_version))),
      )
      .onConflictDoNothing()
      .returning({ id: idOf(credential_purges.kv_key) }),
  );

/**
 * Also if phone numbers still use the integration: its credentials must not come back. The reconciliation marks them as
 * missing.
 */
const enqueueIntegration = enqueueFrom(integrations, isIntegration);
const enqueuePhoneNumber = enqueueFrom(phone_numbers, isPhoneNumber);

const deleteIntegration: Step = query((db, parameters: Target) =>
  db
    .delete(integrations)
    .where(and(isIntegration(parameters), not(isUsed(db, parameters))))
    .returning({ id: idOf(integrations.integration_id) }),
);

const findIntegration: Step = query((db, parameters: Target) =>
  db
    .select({ id: idOf(integrations.integration_id) })
    .from(integrations)
    .where(isIntegration(parameters)),
);

const deletePhoneNumber: Step = query((db, parameters: Target) =>
  db
    .delete(phone_numbers)
    .where(isPhoneNumber(parameters))
    .returning({ id: idOf(phone_numbers.phone_number_id) }),
);

const revokeKey: Step = query((db, parameters: Target) =>
  db
    .update(api_keys)
    .set({ status: 'revoked' })
    .where(and(isApiKey(parameters), eq(api_keys.status, 'active')))
    .returning({ id: idOf(api_keys.key_id) }),
);

/** With its secrets. */
const deleteWebhookEndpoint: Step = query((db, parameters: Target) =>
  db
    .delete(webhook_endpoints)
    .where(isWebhookEndpoint(parameters))
    .returning({ id: idOf(webhook_endpoints.endpoint_id) }),
);

/** A secret is made before its rotation is recorded, by less than this. */
const SECRET_MADE_SECONDS = sql.raw('60');

/** Finds the endpoint of a rotation whose new secret is lost: it signs with one that its receiver may have forgotten. */
const findSecretOfBefore: Step = query((db, parameters: Target) =>
  db
    .select({ id: idOf(webhook_secrets.endpoint_id) })
    .from(webhook_secrets)
    .where(
      and(
        eq(webhook_secrets.organization_id, parameters.organization_id),
        eq(webhook_secrets.endpoint_id, parameters.target_id),
        isNull(webhook_secrets.ends_at),
        sql`${webhook_secrets.created_at} < ${parameters.created_at} - ${SECRET_MADE_SECONDS}`,
      ),
    ),
);

/** Selects the events that come after this one. */
const isLater = ({ created_at, sequence }: Pick<Target, 'created_at' | 'sequence'>) =>
  sql`(${audit_events.created_at}, ${audit_events.sequence}) > (${created_at}, ${sequence})`;

const successor = alias(api_keys, 'successor');

/**
 * Finds the old key of a rotation whose successor is lost. It stays as it is, because it may be the only key that its
 * user has, and revoking it would lock the client out. It is found by rows only, not by whether the event was missing,
 * so that every replay reports it until it is rotated or revoked.
 */
const findRotatedInVain: Step = query((db, parameters: Target) => {
  const { organization_id, target_id, now } = parameters;
  const isSuccessor = and(
    eq(successor.organization_id, organization_id),
    inArray(
      successor.key_id,
      db
        .select({ target_id: audit_events.target_id })
        .from(audit_events)
        .where(and(isOfBatch(parameters), eq(sql`+${audit_events.action}`, 'api_key.created'))),
    ),
  );
  const hasEndedSince = and(
    isOfTarget(audit_events, parameters, ['api_key.rotated', 'api_key.revoked']),
    isLater(parameters),
  );
  return db
    .select({ id: idOf(api_keys.key_id) })
    .from(api_keys)
    .where(
      and(
        eq(api_keys.key_id, target_id),
        eq(api_keys.organization_id, organization_id),
        eq(api_keys.status, 'active'),
        or(isNull(api_keys.expires_at), gt(api_keys.expires_at, now)),
        not(existsIn(db, successor, isSuccessor)),
        not(existsIn(db, audit_events, hasEndedSince)),
      ),
    );
});

const statusActions = [
  'organization.suspended',
  'organization.resumed',
  'organization.offboarded',
] as const satisfies AuditAction[];

/**
 * An offboarded organization stays offboarded. Otherwise the last event decides, even one from after the restore, which
 * a second replay must not undo.
 */
const setStatus = (status: 'active' | 'suspended' | 'offboarded'): Step =>
  query((db, { organization_id, created_at, sequence }: Target) => {
    const isOfLaterStatus = and(
      isOfTarget(audit_events, { organization_id, target_id: organization_id }, statusActions),
      isLater({ created_at, sequence }),
    );
    return (
      db
        .update(organizations)
        // The cron deletes what the restore has brought back of it, or what was not deleted yet.
        .set(status === 'offboarded' ? { status, is_offboarding: sql`1` } : { status })
        .where(
          and(
            eq(organizations.organization_id, organization_id),
            ne(organizations.status, status),
            ne(organizations.status, 'offboarded'),
            status === 'offboarded' ? undefined : not(existsIn(db, audit_events, isOfLaterStatus)),
          ),
        )
        .returning({ id: idOf(organizations.organization_id) })
    );
  });

/** Finds organizations without keys, among those that were exported. Nobody can use them. */
const findWithoutKeys: Step<{ organization_ids: string }> = query(
  (db, { organization_ids }: Placeholders<{ organization_ids: string }>) =>
    db
      .select({ id: idOf(organizations.organization_id) })
      .from(organizations)
      .where(
        and(
          inArray(organizations.organization_id, sql`(SELECT value FROM json_each(${organization_ids}))`),
          ne(organizations.status, 'offboarded'),
          not(existsIn(db, api_keys, eq(api_keys.organization_id, organizations.organization_id))),
        ),
      ),
);

/**
 * The ids of what a replay has done, and of what people must do: `integrations_kept`, because phone numbers still use
 * them; `keys_to_rotate`, because their successors are lost; endpoints with `webhook_secrets_to_rotate`, for the same reason;
 * and `organizations_without_keys`.
 */
export interface Replayed {
  organizations_put_back: string[];
  events_put_back: string[];
  ciphertexts_enqueued: string[];
  /** Deleted after the restore by late tries of calls that had been refused before it, or had not found it. */
  deleted_late: string[];
  phone_numbers_reassigned: string[];
  integrations_deleted: string[];
  integrations_kept: string[];
  phone_numbers_deleted: string[];
  keys_revoked: string[];
  keys_to_rotate: string[];
  webhook_endpoints_deleted: string[];
  webhook_secrets_to_rotate: string[];
  organizations_changed: string[];
  organizations_without_keys: string[];
}
type Outcome = keyof Replayed;

type Steps = (readonly [Outcome, Step])[];

const deletionOfNumber: Steps = [
  ['ciphertexts_enqueued', enqueuePhoneNumber],
  ['phone_numbers_deleted', deletePhoneNumber],
];

/** How to repeat an action in the same transaction that puts its event back. */
const stepsAtOnce: Partial<Record<AuditAction, Steps>> = {
  'phone_number.deleted': deletionOfNumber,
  'phone_number.released': deletionOfNumber,
  'api_key.revoked': [['keys_revoked', revokeKey]],
  'webhook_endpoint.deleted': [['webhook_endpoints_deleted', deleteWebhookEndpoint]],
};

/** Steps that must run after all events are back and phone numbers have been deleted or moved. */
const stepsAfterwards: Partial<Record<AuditAction, Steps>> = {
  'integration.deleted': [
    ['ciphertexts_enqueued', enqueueIntegration],
    ['integrations_deleted', deleteIntegration],
    ['integrations_kept', findIntegration],
  ],
  'api_key.rotated': [['keys_to_rotate', findRotatedInVain]],
  'webhook_endpoint.secret_rotated': [['webhook_secrets_to_rotate', findSecretOfBefore]],
  'organization.suspended': [['organizations_changed', setStatus('suspended')]],
  'organization.resumed': [['organizations_changed', setStatus('active')]],
  'organization.offboarded': [['organizations_changed', setStatus('offboarded')]],
};

type BoundSteps = (readonly [Outcome | undefined, BoundQuery<{ id: string }[]>])[];

/** Reads the export from its beginning, in pages of at most 100. It is called several times. */
export type ReadExported = () => AsyncIterable<ExportedRow[]>;

const isEventRow = (row: ExportedRow): row is AuditEventRow => 'event_id' in row;
const isPurgeRow = (row: ExportedRow): row is PurgeRow => 'kv_key' in row;
const isKekRow = (row: ExportedRow): row is RetiredKekRow => 'check_value' in row;
const isAssignmentRow = (row: ExportedRow): row is AssignmentRow => 'phone_number_id' in row;

/**
 * Puts audit events and outbox rows back, and repeats what the events say ended, in transactions of at most 100 events.
 * If a run is interrupted, another one finishes it. A second run changes nothing, and reports again all that people
 * must do.
 *
 * @param onProgress called with the number of rows that have been read
 * @throws DomainError `temporarily_unavailable`
 */
export async function replay(
  database: D1Database,
  read: ReadExported,
  onProgress: (rows: number) => void = () => {},
): Promise<Replayed> {
  const replayed: Replayed = {
    organizations_put_back: [],
    events_put_back: [],
    ciphertexts_enqueued: [],
    deleted_late: [],
    phone_numbers_reassigned: [],
    integrations_deleted: [],
    integrations_kept: [],
    phone_numbers_deleted: [],
    keys_revoked: [],
    keys_to_rotate: [],
    webhook_endpoints_deleted: [],
    webhook_secrets_to_rotate: [],
    organizations_changed: [],
    organizations_without_keys: [],
  };
  const now = await databaseNow(database);
  const carryOut = async (steps: BoundSteps) => {
    if (steps.length === 0) return;
    const results = await batch(
      database,
      steps.map(([, step]) => step),
    );
    steps.forEach(([outcome], index) => {
      if (outcome) replayed[outcome].push(...(results[index] ?? []).map(({ id }) => id));
    });
  };
  const stepsOf = (steps: typeof stepsAtOnce, events: AuditEventRow[]): BoundSteps =>
    events.flatMap((event) =>
      (steps[event.action] ?? []).map(([outcome, step]) => [outcome, step.bind({ ...event, now })] as const),
    );

  await carryOut([[undefined, postponePurges.bind({ until: now + RESTORABLE_SECONDS })]]);
  const trails = await readTrails(read);
  for (const some of chunks([...trails.values()])) {
    await carryOut(
      some.flatMap((trail) => [
        ['organizations_put_back', putOrganizationBack.bind(trail)],
        [undefined, moveBehind.bind(trail)],
        [undefined, continueTrail.bind(trail)],
      ]),
    );
  }
  let rows = 0;
  for await (const page of read()) {
    const events = page.filter(isEventRow);
    await carryOut([
      ...events.flatMap((event): BoundSteps => [
        [undefined, renameOfAnother.bind(event)],
        ['deleted_late', renameLateDeletion.bind({ ...event, new_event_id: newEventId() })],
        [undefined, removeOther.bind(event)],
        [undefined, moveCursorsBack.bind(event)],
        ['events_put_back', putBack.bind(event)],
      ]),
      ...events.flatMap((event): BoundSteps => {
        const moved = movedRevisions[event.action];
        const { last_sequence = 0 } = trails.get(event.organization_id) ?? {};
        return moved ? [[undefined, moved.bind({ ...event, last_sequence })]] : [];
      }),
      ...page.filter(isPurgeRow).map((purge) => [undefined, putPurgeBack.bind(purge)] as const),
      ...page.filter(isKekRow).map((kek) => [undefined, retireAgain.bind(kek)] as const),
      ...stepsOf(stepsAtOnce, events),
    ]);
    onProgress((rows += page.length));
  }
  for await (const page of read()) {
    await carryOut(
      page.filter(isAssignmentRow).map((row) => ['phone_numbers_reassigned', reassign.bind(row)] as const),
    );
  }
  for await (const page of read()) await carryOut(stepsOf(stepsAfterwards, page.filter(isEventRow)));
  replayed.deleted_late.push(...(await findDeletedBeside(database, read)));
  for (const some of chunks([...trails.keys()])) {
    await carryOut([['organizations_without_keys', findWithoutKeys.bind({ organization_ids: JSON.stringify(some) })]]);
  }
  return replayed;
}

/** What batches have deleted beside what the export says, by late tries after the restore. */
async function findDeletedBeside(database: D1Database, read: ReadExported): Promise<string[]> {
  const batches = new Map<string, { any: BatchOfEvents; exported: Set<string> }>();
  for await (const page of read()) {
    for (const { organization_id, event_id, request_id, target_id } of page.filter(isEventRow)) {
      const key = [organization_id, event_id.slice(0, BATCH_ID_LENGTH), request_id].join(' ');
      const known = batches.get(key) ?? { any: { organization_id, event_id, request_id }, exported: new Set() };
      batches.set(key, { ...known, exported: known.exported.add(target_id) });
    }
  }
  const found: string[] = [];
  for (const some of chunks([...batches.values()])) {
    const deleted = await batch(
      database,
      some.map(({ any }) => findDeleted.bind(any)),
    );
    some.forEach(({ exported }, index) => {
      for (const { id } of deleted[index] ?? []) if (!exported.has(id)) found.push(id);
    });
  }
  return found;
}

async function readTrails(read: ReadExported): Promise<Map<string, Trail>> {
  const trails = new Map<string, Trail>();
  for await (const page of read()) {
    for (const { organization_id, sequence: last_sequence, created_at: last_event_at } of page.filter(isEventRow)) {
      const first_event_at = trails.get(organization_id)?.first_event_at ?? last_event_at;
      trails.set(organization_id, { organization_id, first_event_at, last_event_at, last_sequence });
    }
  }
  return trails;
}

function chunks<Item>(items: Item[]): Item[][] {
  const count = Math.ceil(items.length / ROWS_PER_BATCH);
  return Array.from({ length: count }, (_, index) => items.slice(index * ROWS_PER_BATCH, (index + 1) * ROWS_PER_BATCH));
}
