/**
 * Simulates the providers' hosts, so that credentials can be checked and numbers listed without an account and without a
 * network. A word in the secret says what the provider answers; any other secret is good. Its account has three numbers from
 * +14155550100 on, or with `holds-1200` in the secret that many (up to 5000) from +14155560000 on, or those of
 * `PUT /simulation/numbers {"secret": "…", "numbers": ["+1…"]}`.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import * as z from 'zod';
import { providerNames } from '../worker/core/vocabulary.ts';
import type { Provider } from '../worker/core/vocabulary.ts';
import { numbersByWord, simulatedCall, WORDS } from './simulated-providers.ts';
import type { SimulatedProvider } from './simulated-providers.ts';

/** What a secret can ask for. Which word is found first counts. */
export const simulatedAnswers = [
  'refused-in-plain-text',
  'refused',
  'restricted',
  'rate-limited',
  'broken',
  'stalls',
  'breaks-off',
  'redirects',
  'plain-text',
  'another-shape',
  'endless',
  'disconnects',
  'good',
] as const;
export type SimulatedAnswer = (typeof simulatedAnswers)[number];

const ENDLESS_BYTES = 10 * 1024 * 1024;
const MAX_CALLS_KEPT = 5000;

/** A call, as the tests look at it. */
export interface SimulatedCall {
  provider: Provider;
  path: string;
  headers: IncomingHttpHeaders;
}

const script = z.object({ secret: z.string(), answers: z.array(z.enum(simulatedAnswers)).min(1) });
const holding = z.object({ secret: z.string(), numbers: z.array(z.string()) });

/** Starts the simulation on 127.0.0.1. All providers have the same origin, because their paths differ. */
export async function startSimulation(port = 0) {
  const scripts = new Map<string, SimulatedAnswer[]>();
  const held = new Map<string, string[]>();
  const calls: (SimulatedCall & { secret: string })[] = [];

  function answerFor(secret: string): SimulatedAnswer {
    const left = scripts.get(secret);
    if (!left) return simulatedAnswers.find((word) => secret.includes(word)) ?? 'good';
    return (left.length > 1 ? left.shift() : left[0]) ?? 'good';
  }

  /** The tests say what comes next and what an account has, and ask what came. */
  async function control(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    if (url.pathname === '/simulation/calls') {
      return send(response, 200, { calls: calls.filter(({ secret }) => secret === url.searchParams.get('secret')) });
    }
    const chunks: Buffer[] = await request.toArray();
    const told: unknown = JSON.parse(Buffer.concat(chunks).toString());
    if (url.pathname === '/simulation/numbers') {
      const { secret, numbers } = holding.parse(told);
      held.set(secret, numbers);
    } else {
      const { secret, answers } = script.parse(told);
      scripts.set(secret, answers);
    }
    return send(response, 200, {});
  }

  function answer(request: IncomingMessage, response: ServerResponse): Promise<void> | void {
    const path = request.url ?? '/';
    const url = new URL(path, 'http://127.0.0.1');
    if (url.pathname.startsWith('/simulation/')) return control(request, response, url);
    const call = simulatedCall(url);
    if (!call) return send(response, 404, {});
    const { name, provider, good } = call;
    const secret = secretOf(request.headers.authorization);
    if (secret === undefined) return send(response, 401, provider.refused);
    calls.push({ provider: name, path, headers: request.headers, secret });
    if (calls.length > MAX_CALLS_KEPT) calls.shift();
    return answerAs(answerFor(secret), provider, good(url, held.get(secret) ?? numbersByWord(secret)), response);
  }

  const server = createServer((request, response) => void answer(request, response));
  await once(server.listen(port, '127.0.0.1'), 'listening');
  const address = server.address();
  const origin = `http://127.0.0.1:${typeof address === 'object' ? address?.port : port}`;
  return {
    origin,
    /** The value of `PROVIDER_ORIGINS`. */
    origins: JSON.stringify(Object.fromEntries(providerNames.map((name) => [name, origin]))),
    /** The process may end while it runs. */
    unref: () => void server.unref(),
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

function answerAs(
  word: SimulatedAnswer,
  { refused, restricted, limited, missing = {} }: SimulatedProvider,
  good: object | undefined,
  response: ServerResponse,
): void {
  switch (word) {
    case 'good':
      return good ? send(response, 200, good) : send(response, 404, missing);
    case 'refused':
      return send(response, 401, refused);
    case 'refused-in-plain-text':
      return send(response, 401, WORDS);
    case 'restricted':
      return send(response, 403, restricted);
    case 'rate-limited':
      return send(response, 429, limited);
    case 'broken':
      return send(response, 500, { message: WORDS });
    case 'redirects':
      return send(response, 302, good ?? missing, { Location: '/v2/balance' });
    case 'plain-text':
      return send(response, 200, WORDS);
    case 'another-shape':
      return send(response, 200, { message: WORDS });
    case 'endless':
      return send(response, 200, { ...good, filling: '.'.repeat(ENDLESS_BYTES) });
    case 'disconnects':
      response.destroy();
      return;
    case 'breaks-off':
      response.writeHead(200, { 'Content-Type': 'application/json' }).write('{');
      return;
    case 'stalls':
  }
}

/** Text is sent as HTML, anything else as JSON. */
function send(response: ServerResponse, status: number, body: string | object, headers = {}): void {
  const isText = typeof body === 'string';
  response.writeHead(status, { 'Content-Type': isText ? 'text/html' : 'application/json', ...headers });
  response.end(isText ? body : JSON.stringify(body));
}

/** The password of Basic, or the token of Bearer. */
function secretOf(authorization = ''): string | undefined {
  const [, scheme, value = ''] = /^(Basic|Bearer) (.+)$/.exec(authorization) ?? [];
  if (scheme === 'Bearer') return Buffer.from(value, 'latin1').toString();
  return scheme === undefined
    ? undefined
    : Buffer.from(value, 'base64')
        .toString()
        .replace(/^[^:]*:/, '');
}
