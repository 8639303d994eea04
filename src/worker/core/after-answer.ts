import { logError } from './log.ts';

/** Runs what one call left for after its answer. What fails is logged. */
export async function runAfterAnswer(tasks: readonly (() => Promise<unknown>)[], request_id: string): Promise<void> {
  // Wait for a turn of the event loop, so that the answer is sent first.
  await new Promise((resolve) => setTimeout(resolve, 0));
  await Promise.all(
    tasks.map((task) => task().catch((error: unknown) => logError('after_answer_failed', error, { request_id }))),
  );
}
