/** Interleaved rounds, and what is told of them. */
import type { Load, Loader, LoadResult } from './load.ts';
import type { Workerd } from './workerd.ts';

/** The value that a share of the values do not exceed. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export const median = (values: readonly number[]) => quantile(values, 0.5);

/** Of all rounds. */
export interface Measured {
  /** Median of the rounds' wall time for each request. */
  microseconds: number;
  /** Median of workerd's CPU time for each request; NaN where the system does not tell. */
  cpuMicroseconds: number;
  /** CPU time of the load's process as a share of the wall time. */
  loadShare: number;
  /** Milliseconds, of every request. */
  latencies: number[];
}

/** Makes the load of a round. */
export type Job = (round: number) => Load;

/**
 * Runs a block of each job in turn, as often as there are rounds, so that what disturbs the machine disturbs all of them.
 *
 * @param jobs by name
 * @returns what was measured of a job, by its name
 */
export async function interleave(
  loader: Loader,
  rounds: number,
  jobs: Readonly<Record<string, Job>>,
  workerd?: Workerd,
): Promise<(name: string) => Measured> {
  const cpuTime = () => workerd?.cpuMicroseconds() ?? Number.NaN;
  const blocks: Record<string, (LoadResult & { requests: number; cpuMicroseconds: number })[]> = {};
  for (let round = 0; round < rounds; round += 1) {
    for (const [name, job] of Object.entries(jobs)) {
      const load = job(round);
      const before = cpuTime();
      const result = await loader.run(load);
      const block = { ...result, requests: load.requests.length, cpuMicroseconds: cpuTime() - before };
      (blocks[name] ??= []).push(block);
    }
  }
  return (name) => {
    const ofJob = blocks[name];
    if (!ofJob) throw new Error(`nothing was measured of ${name}`);
    return {
      microseconds: median(ofJob.map(({ seconds, requests }) => (seconds * 1e6) / requests)),
      cpuMicroseconds: median(ofJob.map(({ cpuMicroseconds, requests }) => cpuMicroseconds / requests)),
      loadShare: median(ofJob.map(({ cpu_seconds, seconds }) => cpu_seconds / seconds)),
      latencies: ofJob.flatMap(({ latencies }) => latencies),
    };
  };
}
