/** The time in whole unix seconds: the unit of every stored time. */
export function unixNow(): number {
  return Math.floor(Date.now() / 1000);
}

/** ISO 8601 UTC in whole seconds, `2024-01-15T10:30:00Z` (contract.md, Conventions). */
export function toIso(unixSeconds: number): string {
  return new Date(unixSeconds * 1000).toISOString().replace('.000Z', 'Z');
}

/** The unix seconds of an ISO 8601 time; a fraction of a second is dropped. */
export function toUnix(iso: string): number {
  return Math.floor(Date.parse(iso) / 1000);
}
