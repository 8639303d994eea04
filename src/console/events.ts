/** Audit events as text: a sentence for people, and lines of files. It needs no browser. */
import type { InferResponseType } from 'hono/client';
import type { patchbayClient } from 'patchbay-client';
import { auditActions } from '../worker/core/vocabulary.ts';
import type { AuditAction } from '../worker/core/vocabulary.ts';

type ListEvents = ReturnType<typeof patchbayClient>['api']['audit-events']['$get'];
export type AuditEvent = InferResponseType<ListEvents, 200>['data'][number];

/** Filters of which the API takes only one. */
export const alternatives = ['action', 'target_id', 'actor_key_id'] as const;

export interface EventFilter {
  since?: string;
  until?: string;
  action?: AuditAction;
  target_id?: string;
  actor_key_id?: string;
}

/** What an address filters by. Of the alternatives, the first one counts. */
export function filterOf(query: URLSearchParams): EventFilter {
  const chosen = alternatives.find((name) => query.has(name));
  const action = auditActions.find((known) => known === query.get('action'));
  const since = query.get('since');
  const until = query.get('until');
  return {
    ...(since !== null && { since }),
    ...(until !== null && { until }),
    ...(chosen === 'action' ? action !== undefined && { action } : chosen && { [chosen]: query.get(chosen) ?? '' }),
  };
}

/** @param who its subject. @param what its object */
type Tell = (event: AuditEvent, who: string, what: string) => string;

const did =
  (verb: string): Tell =>
  (_, who, what) =>
    `${who} ${verb} ${what}.`;

const sentences = {
  'organization.created': did('created'),
  'organization.updated': tellUpdate,
  'organization.suspended': did('suspended'),
  'organization.resumed': did('resumed'),
  'organization.offboarded': did('ended'),
  'api_key.created': ({ state }, who, what) =>
    `${who} created ${what}${'role' in state ? `, with the role ${state.role.replace('_', ' ')}` : ''}.`,
  'api_key.updated': tellUpdate,
  'api_key.rotated': did('rotated'),
  'api_key.revoked': did('revoked'),
  'integration.created': did('created'),
  'integration.updated': tellUpdate,
  'integration.deleted': did('deleted'),
  'integration.delete_refused': (_, who, what) => `${who} could not delete ${what}, because phone numbers use it.`,
  'integration.credentials_missing': (_, __, what) => `A restore of the database lost the credentials of ${what}.`,
  'integration.verification_failed': (event, who, what) =>
    `The provider refused the credentials of ${what}${whenAsked(event, who)}.`,
  'integration.verification_recovered': (event, who, what) =>
    `The provider accepts the credentials of ${what} again${whenAsked(event, who)}.`,
  'phone_number.imported': ({ state }, who, what) =>
    `${who} imported ${what} ${'phone_number' in state && state.integration_id !== null ? `through ${state.integration_id}` : 'by SIP'}.`,
  'phone_number.updated': tellUpdate,
  'phone_number.deleted': did('deleted'),
  'phone_number.delete_refused': ({ state }, who, what) =>
    `${who} could not delete ${what}, because ${('assigned_agent_id' in state && state.assigned_agent_id) || 'an agent'} holds it.`,
  'phone_number.released': ({ reason }, who, what) =>
    reason === 'ownership_confirmed_elsewhere'
      ? `${who} took ${what} from this organization, because another account holds it.`
      : `${who} took ${what} from this organization.`,
  'credentials.read': did('read the credentials of'),
  'webhook_endpoint.created': did('created'),
  'webhook_endpoint.updated': tellUpdate,
  'webhook_endpoint.tested': did('sent a test to'),
  'webhook_endpoint.secret_rotated': did('rotated the secret of'),
  'webhook_endpoint.replayed': did('had events sent again to'),
  'webhook_endpoint.disabled': (_, who, what) => `${who} disabled ${what}, because it failed for 5 days.`,
  'webhook_endpoint.deleted': did('deleted'),
  'webhook_delivery.retried': did('retried'),
  'webhook_delivery.dead': did('gave up'),
} satisfies Record<AuditAction, Tell>;

/** A page that was loaded before an update of the API may not know an action. */
const knownSentences: Partial<Record<string, Tell>> = sentences;

/** What happened, as a sentence. */
export function sentenceOf(event: AuditEvent): string {
  const tell = knownSentences[event.action] ?? did(`did “${event.action}” to`);
  return tell(event, actorOf(event), targetOf(event));
}

export function actorOf({ actor: { type, id, name } }: Pick<AuditEvent, 'actor'>): string {
  const known = name ?? id;
  switch (type) {
    case 'api_key':
      return known ?? 'An API key';
    case 'operator':
      return known === null ? 'An operator' : `Operator ${known}`;
    case 'service':
      return known === null ? 'A service' : `Service ${known}`;
    case 'system':
      return 'The system';
  }
}

