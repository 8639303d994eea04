/** What the operating system says of this process's workerd, where it says so in /proc. */
import { readdirSync, readFileSync } from 'node:fs';

export interface Workerd {
  /** Of all its threads, since it started. */
  cpuMicroseconds(): number;
  /** Resident. */
  memoryBytes(): number;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** @returns nothing on a system without /proc */
export function findWorkerd(): Workerd | undefined {
  const ofThisProcess = new RegExp(`^\\d+ \\(workerd\\) \\S ${process.pid} `);
  const pid = list('/proc').find((name) => ofThisProcess.test(read(`/proc/${name}/stat`)));
  if (pid === undefined) return undefined;
  return {
    cpuMicroseconds() {
      const nanoseconds = list(`/proc/${pid}/task`).map((thread) =>
        Number(read(`/proc/${pid}/task/${thread}/schedstat`).split(' ')[0]),
      );
      return nanoseconds.reduce((sum, value) => sum + value, 0) / 1000;
    },
    memoryBytes: () => Number(/VmRSS:\s+(\d+) kB/.exec(read(`/proc/${pid}/status`))?.[1]) * 1024,
  };
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => /^\d+$/.test(name));
  } catch {
    return [];
  }
}
