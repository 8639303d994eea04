/**
 * How many batches an isolate has at D1 at once.
 *
 * D1 does one batch at a time, and its queue is longer than a call waits: D1 would work for calls that have given up, and
 * hardly any would be answered in time. By Little's law a batch waits for as long as D1 takes to answer what was sent
 * before it. So the isolate sends no more while it has more at D1 than D1 answered it in the last two seconds.
 */
const WAIT_MILLISECONDS = 2_000;
/** Sent even if few were answered: a burst after a quiet time. */
const FEWEST = 64;
/** A call whose client has gone may end without a word. No batch takes longer (core/deadlines.ts). */
const FORGOTTEN_MILLISECONDS = 30_000;

/** When they were sent, by anything that tells them apart. The oldest come first. */
const sent = new Map<unknown, number>();
/** When batches were answered. */
const answered = new Map<unknown, number>();

function countSince(time: number, times: Map<unknown, number>): number {
  for (const [batch, at] of times) if (at < time) times.delete(batch);
  return times.size;
}

/** @throws Error without sending anything, if the isolate has too much at D1; it reads as D1's own (d1/batch.ts) */
export async function admit<Result>(send: () => Result): Promise<Awaited<Result>> {
  const now = Date.now();
  const most = Math.max(FEWEST, countSince(now - WAIT_MILLISECONDS, answered));
  if (countSince(now - FORGOTTEN_MILLISECONDS, sent) >= most) throw new Error('The isolate is overloaded.');
  sent.set(send, now);
  try {
    const result = await send();
    answered.set(send, Date.now());
    return result;
  } finally {
    sent.delete(send);
  }
}
