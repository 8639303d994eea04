import { customAlphabet } from 'nanoid';
import { v7 } from 'uuid';
import * as z from 'zod';

const twelveHexDigits = customAlphabet('0123456789abcdef', 12);

export type IdPrefix = 'intg' | 'phon' | 'apikey' | 'agent';

/** A new public id from a CSPRNG: the prefix and 12 lower-case hex digits (contract.md, Conventions). */
export function newId<Prefix extends Exclude<IdPrefix, 'agent'>>(prefix: Prefix): `${Prefix}_${string}` {
  return `${prefix}_${twelveHexDigits()}`;
}

/** Accepts an id of this prefix: what {@link newId} makes, or for `agent` another system. */
export function idSchema(prefix: IdPrefix) {
  return z.string().regex(new RegExp(`^${prefix}_[a-f0-9]{12}$`), `must be ${prefix}_ and 12 lower-case hex digits`);
}

/** `org_` and 1–40 of `[A-Za-z0-9_-]` (contract.md, Conventions). */
export const organizationIdPattern = /^org_[A-Za-z0-9_-]{1,40}$/;

/**
 * The id of one operation and of the audit event that decides it: UUIDv7 (RFC 9562 §5.7), so that new rows lie side by side.
 * It is minted before the commit, so it tells no order: an event's sequence does (audit/record.ts). 12 hex digits would not
 * do: two operations with one id would take the first one's decision for both.
 */
export function newEventId(): string {
  // With options it is random behind the milliseconds, instead of counted on from the id before.
  return v7({});
}

/** Characters that the ids of all events of one call have in common: the time, and 26 random bits. */
export const CALL_ID_LENGTH = 24;

/** The id of a call's event about one more target, whose own id ends in 12 hex digits. */
export function eventIdBeside(event_id: string, target_id: string): string {
  return event_id.slice(0, CALL_ID_LENGTH) + target_id.slice(-12);
}
