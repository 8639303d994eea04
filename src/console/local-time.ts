/** Times of `datetime-local` inputs, which are in the reader's zone. */

const MINUTE_MS = 60_000;

/** RFC 3339 in UTC. What is no time stays as it is, so that the API says what is wrong with it. */
export function toUtc(local: string): string {
  const time = new Date(local);
  return Number.isNaN(time.getTime()) ? local : time.toISOString().replace('.000Z', 'Z');
}

/** As such an input shows it, in whole minutes; empty for what is no time. */
export function toLocal(utc: string): string {
  const time = new Date(utc);
  if (Number.isNaN(time.getTime())) return '';
  return new Date(time.getTime() - time.getTimezoneOffset() * MINUTE_MS).toISOString().slice(0, 16);
}
