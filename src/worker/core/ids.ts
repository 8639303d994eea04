import { customAlphabet } from 'nanoid';
import * as z from 'zod/mini';

const twelveHexDigits = customAlphabet('0123456789abcdef', 12);

export type IdPrefix = 'intg' | 'phon' | 'apikey' | 'opkey' | 'org' | 'whep' | 'whkey' | 'whdel';

/** A new public id from a CSPRNG: the prefix and 12 lower-case hex digits (docs/contract.md, Conventions). */
export function newId<Prefix extends IdPrefix>(prefix: Prefix): `${Prefix}_${string}` {
  return `${prefix}_${twelveHexDigits()}`;
}

/** Accepts the ids that {@link newId} makes with this prefix. */
export function idSchema(prefix: IdPrefix) {
  return z
    .string()
    .check(z.regex(new RegExp(`^${prefix}_[a-f0-9]{12}$`), `must be ${prefix}_ followed by 12 lower-case hex digits`));
}

/** Agents live in another system, so their ids have its form (docs/contract.md, Conventions). */
export const agentIdPattern = /^agent_[A-Za-z0-9_-]{1,64}$/;

export const agentIdSchema = () =>
  z.string().check(z.regex(agentIdPattern, 'must be agent_ followed by 1 to 64 of A–Z, a–z, 0–9, _ and -'));

/** E.164. */
export const phoneNumberPattern = /^\+[1-9]\d{6,14}$/;

/** `org_` and 1–40 of `[A-Za-z0-9_-]` (docs/contract.md, Conventions). */
export const organizationIdPattern = /^org_[A-Za-z0-9_-]{1,40}$/;

export const organizationIdSchema = () =>
  z.string().check(z.regex(organizationIdPattern, 'must be org_ followed by 1 to 40 of A–Z, a–z, 0–9, _ and -'));

/**
 * The id of a batch and of the audit event that decides it: a UUIDv7 (RFC 9562 §5.7), so that new rows are stored next
 * to each other. It is made before the commit, so it says nothing about the order of commits; an event's sequence does
 * (decision/event.ts). 12 hex digits are too few: if two batches had the same id, the second would take the first one's
 * decision for its own.
 */
export function newEventId(): string {
  const time = Date.now().toString(16).padStart(12, '0');
  // A random UUID has the same form from its version on.
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(-21)}`;
}

/** How many characters the ids of all events of one batch have in common: the time, and 26 random bits. */
export const BATCH_ID_LENGTH = 24;

/** The id of a batch's event about a further target, whose own id ends in 12 hex digits. */
export function eventIdBeside(event_id: string, target_id: string): string {
  return event_id.slice(0, BATCH_ID_LENGTH) + target_id.slice(-12);
}
