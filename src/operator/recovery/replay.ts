/**
 * After a restore of D1: what had ended since the restore point ends again, by what was exported before (export.ts).
 */
import { and, eq, gt, inArray, isNotNull, isNull, lt, lte, max, ne, not, or, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import { isDecision, isOfCall, isOfTarget } from '../../worker/decision/event.ts';
import { databaseNow } from '../../worker/d1/clock.ts';
import { credentialsKeyOf } from '../../worker/credentials/kv-key.ts';
import { owedRow } from '../../worker/credentials/outbox.ts';
import { newEventId } from '../../worker/core/ids.ts';
import { isOrganization } from '../../worker/organizations/organization.ts';
import { query } from '../../worker/d1/query.ts';
import { batch } from '../../worker/d1/batch.ts';
import { existsIn, rowValues } from '../../worker/d1/columns.ts';
import type { BoundQuery, Builder, CompiledQuery, Placeholders } from '../../worker/d1/query.ts';
import {
  api_keys,
  audit_events,
  credential_purges,
  integrations,
  key_encryption_keys,
  organizations,
  phone_numbers,
} from '../../worker/d1/schema.ts';
import type { AuditAction } from '../../worker/core/vocabulary.ts';
import { RESTORABLE_SECONDS, SECONDS_A_DAY } from '../../worker/core/time.ts';
import type { AssignmentRow, AuditEventRow, ExportedRow, PurgeRow, RetiredKekRow } from './export.ts';
import { isIntegration, isPhoneNumber } from './subject.ts';
import type { CredentialsTable } from './subject.ts';

/** Each of up to six statements. */
const ROWS_PER_BATCH = 100;

interface TargetParameters extends AuditEventRow {
  now: number;
}

type Target = Placeholders<TargetParameters>;
/** Answers what it changed, or found. */
type Step<Parameters = TargetParameters> = CompiledQuery<Parameters, { id: string }[]>;

interface UpdatedParameters extends AuditEventRow {
  /** Of its organization's exported events. */
  last_sequence: number;
}

/** Of an organization's exported events: the time of the first, time and sequence of the last. */
interface Trail {
  organization_id: string;
  first_event_at: number;
  last_event_at: number;
  last_sequence: number;
}

/**
 * An organization that is younger than the restore point is there again, with nothing but its trail: its events are kept,
 * exported and counted by its row, and an end that they tell of must hold.
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
    .returning({ id: organizations.organization_id }),
);

/**
 * What was recorded after the restore, as late tries do, has gone on counting from the restore point: its sequences follow those
 * of the exported events, as its times do.
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
    .returning({ id: audit_events.event_id }),
);

/**
 * What is recorded from now on comes behind all that. The changes of the organization are counted from further on than any command
 * of before the restore has seen: a late try of one finds another organization than it saw.
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
      last_sequence: sql`max(${organizations.last_sequence}, ${last_sequence}, coalesce(${moved}, 0))`,
      last_event_at: sql`max(${organizations.last_event_at}, ${last_event_at})`,
      change_count: sql`max(${organizations.change_count}, ${last_sequence} + 1)`,
    })
    .where(isOrganization(parameters))
    .returning({ id: organizations.organization_id });
});

/**
 * For the same reason, of what an update changed: a revision that no event has seen. (Each update has an event, so that there are
 * more events than revisions.)
 */
const moveRevision = (table: typeof integrations | typeof phone_numbers, isTarget: typeof isIntegration) =>
  query((db, parameters: Placeholders<UpdatedParameters>) =>
    db
      .update(table)
      .set({ revision: sql`${parameters.last_sequence} + 1` })
      .where(and(isTarget(parameters), lte(table.revision, parameters.last_sequence)))
      .returning({ id: sql<string>`${parameters.target_id}` }),
  );

const movedRevisions: Partial<Record<AuditAction, Step<UpdatedParameters>>> = {
  'integration.updated': moveRevision(integrations, isIntegration),
  'integration.credentials_missing': moveRevision(integrations, isIntegration),
  'phone_number.updated': moveRevision(phone_numbers, isPhoneNumber),
};

/**
 * A call that was refused before may have been late, and deleted what nothing held any more: that is told beside the refusal, which
 * was answered.
 */
const renameLateDeletion: Step<AuditEventRow & { new_event_id: string }> = query(
  (db, parameters: Placeholders<AuditEventRow & { new_event_id: string }>) =>
    db
      .update(audit_events)
      .set({ event_id: sql`${parameters.new_event_id}` })
      .where(
        and(
          isDecision(parameters),
          inArray(audit_events.action, ['integration.deleted', 'phone_number.deleted']),
          ne(audit_events.action, parameters.action),
        ),
      )
      .returning({ id: audit_events.target_id }),
);

/** A late try may have recorded the operation anew, and decided otherwise: what was answered counts. */
const removeOther: Step<AuditEventRow> = query((db, parameters: Placeholders<AuditEventRow>) =>
  db
    .delete(audit_events)
    .where(
      and(
        isDecision(parameters),
        or(ne(audit_events.sequence, parameters.sequence), ne(audit_events.action, parameters.action)),
      ),
    )
    .returning({ id: audit_events.event_id }),
);

const putBack: Step<AuditEventRow> = query((db, parameters: Placeholders<AuditEventRow>) =>
  db
    .insert(audit_events)
    .values(rowValues(audit_events, parameters))
    .onConflictDoNothing()
    .returning({ id: audit_events.event_id }),
);

/**
 * What the outbox names as it came back, and what late tries have put there since, may be of credentials that became live behind
 * the restore point: it waits until Time Travel cannot undo the restore any more. (It waits already where that is a day away.)
 */
const postponePurges: Step<{ until: number }> = query((db, { until }: Placeholders<{ until: number }>) =>
  db
    .update(credential_purges)
    .set({ due_at: sql`${until}`, first_due_at: sql`${until}` })
    .where(lt(credential_purges.due_at, sql`${until} - ${sql.raw(String(SECONDS_A_DAY))}`))
    .returning({ id: credential_purges.kv_key }),
);

/** But for what was owed before the restore: nothing makes it live again, and its removal goes on. */
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
    .returning({ id: credential_purges.kv_key }),
);

