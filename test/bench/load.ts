/**
 * The load, in a process of its own: sends the requests of a job over keep-alive connections as fast as they are
 * answered, checks every answer, and ends by itself. Started by {@link startLoad}.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { Pool } from 'undici';

export interface LoadRequest {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  path: string;
  headers?: Record<string, string>;
  body?: string;
  /** Of its answer. */
  status: number;
  /** What its answer must hold. */
  expected: string;
}

export interface Load {
  url: string;
  connections: number;
  /** Sent once each, over whichever connection is free. */
  requests: LoadRequest[];
}

export interface LoadResult {
  seconds: number;
  /** CPU time of the load's own process: where it comes near `seconds`, the load is what is measured. */
  cpu_seconds: number;
  /** Milliseconds, in the order of the requests. */
  latencies: number[];
}

export interface Loader {
  /** @throws Error for an answer that is not the expected one */
  run(load: Load): Promise<LoadResult>;
  stop(): void;
}

type Message = { result: LoadResult } | { error: string };

/** Starts the load's process; it runs one job at a time. */
export function startLoad(): Loader {
  const child = fork(import.meta.filename);
  const ended = once(child, 'exit').then(() => [{ error: 'The load has ended.' }]);
  return {
    async run(load) {
      child.send(load);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- this module is the process on the other side
      const [message] = (await Promise.race([once(child, 'message'), ended])) as [Message];
      if ('error' in message) throw new Error(message.error);
      return message.result;
    },
    stop: () => child.kill(),
  };
}

/** The same request, many times. */
export function repeat(count: number, request: LoadRequest): LoadRequest[] {
  return Array.from({ length: count }, () => request);
}

const pools = new Map<string, Pool>();

/** Connections are kept from one job to the next. */
function poolOf({ url, connections }: Load): Pool {
  const name = `${url} ${connections}`;
  const pool = pools.get(name) ?? new Pool(url, { connections, pipelining: 1 });
  pools.set(name, pool);
  return pool;
}

async function run(load: Load): Promise<LoadResult> {
  const pool = poolOf(load);
  const latencies: number[] = [];
  // One for all senders: each takes the next that is left, and after a fault none is.
  const requests = load.requests.entries();
  const cpu = process.cpuUsage();
  const started = performance.now();
  const senders = Array.from({ length: load.connections }, async () => {
    for (const [index, { status, expected, ...request }] of requests) {
      const sent = performance.now();
      const { statusCode, body } = await pool.request(request);
      const text = await body.text();
      latencies[index] = performance.now() - sent;
      if (statusCode !== status || !text.includes(expected)) {
        for (const _ of requests);
        throw new Error(`${request.method} ${request.path} is answered with ${statusCode} ${text}`);
      }
    }
  });
  await Promise.all(senders);
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { seconds, cpu_seconds: (user + system) / 1e6, latencies };
}

process.on('message', (load: Load) => {
  run(load).then(
    (result) => process.send?.({ result }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
