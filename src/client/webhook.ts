/** What a webhook endpoint receives (docs/webhooks.md): whether it comes from Patchbay, and its type. */
import { Webhook, WebhookVerificationError as Refusal } from 'standardwebhooks';
import type { WebhookEventType, WebhookSubject } from '../worker/core/vocabulary.ts';
import type { patchbayClient } from './calls.ts';
import type { BodyOf } from './problem.ts';

type ListOfEvents = ReturnType<typeof patchbayClient>['api']['audit-events']['$get'];
type AuditEvent = BodyOf<Awaited<ReturnType<ListOfEvents>>>['data'][number];
type State = AuditEvent['state'];

/** What an event shows, by the word before the dot of its type. */
interface States extends Record<WebhookSubject, State> {
  organization: Extract<State, { tier: unknown }>;
  api_key: Extract<State, { key_id: unknown }>;
  integration: Extract<State, { verification: unknown }>;
  phone_number: Extract<State, { phone_number_id: unknown }>;
}

type SubjectOf<Type> = Type extends `${infer Subject extends WebhookSubject}.${string}` ? Subject : never;

interface Message<Type, Data> {
  /** The same for every attempt, and the same as the header `webhook-id`. */
  id: string;
  type: Type;
  /** When it happened, in RFC 3339. */
  created_at: string;
  organization_id: string;
  data: Data;
}

interface Happened<Target> extends Pick<AuditEvent, 'target_id' | 'actor'> {
  /** The target as it was just before; of what was created, as it was created. */
  state: Target;
  /** What an update changed. */
  changes?: NonNullable<AuditEvent['changes']>;
}

/**
 * What an endpoint receives, as a union on `type`: each type has its own `data`. A newer API may send types that this
 * version of the client does not know: let a `switch` have a `default`.
 */
export type WebhookEvent =
  | { [Type in WebhookEventType]: Message<Type, Happened<States[SubjectOf<Type>]>> }[WebhookEventType]
  | Message<'webhook_endpoint.test', { target_id: string }>;

/** The request is not one that Patchbay sent just now. Answer it with a 400. It shows neither the secret nor the body. */
export class WebhookVerificationError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'WebhookVerificationError';
  }
}

/**
 * The event that a request to a webhook endpoint brings, once its signature is verified (Standard Webhooks). The request's
 * time must be within 5 minutes of now.
 *
 * ```ts
 * const event = await verifyWebhook(request, env.WEBHOOK_SECRET);
 * if (event.type === 'integration.deleted') console.log(`${event.data.state.name} is deleted`);
 * ```
 *
 * @param request its body must not have been read
 * @param secret the endpoint's secret, `whsec_…`; or several, of which one must have signed, while a secret is being rotated
 * @throws WebhookVerificationError if a header is missing, the time is not now, no secret has signed this id, time and body,
 *   or the body is not an event
 * @throws TypeError if a secret cannot be one, or none is given; and what reading the body throws
 */
export async function verifyWebhook(request: Request, secret: string | readonly string[]): Promise<WebhookEvent> {
  const verifiers = [secret].flat().map(verifierOf);
  if (verifiers.length === 0) throw new TypeError('There must be a secret');
  const body = await request.text();
  const headers = Object.fromEntries(request.headers);
  const refusals = verifiers.map((verifier) => refusalOf(verifier, body, headers));
  const [refusal] = refusals;
  if (refusal !== undefined && !refusals.includes(undefined)) throw new WebhookVerificationError(refusal);
  const event = parse(body);
  if (!isEvent(event, headers['webhook-id'])) throw new WebhookVerificationError('The body is not an event');
  return event;
}

/** @throws TypeError that does not show the secret */
function verifierOf(secret: string): Webhook {
  try {
    return new Webhook(secret);
  } catch {
    throw new TypeError('A secret must be one that the API has shown: whsec_…');
  }
}

/** Why it is refused; undefined if it is verified. */
function refusalOf(verifier: Webhook, body: string, headers: Record<string, string>): string | undefined {
  try {
    verifier.verify(body, headers, { jsonParse: false });
    return undefined;
  } catch (error) {
    return error instanceof Refusal ? error.message : 'The message cannot be verified';
  }
}

/** Undefined if it is not JSON. The error of `JSON.parse` would show a part of it. */
function parse(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;

function isEvent(value: unknown, id: string | undefined): value is WebhookEvent {
  if (!isObject(value) || !('id' in value && 'data' in value)) return false;
  const { data } = value;
  return (
    value.id === id &&
    ['type', 'created_at', 'organization_id'].every((name) => typeof Reflect.get(value, name) === 'string') &&
    isObject(data) &&
    typeof Reflect.get(data, 'target_id') === 'string'
  );
}