/**
 * Of an integration that is to be deleted again: the phone number goes to where it was assigned to since, if that is still
 * there, so that it does not hold up the deletion.
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
    .returning({ id: phone_numbers.phone_number_id });
});

/** Whatever has come back under it: nothing new is wrapped with it. */
const retireAgain: Step<RetiredKekRow> = query((db, parameters: Placeholders<RetiredKekRow>) =>
  db
    .insert(key_encryption_keys)
    .values(rowValues(key_encryption_keys, parameters))
    .onConflictDoUpdate({ target: key_encryption_keys.kek_id, set: { retired_at: sql`excluded.retired_at` } })
    .returning({ id: key_encryption_keys.kek_id }),
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

/** The version that the row has now: the event may tell of a later one, which the restored row knows nothing of. */
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
      .returning({ id: credential_purges.kv_key }),
  );

/** Used or not, its credentials do not come back: the reconciliation says that they are missing. */
const enqueueIntegration = enqueueFrom(integrations, isIntegration);
const enqueuePhoneNumber = enqueueFrom(phone_numbers, isPhoneNumber);

const deleteIntegration: Step = query((db, parameters: Target) =>
  db
    .delete(integrations)
    .where(and(isIntegration(parameters), not(isUsed(db, parameters))))
    .returning({ id: integrations.integration_id }),
);

const findIntegration: Step = query((db, parameters: Target) =>
  db.select({ id: integrations.integration_id }).from(integrations).where(isIntegration(parameters)),
);

const deletePhoneNumber: Step = query((db, parameters: Target) =>
  db.delete(phone_numbers).where(isPhoneNumber(parameters)).returning({ id: phone_numbers.phone_number_id }),
);

const revokeKey: Step = query((db, { organization_id, target_id }: Target) =>
  db
    .update(api_keys)
    .set({ status: 'revoked' })
    .where(
      and(eq(api_keys.key_id, target_id), eq(api_keys.organization_id, organization_id), eq(api_keys.status, 'active')),
    )
    .returning({ id: api_keys.key_id }),
);

/** Of an event: it comes behind this one in the trail. */
const isLater = ({ created_at, sequence }: Pick<Target, 'created_at' | 'sequence'>) =>
  sql`(${audit_events.created_at}, ${audit_events.sequence}) > (${created_at}, ${sequence})`;

const successor = alias(api_keys, 'successor');

/**
 * The old key of a rotation whose successor is lost. It may be the only one that its user has left, so it lives on as it is:
 * no rule could tell whether that does more harm than a client that is locked out. Told by rows alone, not by whether the
 * event was there, so that a second replay reports it again, until it is rotated or revoked.
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
        .where(and(isOfCall(parameters), eq(sql`+${audit_events.action}`, 'api_key.created'))),
    ),
  );
  const hasEndedSince = and(
    isOfTarget(audit_events, parameters, ['api_key.rotated', 'api_key.revoked']),
    isLater(parameters),
  );
  return db
    .select({ id: api_keys.key_id })
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
 * What is offboarded stays so, whatever came behind it. Of the others the last event decides, also one of after the restore: a
 * second replay must not undo that.
 */
