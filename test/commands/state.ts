import { openLocal } from '../../src/operator/command-line/platform.ts';
import type { Bindings } from '../../src/worker/env.ts';

/** Works on a state directory, and leaves it closed: two processes on the same files make SQLite busy. */
export async function withState<Result>(directory: string, work: (env: Bindings) => Promise<Result>): Promise<Result> {
  const { env, dispose } = await openLocal(directory);
  try {
    return await work(env);
  } finally {
    await dispose();
  }
}
