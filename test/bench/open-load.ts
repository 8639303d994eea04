/** Clients that come by the clock, however slowly those before them are answered, and that do as a 503 or a 429 asks. */
import { setTimeout as pass } from 'node:timers/promises';
import { Pool } from 'undici';
import type { LoadRequest } from './load.ts';

export interface OpenLoad {
  url: string;
  /** Clients a second, on average. */
  rate: number;
  seconds: number;
  /** What is answered before is not counted. */
  countedFrom: number;
  request: LoadRequest;
  /** Of the times at which they come. */
  seed: number;
}

export interface OpenLoadResult {
  /** Clients a second that got what they wanted within their patience. */
  goodput: number;
  /** Milliseconds, of every try that was answered as it should be. */
  latencies: number[];
  /** Of all tries, the share that ended in a 503, and the share that had no answer while the client had patience. */
  refused: number;
  unanswered: number;
  /** Milliseconds by which clients came late: where they are many, the load is what is measured. */
  lateness: number[];
}

const PATIENCE_MS = 10_000;
const MAX_TRIES = 2;
const REFUSALS = [429, 503];

interface Try {
  /** Milliseconds since the load began. */
  endedAt: number;
  milliseconds: number;
  /** 0: none. */
  status: number;
}

/** Runs until the last client has come, and then lets go of those who still wait. */
export async function runOpenLoad(load: OpenLoad): Promise<OpenLoadResult> {
  const { rate, seconds, countedFrom, seed } = load;
  const pool = new Pool(load.url, { pipelining: 1 });
  const random = randomFrom(seed);
  const tries: Try[] = [];
  const lateness: number[] = [];
  const faults: unknown[] = [];
  const present = new Set<AbortController>();
  const began = performance.now();
  const clients: Promise<void>[] = [];
  // Poisson: the gaps between independent clients are distributed exponentially.
  for (let comes = 0; comes < seconds * 1000; comes += (-Math.log(1 - random()) * 1000) / rate) {
    const wait = comes - (performance.now() - began);
    if (wait > 0) await pass(wait);
    lateness.push(Math.max(0, performance.now() - began - comes));
    const client = new AbortController();
    present.add(client);
    const patience = setTimeout(() => client.abort(), PATIENCE_MS);
    const visited = visit(load, pool, client.signal, (one) => tries.push({ ...one, endedAt: one.endedAt - began }))
      .catch((fault: unknown) => void faults.push(fault))
      .finally(() => {
        clearTimeout(patience);
        present.delete(client);
      });
    clients.push(visited);
  }
  for (const client of present) client.abort();
  await Promise.all(clients);
  await pool.destroy();
  if (faults.length > 0) throw faults[0];
  const counted = tries.filter(({ endedAt }) => endedAt >= countedFrom * 1000 && endedAt < seconds * 1000);
  const answered = counted.filter(({ status }) => status === load.request.status);
  const share = (of: (status: number) => boolean) => counted.filter(({ status }) => of(status)).length / counted.length;
  return {
    goodput: answered.length / (seconds - countedFrom),
    latencies: answered.map(({ milliseconds }) => milliseconds),
    refused: share((status) => REFUSALS.includes(status)),
    unanswered: share((status) => status === 0),
    lateness,
  };
}

/** One client, until it has its answer, or no patience. */
async function visit(
  { request: { status: expectedStatus, expected, ...request } }: OpenLoad,
  pool: Pool,
  patience: AbortSignal,
  told: (one: Try) => void,
): Promise<void> {
  const came = performance.now();
  for (let tries = 1; tries <= MAX_TRIES; tries += 1) {
    const began = performance.now();
    const ended = (status: number) =>
      told({ endedAt: performance.now(), milliseconds: performance.now() - began, status });
    let pause: number;
    try {
      const { statusCode, headers, body } = await pool.request({ ...request, signal: patience });
      const text = await body.text();
      const isExpected = statusCode === expectedStatus && text.includes(expected);
      if (!isExpected && !REFUSALS.includes(statusCode))
        throw new Error(`${request.path} is answered with ${statusCode} ${text}`);
      ended(statusCode);
      if (isExpected) return;
      pause = Number(headers['retry-after']) * 1000;
    } catch (error) {
      if (!patience.aborted) throw error;
      return ended(0);
    }
    if (performance.now() - came + pause > PATIENCE_MS) return;
    await pass(pause, undefined, { signal: patience }).catch(() => {});
    if (patience.aborted) return;
  }
}

/** The same numbers in each run, from 0 to 1 (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
