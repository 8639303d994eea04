/**
 * How a call asks D1, by its Sessions: a read goes to the nearest replica that is as new as the client's bookmark, a mutation
 * to the primary. https://developers.cloudflare.com/d1/best-practices/read-replication/
 */
import { DomainError } from '../core/errors.ts';
import type { Bindings } from '../env.ts';
import type { Database } from './batch.ts';

/** What D1's Sessions need of a call. */
export interface ReadingCall {
  readonly env: Bindings;
  readonly organization_id: string;
  /** Of a read whose client has written or read before: the state that it must see at least. */
  readonly bookmark?: string;
  readonly told: {
    /** Which state of the database the answer is from. */
    bookmark: string | null;
  };
}

/** Asks for a call that reads: the nearest replica, unless it is older than the client's bookmark. */
export function nearest<Result>(call: ReadingCall, ask: (database: Database) => Promise<Result>): Promise<Result> {
  return inSession(call, call.bookmark ?? 'first-unconstrained', ask);
}

/** Asks for a call that mutates. */
export function onPrimary<Result>(call: ReadingCall, ask: (database: Database) => Promise<Result>): Promise<Result> {
  return inSession(call, 'first-primary', ask);
}

async function inSession<Result>(
  { env, told }: ReadingCall,
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
