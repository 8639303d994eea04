import { eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { apiKeyState, presentApiKey } from '../api-keys/api-key.ts';
import type { ApiKey } from '../api-keys/api-key.ts';
import { idSchema } from '../core/ids.ts';
import { rfc3339, toIso } from '../core/time.ts';
import { auditActions } from '../core/vocabulary.ts';
import { AFTER_ALL, keysetList, listParameters, ofOneGroup } from '../d1/list.ts';
import type { FilterOf } from '../d1/list.ts';
import { audit_events } from '../d1/schema.ts';
import { changesOf } from '../decision/event.ts';
import { integrationState, presentIntegration } from '../integrations/integration.ts';
import type { Integration } from '../integrations/integration.ts';
import { organizationState, presentOrganization } from '../organizations/organization.ts';
import type { Organization } from '../organizations/organization.ts';
import { phoneNumberState, presentPhoneNumber } from '../phone-numbers/phone-number.ts';
import type { PhoneNumber } from '../phone-numbers/phone-number.ts';

const timeOfEvents = () =>
  rfc3339('must be an RFC 3339 time, like 2030-01-15T10:30:00Z or 2030-01-15T12:30:00%2B02:00, with + written as %2B');

/**
 * Filters of which only one can be used, because there is an index for each, and none for two together (d1/schema.ts).
 */
const alternatives = [['action'], ['target_id'], ['actor_key_id']] as const;

export const auditEventsQuery = z.lazy(() =>
  z
    .strictObject({
      action: z.exactOptional(z.enum(auditActions)),
      target_id: z.exactOptional(
        z
          .string()
          .check(
            z.regex(
              /^(?:(?:intg|phon|apikey)_[a-f0-9]{12}|org_[A-Za-z0-9_-]{1,40})$/,
              'must be the id of an integration, a phone number, an API key or an organization',
            ),
          ),
      ),
      actor_key_id: z.exactOptional(idSchema('apikey')),
      since: z.exactOptional(timeOfEvents()),
      until: z.exactOptional(timeOfEvents()),
      ...listParameters(),
    })
    .check(ofOneGroup(alternatives)),
);

/** Before any sequence. */
const BEFORE_ALL = -1;

type AuditEventRow = typeof audit_events.$inferSelect;

/** The audit events in the order of their commits, from `since` to before `until`. */
export const listAuditEvents = keysetList<FilterOf<typeof auditEventsQuery>, AuditEventRow>('audit_events', {
  table: audit_events,
  key: [audit_events.created_at, audit_events.sequence],
  keyOf: ({ created_at, sequence }) => [created_at, sequence],
  range: ({ since = 0, until = AFTER_ALL }) => [
    [since, BEFORE_ALL],
    [until, BEFORE_ALL],
  ],
  predicates: {
    action: (value) => eq(audit_events.action, value),
    target_id: (value) => eq(audit_events.target_id, value),
    actor_key_id: (value) => eq(audit_events.actor_key_id, value),
    since: undefined,
    until: undefined,
  },
  page: (db, isListed, order, limit) =>
    db
      .select()
      .from(audit_events)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});

type Presented = Integration | PhoneNumber | ApiKey | Organization;

/** A target as clients see it, from its row in JSON. The prefix of its id says what it is. */
function presentTarget({ target_id }: AuditEventRow, row: unknown): Presented {
  if (target_id.startsWith('intg_')) return presentIntegration(integrationState.parse(row));
  if (target_id.startsWith('phon_')) return presentPhoneNumber(phoneNumberState.parse(row));
  if (target_id.startsWith('org_')) return presentOrganization(organizationState.parse(row));
  return presentApiKey(apiKeyState.parse(row));
}

/** Events older than `actor_type` are of the API key that they name, or else of an operator. */
function presentActor({ actor_type, actor_id, actor_name, actor_key_id }: AuditEventRow) {
  const type = actor_type ?? (actor_key_id === null ? 'operator' : 'api_key');
  return { type, id: actor_id ?? actor_key_id, name: actor_name };
}

const storedObject = z.record(z.string(), z.unknown());

/** Shown in place of credentials that were replaced, the old and the new ones. */
export const REDACTED = '[redacted]';

interface Change {
  from: unknown;
  to: unknown;
}

/**
 * What an update changed, with the names that clients know. Null for any other event, and for events older than the
 * column.
 *
 * @param row the event's state
 * @param presented the same as clients see it
 */
function presentChanges(event: AuditEventRow, row: unknown, presented: Presented): Record<string, Change> | null {
  if (event.changes === null) return null;
  const before = storedObject.parse(row);
  const after = { ...before, ...changesOf(event) };
  const newValues = storedObject.parse(presentTarget(event, after));
  const changed = Object.entries(presented).flatMap(([name, from]) => {
    const to = newValues[name];
    return JSON.stringify(to) === JSON.stringify(from) ? [] : [[name, { from, to }] as const];
  });
  const isReplaced = before['credentials_version'] !== after['credentials_version'];
  return {
    ...Object.fromEntries(changed),
    ...(isReplaced && { credentials: { from: REDACTED, to: REDACTED } }),
  };
}

/** An audit event as clients see it. */
export function presentAuditEvent(event: AuditEventRow) {
  const row: unknown = JSON.parse(event.state);
  const state = presentTarget(event, row);
  return {
    event_id: event.event_id,
    client_id: event.organization_id,
    action: event.action,
    outcome: event.action.endsWith('_refused') ? ('refused' as const) : ('succeeded' as const),
    target_id: event.target_id,
    actor: presentActor(event),
    actor_key_id: event.actor_key_id,
    request_id: event.request_id,
    state,
    changes: presentChanges(event, row, state),
    reason: event.reason,
    created_at: toIso(event.created_at),
  };
}

export type AuditEvent = ReturnType<typeof presentAuditEvent>;
