/** A server on the loopback that receives events, for the tests of the Workers pool: what it answers, they say. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import * as z from 'zod';

/** What the receiver does with a message. A number is the status of its answer. */
export type Behaviour = number | 'hang' | 'cut' | 'cut-body' | 'endless' | 'redirect';

/** A message as it came. */
export interface Received {
  headers: Record<string, string>;
  body: string;
}

const ENDLESS_BYTES = 1024 * 1024;

const script = z.array(z.union([z.number(), z.enum(['hang', 'cut', 'cut-body', 'endless', 'redirect'])])).min(1);

/**
 * Starts it on 127.0.0.1. `POST /{name}` is a receiver of that name, `PUT /{name}` says what it does, one message after the
 * other (the last behaviour stays), and `GET /{name}` shows what it has received and how many it has at once, at most.
 */
export async function startReceivers() {
  const scripts = new Map<string, Behaviour[]>();
  const received = new Map<string, Received[]>();
  const open = new Map<string, { now: number; most: number }>();

  async function receive(name: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const at = open.get(name) ?? { now: 0, most: 0 };
    open.set(name, at);
    at.now += 1;
    at.most = Math.max(at.most, at.now);
    response.on('close', () => (at.now -= 1));
    const body = await textOf(request);
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([header, value]) => [header, String(value)]),
    );
    received.set(name, [...(received.get(name) ?? []), { headers, body }]);
    const left = scripts.get(name) ?? [200];
    const behaviour = (left.length > 1 ? left.shift() : left[0]) ?? 200;
    if (behaviour === 'hang') return;
    if (behaviour === 'cut') request.socket.destroy();
    else if (behaviour === 'cut-body') {
      response.writeHead(200, { 'Content-Length': '100' });
      response.write('taken', () => request.socket.destroy());
    } else if (behaviour === 'endless') response.end('x'.repeat(ENDLESS_BYTES));
    else if (behaviour === 'redirect') response.writeHead(307, { Location: `/${name}-redirected` }).end();
    else response.writeHead(behaviour).end(`status ${behaviour}`);
  }

  const server = createServer((request, response) => {
    const name = (request.url ?? '').slice(1);
    void (async () => {
      if (request.method === 'POST') await receive(name, request, response);
      else if (request.method === 'PUT') {
        scripts.set(name, script.parse(JSON.parse(await textOf(request))));
        response.end();
      } else response.end(JSON.stringify({ received: received.get(name) ?? [], most: open.get(name)?.most ?? 0 }));
    })();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('The receivers have no port.');
  return { origin: `http://127.0.0.1:${address.port}`, unref: () => server.unref() };
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = await request.toArray();
  return Buffer.concat(chunks).toString();
}
