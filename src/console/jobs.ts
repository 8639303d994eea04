/** Work that takes long. It goes on when its view is left, and the page shows how far it is. */
import { PatchbayError } from 'patchbay-client';
import { sessionState } from './session.ts';
import { store } from './store.ts';

export interface Job {
  id: number;
  title: string;
  done: number;
  /** Undefined if it is not known. */
  total: number | undefined;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  /** What it came to, once it has ended. */
  result: string | undefined;
  cancel: () => void;
}

export const jobs = store<Job[]>([]);

// They may name what the next user must not see.
sessionState.subscribe(() => jobs.set([]));

interface Progress {
  /** Aborts when the user cancels the job or signs out. */
  signal: AbortSignal;
  /** Notes that so much more is done. */
  advance: (by: number) => void;
}

let nextId = 1;

/**
 * @param work answers with a sentence that says what it came to
 * @returns once it has ended, whether it has done all its work
 */
export async function startJob(
  title: string,
  total: number | undefined,
  work: (progress: Progress) => Promise<string>,
): Promise<boolean> {
  const { session } = sessionState.get();
  const id = nextId++;
  const end = new AbortController();
  const unfollow = sessionState.subscribe(() => sessionState.get().session === session || end.abort());
  const change = (changes: Partial<Job>) =>
    jobs.set(jobs.get().map((job) => (job.id === id ? { ...job, ...changes } : job)));
  const job: Job = { id, title, total, done: 0, state: 'running', result: undefined, cancel: () => end.abort() };
  jobs.set([...jobs.get(), job]);
  let done = 0;
  try {
    const result = await work({ signal: end.signal, advance: (by) => change({ done: (done += by) }) });
    change({ state: 'done', result });
    return true;
  } catch (error) {
    change(
      end.signal.aborted
        ? { state: 'cancelled', result: 'Cancelled. What was done before stays done.' }
        : { state: 'failed', result: error instanceof PatchbayError ? error.message : 'The connection was lost.' },
    );
    return false;
  } finally {
    unfollow();
  }
}

export const dismissJob = (id: number) => jobs.set(jobs.get().filter((job) => job.id !== id));

window.addEventListener('beforeunload', (event) => {
  if (jobs.get().some(({ state }) => state === 'running')) event.preventDefault();
});
