/**
 * How a call reaches D1, through a D1 session. A read goes to the nearest replica, which must be at least as new as the
 * client's bookmark. A mutation goes to the primary.
 *
 * @see https://developers.cloudflare.com/d1/best-practices/read-replication/
 */
import { DomainError } from '../core/errors.ts';
import type { Bindings } from '../env.ts';
import type { Database } from './batch.ts';

/** The part of a call that a D1 session needs. */
export interface ReadingCall extends SessionCall {
  readonly organization_id: string;
}

export interface SessionCall {
  readonly env: Bindings;
  /** Sent by the client: the read must see a state at least as new. */
  readonly bookmark?: string;
  readonly told: {
    /** The state of the database that the answer is from. */
    bookmark: string | null;
  };
}

/** For a call that reads: asks the nearest replica, which waits until it is as new as the client's bookmark. */
export function nearest<Result>(call: SessionCall, ask: (database: Database) => Promise<Result>): Promise<Result> {
  return inSession(call, call.bookmark ?? 'first-unconstrained', ask);
}

/** For a call that mutates. */
export function onPrimary<Result>(call: SessionCall, ask: (database: Database) => Promise<Result>): Promise<Result> {
  return inSession(call, 'first-primary', ask);
}

async function inSession<Result>(
  { env, told }: SessionCall,
  constraint: string,
  ask: (database: Database) => Promise<Result>,
): Promise<Result> {
  const session = open(env.DB, constraint);
  const result = await ask(session);
  told.bookmark = session.getBookmark() ?? told.bookmark;
  return result;
}

function open(database: D1Database, constraint: string): D1DatabaseSession {
  try {
    return database.withSession(constraint);
  } catch (cause) {
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' }, { cause });
  }
}
