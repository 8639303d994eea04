import { eq, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { apiKeyState, presentApiKey } from '../api-keys/api-key.ts';
import type { ApiKey } from '../api-keys/api-key.ts';
import { DomainError } from '../core/errors.ts';
import { idSchema, organizationIdSchema } from '../core/ids.ts';
import { rfc3339InQuery, toIso } from '../core/time.ts';
import { auditActions } from '../core/vocabulary.ts';
import { AFTER_ALL, keysetList, listParameters, ofOneGroup } from '../d1/list.ts';
import type { FilterOf, ListDefinition, Page } from '../d1/list.ts';
import type { SessionCall } from '../d1/replica-session.ts';
import { audit_events } from '../d1/schema.ts';
import { changesOf } from '../decision/event.ts';
import { integrationState, presentIntegration } from '../integrations/integration.ts';
import type { Integration } from '../integrations/integration.ts';
import {
  findStatus,
  organizationState,
  presentOrganization,
  presentOrganizationToOperator,
} from '../organizations/organization.ts';
import type { OrganizationState } from '../organizations/organization.ts';
import { phoneNumberState, presentPhoneNumber } from '../phone-numbers/phone-number.ts';
import type { PhoneNumber } from '../phone-numbers/phone-number.ts';
import { deliveryState, presentDelivery } from '../webhooks/delivery.ts';
import type { WebhookDelivery } from '../webhooks/delivery.ts';
import { endpointState, presentEndpoint } from '../webhooks/endpoint.ts';
import type { WebhookEndpoint } from '../webhooks/endpoint.ts';

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
              /^(?:(?:intg|phon|apikey|whep|whdel)_[a-f0-9]{12}|org_[A-Za-z0-9_-]{1,40})$/,
              'must be the id of an integration, a phone number, an API key, a webhook endpoint, a delivery or an organization',
            ),
          ),
      ),
      actor_key_id: z.exactOptional(idSchema('apikey')),
      since: z.exactOptional(rfc3339InQuery()),
      until: z.exactOptional(rfc3339InQuery()),
      after: z.exactOptional(z.string()),
      ...listParameters(),
    })
    .check(
      ofOneGroup(alternatives),
      z.superRefine(({ after, cursor, order }, context) => {
        if (after === undefined) return;
        const refuse = (message: string) => context.addIssue({ code: 'custom', path: ['after'], message });
        if (cursor !== undefined) refuse('must not be given with cursor');
        if (order !== 'asc') refuse('must be given with order=asc');
      }),
    ),
);

/** Before any sequence. */
const BEFORE_ALL = -1;

type AuditEventRow = typeof audit_events.$inferSelect;

const definition: ListDefinition<FilterOf<typeof auditEventsQuery>, AuditEventRow> = {
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
};

/** The audit events in the order of their commits, from `since` to before `until`. */
export const listAuditEvents = keysetList('audit_events', definition);

/** For operators: the events of one organization, or what operators did in all of them. */
export const operatorsAuditEventsQuery = z.lazy(() =>
  z
    .strictObject({
      organization_id: z.exactOptional(organizationIdSchema()),
      actor_type: z.exactOptional(z.enum(['operator'])),
      since: z.exactOptional(rfc3339InQuery()),
      until: z.exactOptional(rfc3339InQuery()),
      ...listParameters('desc'),
    })
    .check(
      z.refine(
        ({ organization_id, actor_type }) => (organization_id === undefined) !== (actor_type === undefined),
        'must have either organization_id, or actor_type=operator for what operators did in all organizations',
      ),
    ),
);

const listEventsOf = keysetList('audit_events', { ...definition, owner: findStatus });