const setStatus = (status: 'active' | 'suspended' | 'offboarded'): Step =>
  query((db, { organization_id, created_at, sequence }: Target) => {
    const isOfLaterStatus = and(
      isOfTarget(audit_events, { organization_id, target_id: organization_id }, statusActions),
      isLater({ created_at, sequence }),
    );
    return db
      .update(organizations)
      .set({ status })
      .where(
        and(
          eq(organizations.organization_id, organization_id),
          ne(organizations.status, status),
          ne(organizations.status, 'offboarded'),
          status === 'offboarded' ? undefined : not(existsIn(db, audit_events, isOfLaterStatus)),
        ),
      )
      .returning({ id: organizations.organization_id });
  });

/** Of the organizations that were exported: nobody can act in them. */
const findWithoutKeys: Step<{ organization_ids: string }> = query(
  (db, { organization_ids }: Placeholders<{ organization_ids: string }>) =>
    db
      .select({ id: organizations.organization_id })
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
 * What a replay has done, by ids, and what is left to people: `integrations_kept`, because phone numbers still use them,
 * `keys_to_rotate`, because the keys that were made in their place are lost, and `organizations_without_keys`.
 */
export interface Replayed {
  organizations_put_back: string[];
  events_put_back: string[];
  ciphertexts_enqueued: string[];
  /** By calls that were refused before the restore, and landed behind it. */
  deleted_late: string[];
  phone_numbers_reassigned: string[];
  integrations_deleted: string[];
  integrations_kept: string[];
  phone_numbers_deleted: string[];
  keys_revoked: string[];
  keys_to_rotate: string[];
  organizations_changed: string[];
  organizations_without_keys: string[];
}
type Outcome = keyof Replayed;

type Steps = (readonly [Outcome, Step])[];

const deletionOfNumber: Steps = [
  ['ciphertexts_enqueued', enqueuePhoneNumber],
  ['phone_numbers_deleted', deletePhoneNumber],
];

/** How what an action ended ends again, as soon as its event is back. */
const stepsAtOnce: Partial<Record<AuditAction, Steps>> = {
  'phone_number.deleted': deletionOfNumber,
  'phone_number.released': deletionOfNumber,
  'api_key.revoked': [['keys_revoked', revokeKey]],
};

/** What depends on all that: on the whole trail, on the numbers that are gone. */
const stepsAfterwards: Partial<Record<AuditAction, Steps>> = {
  'integration.deleted': [
    ['ciphertexts_enqueued', enqueueIntegration],
    ['integrations_deleted', deleteIntegration],
    ['integrations_kept', findIntegration],
  ],
  'api_key.rotated': [['keys_to_rotate', findRotatedInVain]],
  'organization.suspended': [['organizations_changed', setStatus('suspended')]],
  'organization.resumed': [['organizations_changed', setStatus('active')]],
  'organization.offboarded': [['organizations_changed', setStatus('offboarded')]],
};

type BoundSteps = (readonly [Outcome | undefined, BoundQuery<{ id: string }[]>])[];

/** Reads what was exported, in its order and in pages of at most 100: as often as it is asked to. */
export type ReadExported = () => AsyncIterable<ExportedRow[]>;

const isEventRow = (row: ExportedRow): row is AuditEventRow => 'event_id' in row;
const isPurgeRow = (row: ExportedRow): row is PurgeRow => 'kv_key' in row;
const isKekRow = (row: ExportedRow): row is RetiredKekRow => 'check_value' in row;
const isAssignmentRow = (row: ExportedRow): row is AssignmentRow => 'phone_number_id' in row;

/**
 * Puts audit events and the removal of ciphertexts back, and does again what the events say ended: in transactions of at most
 * 100 events, so that a run that is interrupted is finished by another. What is so already stays as it is; what is left to
 * people is told by what is there, so that every run tells all of it.
 *
 * @param onProgress told how many rows have been read
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
        ['deleted_late', renameLateDeletion.bind({ ...event, new_event_id: newEventId() })],
        [undefined, removeOther.bind(event)],
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
  for (const some of chunks([...trails.keys()])) {
    await carryOut([['organizations_without_keys', findWithoutKeys.bind({ organization_ids: JSON.stringify(some) })]]);
  }
  return replayed;
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