function targetOf({ state }: AuditEvent): string {
  if ('phone_number' in state) return `number ${state.phone_number}`;
  if ('key_id' in state) return `key ${state.name}`;
  if ('integration_id' in state) return `integration ${state.name}`;
  if ('event_type' in state) return `the delivery of ${state.event_type}`;
  if ('url' in state) return `webhook endpoint ${state.url}`;
  return 'the organization';
}

/** The system asks by itself. */
const whenAsked = ({ actor }: AuditEvent, who: string) => (actor.type === 'system' ? '' : ` when ${who} asked`);

/** What comes with the change of another field, and goes without saying. */
const consequences: Partial<Record<string, readonly string[]>> = {
  integration_id: ['provider'],
  assigned_agent_id: ['status'],
  credentials: ['status', 'verification', 'account_hint'],
  url: ['verified_at'],
};

function tellUpdate(event: AuditEvent, who: string, what: string): string {
  const { changes } = event;
  if (changes === null) return `${who} updated ${what}.`;
  const unsaid = new Set(Object.keys(changes).flatMap((field) => consequences[field] ?? []));
  const told = Object.entries(changes).filter(([field]) => !unsaid.has(field));
  if (told.length === 0) {
    return event.action === 'organization.updated'
      ? `${who} changed what only operators see of ${what}.`
      : `${who} saved ${what} as it was.`;
  }
  const isMoved = 'integration_id' in changes;
  const acts = told.map(([field, { from, to }], index) => {
    const object = index === 0 ? what : 'it';
    return field === 'ownership' && isMoved && to === 'unconfirmed'
      ? `left ${object} unconfirmed`
      : tellChange(field, object, from, to);
  });
  return `${who} ${acts.join(', and ')}.`;
}

function tellChange(field: string, what: string, from: unknown, to: unknown): string {
  switch (field) {
    case 'name':
      return `renamed ${what} to ${textOfValue(to)}`;
    case 'credentials':
      return `replaced the credentials of ${what}`;
    case 'integration_id':
      return `moved ${what} from ${textOfValue(from)} to ${textOfValue(to)}`;
    case 'assigned_agent_id':
      if (to === null) return `freed ${what} from ${textOfValue(from)}`;
      return from === null
        ? `assigned ${what} to ${textOfValue(to)}`
        : `reassigned ${what} from ${textOfValue(from)} to ${textOfValue(to)}`;
    case 'ownership':
      return to === 'confirmed'
        ? `confirmed that the account holds ${what}`
        : `found that the account does not hold ${what}`;
    case 'enabled':
      return `${to === true ? 'enabled' : 'disabled'} ${what}`;
    default:
      return `changed ${field} of ${what} from ${textOfValue(from)} to ${textOfValue(to)}`;
  }
}

/** A value of a field, for people. */
export function textOfValue(value: unknown): string {
  if (value === null) return 'none';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** A form of files. */
export interface FileFormat {
  name: string;
  extension: string;
  type: string;
  header: string;
  line: (event: AuditEvent) => string;
}

/** @see https://jsonlines.org */
export const jsonLines: FileFormat = {
  name: 'JSON Lines',
  extension: 'jsonl',
  type: 'application/x-ndjson',
  header: '',
  line: (event) => `${JSON.stringify(event)}\n`,
};

const columns: readonly (readonly [name: string, valueOf: (event: AuditEvent) => string | null])[] = [
  ['created_at', ({ created_at }) => created_at],
  ['sentence', sentenceOf],
  ['action', ({ action }) => action],
  ['outcome', ({ outcome }) => outcome],
  ['target_id', ({ target_id }) => target_id],
  ['actor_type', ({ actor }) => actor.type],
  ['actor_id', ({ actor }) => actor.id],
  ['actor_name', ({ actor }) => actor.name],
  ['reason', ({ reason }) => reason],
  ['request_id', ({ request_id }) => request_id],
  ['event_id', ({ event_id }) => event_id],
  ['changes', ({ changes }) => changes && JSON.stringify(changes)],
  ['state', ({ state }) => JSON.stringify(state)],
];

/** RFC 4180, for spreadsheets. */
export const csv: FileFormat = {
  name: 'CSV',
  extension: 'csv',
  type: 'text/csv',
  header: csvLine(columns.map(([name]) => name)),
  line: (event) => csvLine(columns.map(([, valueOf]) => valueOf(event))),
};

function csvLine(cells: readonly (string | null)[]): string {
  return `${cells.map((cell) => csvCell(cell ?? '')).join(',')}\r\n`;
}

/**
 * A cell of CSV. A spreadsheet takes what begins like a formula for one, also in quotes, so that a name could run one: an
 * apostrophe before it makes it text.
 */
function csvCell(value: string): string {
  // Also after a semicolon or a tab, which end a cell where a spreadsheet takes them for the separator.
  const text = value.replaceAll(/(?<=^|[;\t])(?=[=+\-@\t\r])/g, "'");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
