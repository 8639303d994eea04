/** What `verifyWebhook` takes for an event, and what it refuses. Requests are signed by the published library. */
import { env } from 'cloudflare:workers';
import { Webhook } from 'standardwebhooks';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { verifyWebhook, WebhookVerificationError } from '../../src/client/client.ts';
import type { WebhookEvent } from '../../src/client/client.ts';
import { webhookEventTypes } from '../../src/worker/core/vocabulary.ts';
import { send } from '../../src/worker/webhooks/send.ts';

const NOW = new Date('2030-01-15T10:30:00Z');

const newSecret = (byte: number) => `whsec_${btoa(String.fromCharCode(byte).repeat(32))}`;
const SECRET = newSecret(1);
const OTHER = newSecret(2);

const ID = '2800bb00-1c7c-42e4-a6ef-4ae6f14600ef';
const event = {
  id: ID,
  type: 'api_key.revoked',
  created_at: '2030-01-15T10:29:58Z',
  organization_id: 'org_x',
  data: {
    target_id: 'apikey_0123456789ab',
    state: { key_id: 'apikey_0123456789ab', name: 'Billing “é” 💥' },
    actor: { type: 'operator', id: 'opkey_1', name: 'Ops' },
  },
};

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: NOW });
  return () => vi.useRealTimers();
});

interface Sent {
  body?: string;
  secrets?: string[];
  /** When it is signed, in seconds from now. */
  at?: number;
  /** In place of the true ones; undefined: none. */
  headers?: Record<string, string | undefined>;
  /** What is sent in place of the body that was signed. */
  replaced?: string;
}

function request({ body = JSON.stringify(event), secrets = [SECRET], at = 0, headers = {}, replaced }: Sent = {}) {
  const time = new Date(NOW.getTime() + at * 1000);
  const given = {
    'webhook-id': ID,
    'webhook-timestamp': String(Math.floor(time.getTime() / 1000)),
    'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(ID, time, body)).join(' '),
    ...headers,
  };
  const shown = Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
  return new Request('https://receiver.test/', { method: 'POST', headers: shown, body: replaced ?? body });
}

describe('a request that one of the secrets has signed', () => {
  it.each<[string, Sent, string | string[]]>([
    ['with the secret', {}, SECRET],
    ['with the second of two that the receiver knows', {}, [OTHER, SECRET]],
    ['with the first of two that the receiver knows', {}, [SECRET, OTHER]],
    ['with two, of which the receiver knows the old one', { secrets: [OTHER, SECRET] }, SECRET],
    ['with two, of which the receiver knows the new one', { secrets: [SECRET, OTHER] }, [SECRET]],
    ['almost 5 minutes ago', { at: -299 }, SECRET],
    ['by a clock that is almost 5 minutes fast', { at: 299 }, SECRET],
  ])('%s gives its event', async (_, sent, secret) => {
    expect(await verifyWebhook(request(sent), secret)).toEqual(event);
  });

  it('gives an event of a type that this version does not know', async () => {
    const unknown = { ...event, type: 'invoice.paid' };

    expect(await verifyWebhook(request({ body: JSON.stringify(unknown) }), SECRET)).toEqual(unknown);
  });

  it('is what the Worker sends', async () => {
    const received = Promise.withResolvers<Request>();
    vi.stubGlobal('fetch', async (url: string, init: RequestInit) => {
      received.resolve(new Request(url, init));
      return new Response();
    });
    try {
      const message = { ...event, created_at: Date.parse(event.created_at) / 1000 };
      const keys = await Promise.all([OTHER, SECRET].map(signingKey));
      await send(env, 'https://receiver.example.com/', keys, message);
      const verified = await verifyWebhook(await received.promise, SECRET);

      expect(verified).toEqual(event);
    } finally {
      vi.unstubAllGlobals();
    }
  });
});

/** A secret as the Worker has it, once it is unwrapped. */
function signingKey(secret: string): Promise<CryptoKey> {
  const bytes = Uint8Array.from(atob(secret.slice('whsec_'.length)), (character) => character.charCodeAt(0));
  return crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
}

