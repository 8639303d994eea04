/**
 * Simulates the providers' hosts, so that credentials can be checked without an account and without a network. A word in the
 * secret says what the provider answers; any other secret is good.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import * as z from 'zod';
import { providerNames } from '../worker/core/vocabulary.ts';
import type { Provider } from '../worker/core/vocabulary.ts';

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
const WORDS = 'words of the provider';

interface Simulated {
  /** The paths of its calls. */
  path: RegExp;
  good: object;
  refused: object;
  restricted: object;
  limited: object;
}

const numbers = ['+14155550100', '+14155550101', '+14155550102'].map((phone_number, index) => ({
  sid: `PN${String(index).padStart(32, '0')}`,
  phone_number,
  friendly_name: WORDS,
  capabilities: { voice: true, sms: true, mms: false, fax: false },
  status: 'in-use',
}));

const twilioError = (code: number, status: number) => ({
  code,
  message: WORDS,
  more_info: `https://www.twilio.com/docs/errors/${code}`,
  status,
});
const telnyxError = (code: string) => ({ errors: [{ code, title: WORDS, detail: WORDS }] });

const simulated: Record<Provider, Simulated> = {
  twilio: {
    path: /^\/2010-04-01\/Accounts\/AC[^/]+\/IncomingPhoneNumbers\.json$/,
    good: { incoming_phone_numbers: numbers, next_page_uri: null, page: 0, page_size: 50, start: 0, end: 2 },
    refused: twilioError(20003, 401),
    restricted: twilioError(20003, 403),
    limited: twilioError(20429, 429),
  },
  telnyx: {
    path: /^\/v2\/balance$/,
    good: { data: { record_type: 'balance', balance: '300.00', currency: 'USD' } },
    refused: telnyxError('10009'),
    restricted: telnyxError('10010'),
    limited: telnyxError('10011'),
  },
  vonage: {
    path: /^\/account\/get-balance$/,
    good: { value: 10.28, autoReload: false },
    refused: { 'error-code': '401', 'error-code-label': WORDS },
    restricted: { 'error-code': '403', 'error-code-label': WORDS },
    limited: { 'error-code': '429', 'error-code-label': WORDS },
  },
  plivo: {
    path: /^\/v1\/Account\/[^/]+\/$/,
    good: { account_type: 'standard', auth_id: 'MA0123456789ABCDEFGH', name: WORDS, cash_credits: '10', api_id: 'x' },
    refused: { error: WORDS },
    restricted: { error: WORDS },
    limited: { error: WORDS },
  },
};

/** A call, as the tests look at it. */
export interface SimulatedCall {
  provider: Provider;
  path: string;
  headers: IncomingHttpHeaders;
}

const script = z.object({ secret: z.string(), answers: z.array(z.enum(simulatedAnswers)).min(1) });

/** Starts the simulation on 127.0.0.1. All providers have the same origin, because their paths differ. */
export async function startSimulation(port = 0) {
  const scripts = new Map<string, SimulatedAnswer[]>();
  const calls: (SimulatedCall & { secret: string })[] = [];

  function answerFor(secret: string): SimulatedAnswer {
    const left = scripts.get(secret);
    if (!left) return simulatedAnswers.find((word) => secret.includes(word)) ?? 'good';
    return (left.length > 1 ? left.shift() : left[0]) ?? 'good';
  }

  /** The tests say what comes next, and ask what came. */
  async function control(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    if (url.pathname === '/simulation/calls') {
      return send(response, 200, { calls: calls.filter(({ secret }) => secret === url.searchParams.get('secret')) });
    }
    const chunks: Buffer[] = await request.toArray();
    const { secret, answers } = script.parse(JSON.parse(Buffer.concat(chunks).toString()));
    scripts.set(secret, answers);
    return send(response, 200, {});
  }

  function answer(request: IncomingMessage, response: ServerResponse): Promise<void> | void {
    const path = request.url ?? '/';
    const url = new URL(path, 'http://127.0.0.1');
    if (url.pathname.startsWith('/simulation/')) return control(request, response, url);
    const provider = providerNames.find((name) => simulated[name].path.test(url.pathname));
    if (!provider) return send(response, 404, {});
    const secret = secretOf(request.headers.authorization);
    if (secret === undefined) return send(response, 401, simulated[provider].refused);
    calls.push({ provider, path, headers: request.headers, secret });
    if (calls.length > MAX_CALLS_KEPT) calls.shift();
    return answerAs(answerFor(secret), simulated[provider], response);
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
  { good, refused, restricted, limited }: Simulated,
  response: ServerResponse,
): void {
  switch (word) {
    case 'good':
      return send(response, 200, good);
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
      return send(response, 302, good, { Location: '/v2/balance' });
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
