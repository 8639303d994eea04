/** A call: one act on one organization, and who acts. Nothing here knows of HTTP. */
import type { Caller } from '../callers/key-cache.ts';
import { newEventId } from '../core/ids.ts';
import { unixNow } from '../core/time.ts';
import type { ActorType } from '../core/vocabulary.ts';
import type { ReadingCall } from '../d1/replica-session.ts';
import type { AfterAnswer } from '../env.ts';

/** Who acts. Audit events keep it as it was then. */
export interface Actor {
  readonly type: ActorType;
  /** Null where the type says all that is known. */
  readonly id: string | null;
  readonly name: string | null;
}

export interface Call {
  readonly organization_id: string;
  readonly actor: Actor;
  readonly request_id: string;
}

/** A call by an API key. */
export interface ApiCall extends Call, ReadingCall {
  readonly caller: Caller;
  readonly afterAnswer: AfterAnswer;
  /** Of a request with an Idempotency-Key. */
  readonly idempotency?: Idempotency;
  /** What its answer tells beside the body. Filled in while the call is carried out. */
  readonly told: ReadingCall['told'] & {
    /** The request was answered before, and this is that answer. */
    replayed: boolean;
  };
}

export interface Idempotency {
  readonly idempotency_key: string;
  readonly method: string;
  readonly path: string;
  /** Tells this body and query string from others, and nothing else to anybody. */
  readonly fingerprint: string;
}

/** A call by an operator's command. */
export function operatorCall(organization_id: string, request_id: string = crypto.randomUUID()): Call {
  return { organization_id, actor: { type: 'operator', id: null, name: null }, request_id };
}

/** What the events of a call are recorded from. */
export interface EventParameters {
  organization_id: string;
  /** Of the event that decides. Events about further targets have ids of their own (event.ts). */
  event_id: string;
  actor_type: ActorType;
  actor_id: string | null;
  actor_name: string | null;
  /** Null for an actor that is no API key. */
  actor_key_id: string | null;
  request_id: string;
  /** Unix seconds: when the call began, by the clock of whoever carries it out. */
  event_time: number;
  /** Unix seconds. */
  now: number;
}

/**
 * Mints the ids and times of a call's events: once, before the first try, so that every try is the same batch.
 */
export function eventParameters({ organization_id, actor, request_id }: Call): EventParameters {
  const now = unixNow();
  return {
    organization_id,
    event_id: newEventId(),
    actor_type: actor.type,
    actor_id: actor.id,
    actor_name: actor.name,
    actor_key_id: actor.type === 'api_key' ? actor.id : null,
    request_id,
    event_time: now,
    now,
  };
}