/** Only events that have an actor are in its index. */
const listActsOfOperators = keysetList<'since' | 'until', AuditEventRow>('acts_of_operators', {
  ...definition,
  ofAllOrganizations: true,
  always: sql`${audit_events.actor_type} = 'operator'`,
  key: [audit_events.created_at, audit_events.organization_id, audit_events.sequence],
  keyOf: ({ created_at, organization_id, sequence }) => [created_at, organization_id, sequence],
  range: ({ since = 0, until = AFTER_ALL }) => [
    [since, '', BEFORE_ALL],
    [until, '', BEFORE_ALL],
  ],
  predicates: { since: undefined, until: undefined },
});

/** @throws DomainError `organization_not_found`, `validation_failed`, `temporarily_unavailable` */
export async function listEventsForOperator(
  call: SessionCall,
  { organization_id, ...request }: Omit<z.output<typeof operatorsAuditEventsQuery>, 'actor_type'>,
): Promise<Page<AuditEventRow>> {
  if (organization_id === undefined) return listActsOfOperators({ ...call, organization_id: null }, request);
  const { hasOwner, ...page } = await listEventsOf({ ...call, organization_id }, request);
  if (!hasOwner) throw new DomainError('organization_not_found', {});
  return page;
}

type Presented<Shown> = Integration | PhoneNumber | ApiKey | WebhookEndpoint | WebhookDelivery | Shown;

/** An organization, as those see it who read the event. */
type PresentOrganization<Shown> = (state: OrganizationState) => Shown;

/** A target as clients see it, from its row in JSON. The prefix of its id says what it is. */
function presentTarget<Shown>(
  { target_id }: AuditEventRow,
  row: unknown,
  present: PresentOrganization<Shown>,
): Presented<Shown> {
  if (target_id.startsWith('intg_')) return presentIntegration(integrationState.parse(row));
  if (target_id.startsWith('phon_')) return presentPhoneNumber(phoneNumberState.parse(row));
  if (target_id.startsWith('org_')) return present(organizationState.parse(row));
  if (target_id.startsWith('whep_')) return presentEndpoint(endpointState.parse(row));
  if (target_id.startsWith('whdel_')) return presentDelivery(deliveryState.parse(row));
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
 * @param present makes of a row what those see who read the event
 */
function presentChanges(
  event: AuditEventRow,
  row: unknown,
  present: (row: unknown) => unknown,
): Record<string, Change> | null {
  if (event.changes === null) return null;
  const before = storedObject.parse(row);
  const after = { ...before, ...changesOf(event) };
  const newValues = storedObject.parse(present(after));
  const changed = Object.entries(storedObject.parse(present(before))).flatMap(([name, from]) => {
    const to = newValues[name];
    return JSON.stringify(to) === JSON.stringify(from) ? [] : [[name, { from, to }] as const];
  });
  const isReplaced = before['credentials_version'] !== after['credentials_version'];
  return {
    ...Object.fromEntries(changed),
    ...(isReplaced && { credentials: { from: REDACTED, to: REDACTED } }),
  };
}

function presentEvent<Shown>(event: AuditEventRow, presentOf: PresentOrganization<Shown>) {
  const row: unknown = JSON.parse(event.state);
  const present = (shown: unknown) => presentTarget(event, shown, presentOf);
  return {
    event_id: event.event_id,
    client_id: event.organization_id,
    action: event.action,
    outcome: event.action.endsWith('_refused') ? ('refused' as const) : ('succeeded' as const),
    target_id: event.target_id,
    actor: presentActor(event),
    actor_key_id: event.actor_key_id,
    request_id: event.request_id,
    state: present(row),
    changes: presentChanges(event, row, present),
    reason: event.reason,
    created_at: toIso(event.created_at),
  };
}

/** An audit event as clients of the organization see it. */
export const presentAuditEvent = (event: AuditEventRow) => presentEvent(event, presentOrganization);

export type AuditEvent = ReturnType<typeof presentAuditEvent>;

/** An audit event as operators see it: organizations with their metadata. */
export const presentAuditEventToOperator = (event: AuditEventRow) => presentEvent(event, presentOrganizationToOperator);

export type OperatorsAuditEvent = ReturnType<typeof presentAuditEventToOperator>;
