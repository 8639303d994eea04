import * as z from 'zod/mini';

/** The time in whole unix seconds: the unit of every stored time. */
export function unixNow(): number {
  return Math.floor(Date.now() / 1000);
}

export const SECONDS_A_DAY = 86_400;

/**
 * For how long a restore of D1 can bring a deleted row back. Time Travel covers 30 days, and an export begins a day
 * before the time that it is given (operator/recovery/export.ts).
 */
export const RESTORABLE_SECONDS = 31 * SECONDS_A_DAY;

const twoDigits = Array.from({ length: 60 }, (_, number) => String(number).padStart(2, '0'));

/** The last day that was asked for. The rows of a page are from few days, and making a `Date` for each costs much of a list's CPU. */
let knownDay = 0;
let knownDate = '1970-01-01';

/** ISO 8601 UTC in whole seconds, `2024-01-15T10:30:00Z` (docs/contract.md, Conventions). */
export function toIso(unixSeconds: number): string {
  const day = Math.floor(unixSeconds / SECONDS_A_DAY);
  if (day !== knownDay) {
    [knownDate = ''] = new Date(day * SECONDS_A_DAY * 1000).toISOString().split('T');
    knownDay = day;
  }
  const seconds = unixSeconds - day * SECONDS_A_DAY;
  const [hour, minute] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return `${knownDate}T${twoDigits[hour]}:${twoDigits[minute]}:${twoDigits[seconds % 60]}Z`;
}

const datetime = z.iso.datetime({ offset: true });

/** Beyond these, an offset or a leap second leads to a year that RFC 3339 cannot write. */
const FIRST_SECOND = Date.parse('0000-01-01T00:00:00Z') / 1000;
const LAST_SECOND = Date.parse('9999-12-31T23:59:59Z') / 1000;
const inRange = (seconds: number) => (seconds >= FIRST_SECOND && seconds <= LAST_SECOND ? seconds : undefined);

/**
 * The unix seconds of an RFC 3339 time; undefined if it is none. A fraction of a second is dropped. A leap second is the
 * second after it, as in POSIX time.
 */
export function toUnix(time: string): number | undefined {
  const upperCase = time.toUpperCase();
  const withoutLeap = upperCase.replace(/(T\d\d:\d\d:)60/, '$159');
  if (!datetime.safeParse(withoutLeap).success) return undefined;
  const seconds = Math.floor(Date.parse(withoutLeap) / 1000);
  if (withoutLeap === upperCase) return inRange(seconds);
  return (seconds + 1) % SECONDS_A_DAY === 0 ? inRange(seconds + 1) : undefined;
}

/** As {@link rfc3339}, after now. */
export const futureTime = () => rfc3339().check(z.refine((time) => time > unixNow(), 'must be in the future'));

/** Accepts an RFC 3339 time, and makes unix seconds of it (docs/contract.md, Conventions). */
export const rfc3339 = (message = 'must be an RFC 3339 time, like 2030-01-15T10:30:00Z or 2030-01-15T12:30:00+02:00') =>
  z
    .pipe(
      z.string(),
      z.transform((text, context) => {
        const time = toUnix(text);
        if (time !== undefined) return time;
        context.issues.push({ code: 'custom', message, input: text });
        return z.NEVER;
      }),
    )
    .register(z.globalRegistry, { format: 'date-time' });

/** {@link rfc3339} in a query string, where a plus is a space. */
export const rfc3339InQuery = () =>
  rfc3339('must be an RFC 3339 time, like 2030-01-15T10:30:00Z or 2030-01-15T12:30:00%2B02:00, with + written as %2B');
