/**
 * The load, in a process of its own: sends the requests of a job over keep-alive connections as fast as they are
 * answered, checks every answer, and ends by itself.
 */
import { Pool } from 'undici';

export interface LoadRequest {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  path: string;
  headers?: Record<string, string>;
  body?: string;
  /** What its answer must hold. */
  expected: string;
}

export interface Load {
  url: string;
  connections: number;
  /** Sent once each, over whichever connection is free. */
  requests: LoadRequest[];
  /** Of every answer. */
  status: number;
}

export interface LoadResult {
  seconds: number;
  /** Milliseconds. */
  latencies: number[];
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
  const requests = load.requests.values();
  const started = performance.now();
  const senders = Array.from({ length: load.connections }, async () => {
    for (const { expected, ...request } of requests) {
      const sent = performance.now();
      const { statusCode, body } = await pool.request(request);
      const text = await body.text();
      latencies.push(performance.now() - sent);
      if (statusCode !== load.status || !text.includes(expected)) {
        throw new Error(`${request.method} ${request.path} is answered with ${statusCode} ${text}`);
      }
    }
  });
  await Promise.all(senders);
  return { seconds: (performance.now() - started) / 1000, latencies };
}

process.on('message', (load: Load) => {
  run(load).then(
    (result) => process.send?.({ result }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
