/** After a restore of D1: what had ended since the restore point ends again, by the audit events that were exported before. */
import { and, eq, gt, inArray, isNotNull, isNull, ne, not, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import { inState } from '../credentials/vault.ts';
import { batch, existsIn, query, rowValues } from '../query.ts';
import type { Builder, CompiledQuery, Placeholders } from '../query.ts';
import { api_keys, audit_events, credential_purges, integrations, organizations, phone_numbers } from '../schema.ts';
import type { AuditAction } from '../schema.ts';
import { unixNow } from '../time.ts';
import type { AuditEventRow } from './export.ts';
import { isIntegration, isPhoneNumber, kvKeyOf } from './subject.ts';
import type { CredentialsTable } from './subject.ts';

interface TargetParameters extends Pick<
  AuditEventRow,
  'organization_id' | 'event_id' | 'target_id' | 'request_id' | 'created_at'
> {
  now: number;
}

type Target = Placeholders<TargetParameters>;
/** Answers what it changed, or found. */
type Step = CompiledQuery<TargetParameters, { id: string }[]>;

const putBack = query((db, parameters: Placeholders<AuditEventRow>) =>
  db
    .insert(audit_events)
    .values(rowValues(audit_events, parameters))
    .onConflictDoNothing()
    .returning({ id: audit_events.event_id }),
);

/** A number that came back on it, or was assigned to another integration since, would point nowhere. */
const isUnusedIntegration = (db: Builder, parameters: Target) =>
  and(
    isIntegration(parameters),
    not(
      existsIn(
        db,
        phone_numbers,
        and(
          eq(phone_numbers.organization_id, parameters.organization_id),
          eq(phone_numbers.integration_id, parameters.target_id),
        ),
      ),
    ),
  );

/** The version that the row has now: the event may tell of a later one, which the restored row knows nothing of. */
const enqueueFrom = (table: CredentialsTable, isGoing: (db: Builder, parameters: Target) => SQL | undefined): Step =>
  query((db, parameters: Target) =>
    db
      .insert(credential_purges)
      .select(
        db
          .select({
            kv_key: kvKeyOf(table, parameters).as('kv_key'),
            organization_id: sql<string>`${table.organization_id}`.as('organization_id'),
            due_at: sql<number>`${parameters.now}`.as('due_at'),
            attempts: sql<number>`0`.as('attempts'),
            first_due_at: sql<number>`${parameters.now}`.as('first_due_at'),
            state: inState('owed'),
          })
          .from(table)
          .where(and(isGoing(db, parameters), isNotNull(table.credentials_version))),
      )
      .onConflictDoNothing()
      .returning({ id: credential_purges.kv_key }),
  );

const enqueueIntegration = enqueueFrom(integrations, isUnusedIntegration);
const enqueuePhoneNumber = enqueueFrom(phone_numbers, (_, parameters) => isPhoneNumber(parameters));

const deleteIntegration: Step = query((db, parameters: Target) =>
  db.delete(integrations).where(isUnusedIntegration(db, parameters)).returning({ id: integrations.integration_id }),
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

const successor = alias(api_keys, 'successor');

/**
 * The old key of a rotation whose successor is lost. It may be the only one that its user has left, so it lives on as it is:
 * no rule could tell whether that does more harm than a client that is locked out. Told by rows alone, not by whether the
 * event was there, so that a second replay reports it again, until it is rotated or revoked.
 */
const findRotatedInVain: Step = query((db, parameters: Target) => {
  const { organization_id, event_id, target_id, request_id, created_at, now } = parameters;
  const isSuccessor = and(
    eq(successor.organization_id, organization_id),
    eq(successor.created_at, created_at),
    existsIn(
      db,
      audit_events,
      and(
        eq(audit_events.organization_id, organization_id),
        eq(audit_events.target_id, successor.key_id),
        eq(audit_events.action, 'api_key.created'),
        eq(audit_events.request_id, request_id),
      ),
    ),
  );
  const hasEndedSince = and(
    eq(audit_events.organization_id, organization_id),
    eq(audit_events.target_id, target_id),
    gt(audit_events.event_id, event_id),
    inArray(audit_events.action, ['api_key.rotated', 'api_key.revoked']),
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

/** The last event of its kind decides, also one that came after the restore: a second replay must not undo that. */
const setStatus = (status: 'active' | 'suspended' | 'offboarded'): Step =>
  query((db, { organization_id, event_id }: Target) =>
    db
      .update(organizations)
      .set({ status })
      .where(
        and(
          eq(organizations.organization_id, organization_id),
          ne(organizations.status, status),
          not(
            existsIn(
              db,
              audit_events,
              and(
                eq(audit_events.organization_id, organization_id),
                inArray(audit_events.action, [...statusActions]),
                gt(audit_events.event_id, event_id),
              ),
            ),
          ),
        ),
      )
      .returning({ id: organizations.organization_id }),
  );

/**
 * What a replay has done, by ids, and what it could not do: `integrations_kept`, because phone numbers still use them, and
 * `keys_to_rotate`, because the keys that were made in their place are lost.
 */
export interface Replayed {
  events_put_back: string[];
  ciphertexts_enqueued: string[];
  integrations_deleted: string[];
  integrations_kept: string[];
  phone_numbers_deleted: string[];
  keys_revoked: string[];
  keys_to_rotate: string[];
  organizations_changed: string[];
}
type Outcome = keyof Replayed;

type Steps = (readonly [Outcome, Step])[];

const deletionOfNumber: Steps = [
  ['ciphertexts_enqueued', enqueuePhoneNumber],
  ['phone_numbers_deleted', deletePhoneNumber],
];

/** How what an action ended ends again. */
const stepsOf: Partial<Record<AuditAction, Steps>> = {
  'integration.deleted': [
    ['ciphertexts_enqueued', enqueueIntegration],
    ['integrations_deleted', deleteIntegration],
    ['integrations_kept', findIntegration],
  ],
  'phone_number.deleted': deletionOfNumber,
  'phone_number.released': deletionOfNumber,
  'api_key.revoked': [['keys_revoked', revokeKey]],
  'organization.suspended': [['organizations_changed', setStatus('suspended')]],
  'organization.resumed': [['organizations_changed', setStatus('active')]],
  'organization.offboarded': [['organizations_changed', setStatus('offboarded')]],
};

export const isReplayed = (action: AuditAction) => action in stepsOf;

const stepsAfter = (action: AuditAction): Steps =>
  action === 'api_key.rotated' ? [['keys_to_rotate', findRotatedInVain]] : (stepsOf[action] ?? []);

/**
 * Puts audit events back and does again what they say ended, in their order and in one transaction. What is so already stays
 * as it is, so that a second replay does nothing more.
 *
 * @param events at most 100, of up to four statements each
 * @throws DomainError `temporarily_unavailable`
 */
export async function replayEvents(database: D1Database, events: AuditEventRow[]): Promise<Replayed> {
  const now = unixNow();
  const steps = [
    ...events.map((event) => ['events_put_back', putBack.bind(event)] as const),
    ...events.flatMap((event) =>
      stepsAfter(event.action).map(([outcome, step]) => [outcome, step.bind({ ...event, now })] as const),
    ),
  ];
  const results = await batch(
    database,
    steps.map(([, step]) => step),
  );
  const replayed: Replayed = {
    events_put_back: [],
    ciphertexts_enqueued: [],
    integrations_deleted: [],
    integrations_kept: [],
    phone_numbers_deleted: [],
    keys_revoked: [],
    keys_to_rotate: [],
    organizations_changed: [],
  };
  steps.forEach(([outcome], index) => replayed[outcome].push(...(results[index] ?? []).map(({ id }) => id)));
  return replayed;
}
