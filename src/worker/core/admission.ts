/**
 * How many batches an isolate has at D1 at once.
 *
 * D1 does one batch at a time, and its queue is longer than a call waits: D1 would work for calls that have given up, and
 * hardly any would be answered in time. By Little's law a batch waits for as long as D1 takes to answer what was sent
 * before it. So an isolate that has as much at D1 as D1 answered it in two seconds sends no more.
 */
const WAIT_MILLISECONDS = 2_000;
/** As long as D1 answers within this time, it has no queue: what comes at once, after a quiet time, is sent at once. */
const QUICK_MILLISECONDS = 500;
/** Sent even if D1 has answered fewer: one slow batch is no queue. */
const FEWEST = 64;
/** A call whose client has gone may end without a word. No batch takes longer (core/deadlines.ts). */
const FORGOTTEN_MILLISECONDS = 30_000;

/** When each was sent; what was sent first comes first. */
const sent = new Map<unknown, number>();

/** How many batches were answered, each counting for less as time passes: at a steady rate, those of two seconds. */
let answered = 0;
let countedAt = 0;

function answeredBy(now: number): number {
  answered *= Math.exp((countedAt - now) / WAIT_MILLISECONDS);
  countedAt = now;
  return answered;
}

/** @throws Error without sending anything, if the isolate has too much at D1; it reads as D1's own (d1/batch.ts) */
export async function admit<Result>(send: () => Result): Promise<Awaited<Result>> {
  const now = Date.now();
  let oldest = now;
  for (const [batch, at] of sent) {
    oldest = at;
    if (at > now - FORGOTTEN_MILLISECONDS) break;
    sent.delete(batch);
  }
  if (now - oldest > QUICK_MILLISECONDS && sent.size >= Math.max(FEWEST, answeredBy(now))) {
    throw new Error('The isolate is overloaded.');
  }
  sent.set(send, now);
  try {
    const result = await send();
    answered = answeredBy(Date.now()) + 1;
    return result;
  } finally {
    sent.delete(send);
  }
}

/** As if D1 had just answered so many batches. For tests. */
export function setAnswered(batches: number): void {
  answered = batches;
}