describe('a request that is not an event from Patchbay', () => {
  const signature = request().headers.get('webhook-signature') ?? '';

  it.each<[string, Sent, string]>([
    ['has no id', { headers: { 'webhook-id': undefined } }, 'Missing required headers'],
    ['has no time', { headers: { 'webhook-timestamp': undefined } }, 'Missing required headers'],
    ['has no signature', { headers: { 'webhook-signature': undefined } }, 'Missing required headers'],
    ['has an empty signature', { headers: { 'webhook-signature': '' } }, 'Missing required headers'],
    ['was signed more than 5 minutes ago', { at: -301 }, 'Message timestamp too old'],
    ['was signed more than 5 minutes from now', { at: 301 }, 'Message timestamp too new'],
    ['has a time that is none', { headers: { 'webhook-timestamp': 'now' } }, 'Invalid Signature Headers'],
    ['was signed with another secret', { secrets: [OTHER] }, 'No matching signature found'],
    ['has the signature of another id', { headers: { 'webhook-id': 'x' } }, 'No matching signature found'],
    [
      'has the signature of another time',
      { headers: { 'webhook-timestamp': String(NOW.getTime() / 1000 + 1) } },
      'No matching signature found',
    ],
    ['has another body than was signed', { replaced: '{"id":"forged"}' }, 'No matching signature found'],
    ['has no body, where one was signed', { replaced: '' }, 'No matching signature found'],
    [
      'has a signature of another scheme',
      { headers: { 'webhook-signature': signature.replace('v1,', 'v2,') } },
      'No matching signature found',
    ],
    ['has a signature without its value', { headers: { 'webhook-signature': 'v1' } }, 'No matching signature found'],
    ['has a body that is not JSON', { body: '<h1>Hello</h1>' }, 'The body is not an event'],
    ['has an empty body', { body: '' }, 'The body is not an event'],
    ['has the body null', { body: 'null' }, 'The body is not an event'],
    ['has the event of another id', { body: JSON.stringify({ ...event, id: 'x' }) }, 'The body is not an event'],
    ...Object.keys(event).map((name): [string, Sent, string] => [
      `has an event without its ${name}`,
      { body: JSON.stringify({ ...event, [name]: undefined }) },
      'The body is not an event',
    ]),
    ['has an event whose data is null', { body: JSON.stringify({ ...event, data: null }) }, 'The body is not an event'],
    ['has an event of nothing', { body: JSON.stringify({ ...event, data: {} }) }, 'The body is not an event'],
  ])('is refused: it %s', async (_, sent, message) => {
    for (const secret of [SECRET, [SECRET], [SECRET, newSecret(3)]]) {
      const refusal = await verifyWebhook(request(sent), secret).catch((error: unknown) => error);

      expect(refusal).toBeInstanceOf(WebhookVerificationError);
      expect(refusal).toMatchObject({ name: 'WebhookVerificationError', message });
    }
  });

  it.each<[string, Sent]>([
    ['of the signature', { secrets: [OTHER] }],
    ['of JSON', { body: 'a body: {"auth_token": …' }],
    ['of the event', { body: '"a body"' }],
  ])('is refused without a word of the secret or the body: an error %s', async (_, sent) => {
    const refusal: unknown = await verifyWebhook(request(sent), SECRET).catch((error: unknown) => error);
    if (!(refusal instanceof WebhookVerificationError)) throw refusal;

    const told = [refusal.message, refusal.stack, JSON.stringify(refusal), String(refusal.cause)].join();
    expect(told).not.toContain(SECRET.slice('whsec_'.length));
    expect(told).not.toMatch(/a body|auth_token|api_key\.revoked/);
    expect(refusal.cause).toBeUndefined();
  });
});

describe('a secret', () => {
  it.each<[string, string | string[]]>([
    ['of nothing', ''],
    ['without its bytes', 'whsec_'],
    ['that is not base64', 'whsec_this is none'],
    ['with the end of its line', `${SECRET}\n`],
    ['beside one that cannot be one', [SECRET, '']],
  ])('%s is a mistake of the receiver, and no refusal: a TypeError that does not show it', async (_, secret) => {
    const mistake = new TypeError('A secret must be one that the API has shown: whsec_…');

    await expect(verifyWebhook(request(), secret)).rejects.toThrow(mistake);
  });

  it('that is missing is one too', async () => {
    await expect(verifyWebhook(request(), [])).rejects.toThrow(new TypeError('There must be a secret'));
    // @ts-expect-error -- of a variable that is not set
    await expect(verifyWebhook(request(), undefined)).rejects.toThrow(TypeError);
  });
});

describe('the type of an event', () => {
  /** It compiles only if each type has its own data. */
  function told({ type, data, organization_id }: WebhookEvent): string {
    // @ts-expect-error -- a test is about nothing that has a state
    if (type === 'webhook_endpoint.test') return String(data.state);
    if (type === 'integration.deleted') return `${data.state.provider} ${data.state.verification.status}`;
    if (type === 'phone_number.updated') return [data.state.phone_number, ...Object.keys(data.changes ?? {})].join();
    // @ts-expect-error -- a key has no provider
    if (type === 'api_key.revoked') return `${data.state.name} ${data.actor.type} ${String(data.state.provider)}`;
    if (type === 'organization.suspended') return `${organization_id} ${data.state.tier}`;
    return data.actor.type;
  }

  it('says what its data is', async () => {
    expect(told(await verifyWebhook(request(), SECRET))).toBe('Billing “é” 💥 operator undefined');
  });

  it('is one that an endpoint can get', () => {
    const types: Record<WebhookEvent['type'], true> = {
      'organization.created': true,
      'organization.updated': true,
      'organization.suspended': true,
      'organization.resumed': true,
      'organization.offboarded': true,
      'api_key.created': true,
      'api_key.updated': true,
      'api_key.rotated': true,
      'api_key.revoked': true,
      'integration.created': true,
      'integration.updated': true,
      'integration.deleted': true,
      'integration.delete_refused': true,
      'integration.credentials_missing': true,
      'integration.verification_failed': true,
      'integration.verification_recovered': true,
      'phone_number.imported': true,
      'phone_number.updated': true,
      'phone_number.deleted': true,
      'phone_number.delete_refused': true,
      'phone_number.released': true,
      'webhook_endpoint.test': true,
    };
    expect(Object.keys(types).filter((type) => type !== 'webhook_endpoint.test')).toEqual(webhookEventTypes);
  });
});
