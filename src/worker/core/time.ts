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

/** ISO 8601 UTC in whole seconds, `2024-01-15T10:30:00Z` (docs/contract.md, Conventions). */
export function toIso(unixSeconds: number): string {
  return `${new Date(unixSeconds * 1000).toISOString().slice(0, 19)}Z`;
}

/** The unix seconds of an ISO 8601 time; a fraction of a second is dropped. */
export function toUnix(iso: string): number {
  return Math.floor(Date.parse(iso) / 1000);
}
