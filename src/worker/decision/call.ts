/** A call: one act on one organization, and who acts. Nothing here knows HTTP. */
import type { Caller } from '../callers/caller.ts';
import type { PresentedKey } from '../callers/key-cache.ts';
import type { Operator } from '../callers/operator.ts';
import { newEventId } from '../core/ids.ts';
import { unixNow } from '../core/time.ts';
import type { ActorType } from '../core/vocabulary.ts';
import type { SessionCall } from '../d1/replica-session.ts';
import type { AfterAnswer } from '../env.ts';

/** Who acts. Audit events keep a copy. Of a key that no cache knows, the id and the name are filled in when D1 has said them. */
export interface Actor {
  readonly type: ActorType;
  /** Null if only the type is known, or the hash of its key too. */
  readonly id: string | null;
  readonly name: string | null;
  /** Only of a key whose holder was not known when the call began. */
  readonly key_hash?: string | undefined;
}

export interface Call {
  readonly organization_id: string;
  readonly actor: Actor;
  readonly request_id: string;
}

/** What the headers of the answer will say. Filled in while the call is carried out. */
export interface Told {
  /** The state of the database that the answer is from. */
  bookmark: string | null;
  /** The answer is a repeated one. */
  replayed: boolean;
  /** The limit, of the organization, that the call has met. */
  exhausted: ExhaustedLimit | null;
}

/** A call over HTTP. */
interface HttpCall extends SessionCall {
  readonly afterAnswer: AfterAnswer;
  /** Only if the request has an Idempotency-Key. */
  readonly idempotency?: Idempotency;
  readonly told: Told;
}

/** A call by an API key. */
export interface ApiCall extends Call, HttpCall {
  readonly key: PresentedKey<Caller>;
  /** Only if the request has an If-Match that names tags: the target must have one of these revisions. */
  readonly if_match?: readonly number[];
}

/** A call by an operator key. Which organization it acts on, its arguments say. */
export interface OperatorCall extends Omit<Call, 'organization_id'>, HttpCall {
  readonly key: PresentedKey<Operator>;
}

/** So many calls may pass in a period, and no more do now. */
export interface ExhaustedLimit {
  name: string;
  calls: number;
  period_seconds: number;
}

export interface Idempotency {
  readonly idempotency_key: string;
  readonly method: string;
  readonly path: string;
  /** Identifies the body and the query string, and reveals nothing else about them (http/idempotency-key.ts). */
  readonly fingerprint: string;
}

/** The call as a dry run makes it: it remembers nothing, and is not answered from what is remembered. */
export function withoutKey(call: ApiCall): ApiCall {
  const { idempotency: _, ...unkeyed } = call;
  return unkeyed;
}

/** What the statements that record a call's events are bound to. */
export interface EventParameters {
  organization_id: string;
  /** The id of the event that decides. Events about further targets have other ids (event.ts). */
  event_id: string;
  actor_type: ActorType;
  actor_id: string | null;
  actor_name: string | null;
  /** Null if the actor is not an API key, or has an `actor_key_hash`. */
  actor_key_id: string | null;
  /** By which the statements find the key that acts (actor.ts). Null if they need not. */
  actor_key_hash: string | null;
  request_id: string;
  /** When the call began, in unix seconds by our own clock, not D1's. */
  event_time: number;
  /** Unix seconds. Unlike `event_time`, a later attempt of the call may have a later one. */
  now: number;
}

/** Who acts: by the id, or by the key's hash as long as that is all that is known. */
export const actorParameters = ({ actor }: Pick<Call, 'actor'>) => ({
  actor_type: actor.type,
  actor_id: actor.id,
  actor_name: actor.name,
  actor_key_id: actor.type === 'api_key' ? actor.id : null,
  actor_key_hash: actor.key_hash ?? null,
});

/** What the cron does by itself. */
export const bySystem = (organization_id: string): Call => ({
  organization_id,
  actor: { type: 'system', id: null, name: null },
  request_id: crypto.randomUUID(),
});

/** Makes the ids and times of a call's events: once, before the first try, so that every try is the same batch. */
export function eventParameters({ organization_id, actor, request_id }: Call): EventParameters {
  const now = unixNow();
  return {
    organization_id,
    event_id: newEventId(),
    ...actorParameters({ actor }),
    request_id,
    event_time: now,
    now,
  };
}
