/** Speaks the inspector's protocol with the isolate of a Worker. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { WebSocket } from 'undici';
import * as z from 'zod';

export interface Inspector {
  /** @see https://chromedevtools.github.io/devtools-protocol/v8/ */
  send<Result extends z.ZodType>(method: string, result: Result, parameters?: object): Promise<z.output<Result>>;
  close(): void;
}

const targets = z.array(z.looseObject({ webSocketDebuggerUrl: z.string(), id: z.string() }));
const message = z.object({ id: z.int().optional(), result: z.unknown().optional(), error: z.unknown().optional() });

/** @param worker its name among those that are served with this port */
export async function inspect(port: number, worker: string): Promise<Inspector> {
  const list = targets.parse(await (await fetch(`http://127.0.0.1:${port}/json`)).json());
  const target = list.find(({ id }) => id.includes(worker));
  if (!target) throw new Error(`nothing to inspect is called ${worker}`);
  const socket = new WebSocket(target.webSocketDebuggerUrl);
  await once(socket, 'open');
  const waiting = new Map<number, (answer: z.output<typeof message>) => void>();
  socket.addEventListener('message', ({ data }) => {
    const answer = message.parse(JSON.parse(String(data)));
    if (answer.id !== undefined) waiting.get(answer.id)?.(answer);
  });
  let sent = 0;
  return {
    async send(method, result, parameters = {}) {
      const id = (sent += 1);
      const answered = new Promise<z.output<typeof message>>((resolve) => {
        waiting.set(id, resolve);
      });
      socket.send(JSON.stringify({ id, method, params: parameters }));
      const answer = await answered;
      waiting.delete(id);
      if (answer.error) throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
      return result.parse(answer.result);
    },
    close: () => socket.close(),
  };
}

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
