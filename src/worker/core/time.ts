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

/** The unix seconds of an ISO 8601 time; a fraction of a second is dropped. */
export function toUnix(iso: string): number {
  return Math.floor(Date.parse(iso) / 1000);
}
