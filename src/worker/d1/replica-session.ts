/**
 * How a call reaches D1, through a D1 session. A read goes to the nearest replica, which must be at least as new as the
 * client's bookmark. A mutation goes to the primary.
 *
 * If no cache knows the call's key, the call's first batch looks it up. Until D1 has found it alive, that batch reads nothing
 * else.
 *
 * @see https://developers.cloudflare.com/d1/best-practices/read-replication/
 */
import type { Bindings } from '../env.ts';
import { actThenRead, nothingDone } from './batch.ts';
import type { Reads, ResultsOf } from './batch.ts';
import type { BoundQuery, Rows } from './query.ts';

/** How D1 is asked about a key that no cache knows. */
export interface KeyLookup {
  readonly find: BoundQuery<Rows>;
  /** Has a row if the key is alive, and is of the organization that the call names. */
  readonly isAlive: BoundQuery<unknown>;
  /**
   * Takes what D1 found.
   *
   * @param hasActed the call has acted, so that its key was alive, whatever D1 says of it now
   * @returns false if a replica cannot decide: the primary must be asked
   * @throws DomainError why the call is refused
   */
  settle(found: Rows, isPrimary: boolean, hasActed?: boolean): boolean;
}

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
  /** The key that the call came with. */
  readonly key: {
    /** Only as long as the holder is unknown. */
    lookup?: KeyLookup | undefined;
  };
}

/** For a call that reads: asks the nearest replica, which waits until it is as new as the client's bookmark. */
export async function nearest<Named extends Reads>(call: SessionCall, reads: Named): Promise<ResultsOf<Named>> {
  const { key, bookmark = 'first-unconstrained' } = call;
  const { acted, read, isPrimary } = await inSession(call, bookmark, [], ifAlive(call, reads));
  if (!key.lookup || key.lookup.settle(acted[0] ?? [], isPrimary)) return read;
  return readOnPrimary(call, reads);
}

/** For a call that reads what a replica may not have yet. */
export async function readOnPrimary<Named extends Reads>(call: SessionCall, reads: Named): Promise<ResultsOf<Named>> {
  const { read, confirm } = await onPrimary(call, [], ifAlive(call, reads));
  confirm();
  return read;
}

/**
 * For a call that mutates: the statements and then the reads, in one batch on the primary (batch.ts). The statements must check
 * the caller themselves.
 *
 * @returns `confirm` must be called. It throws a DomainError if D1 does not know the caller, unless the call has acted
 */
export async function onPrimary<Named extends Reads>(
  call: SessionCall,
  statements: readonly BoundQuery<unknown>[],
  reads: Named,
  milliseconds?: number,
): Promise<{ read: ResultsOf<Named>; inDoubt: boolean; confirm: (hasActed?: boolean) => void }> {
  const { acted, read, inDoubt } = await inSession(call, 'first-primary', statements, reads, milliseconds);
  function confirm(hasActed = false) {
    try {
      call.key.lookup?.settle(acted[0] ?? [], true, hasActed);
    } catch (error) {
      if (!hasActed) throw error;
    }
  }
  return { read, inDoubt, confirm };
}

/**
 * The reads as a call may have them whose key is yet to be looked up: without a row, unless D1 finds the key alive.
 *
 * @param orIf they have their rows also if this has one
 */
export function ifAlive<Named extends Reads>(
  { key }: SessionCall,
  reads: Named,
  orIf?: () => BoundQuery<unknown>,
): Named {
  const { lookup } = key;
  if (!lookup) return reads;
  const conditions = orIf ? [lookup.isAlive, orIf()] : [lookup.isAlive];
  // SQLite evaluates the limit first, and at 0 it reads no row.
  const limit = `LIMIT iif(${conditions.map(({ sql }) => `EXISTS (${sql})`).join(' OR ')}, -1, 0)`;
  const limited = Object.entries(reads).map(([name, bound]) => [
    name,
    {
      ...bound,
      sql: `SELECT * FROM (${bound.sql}) ${limit}`,
      parameters: [...bound.parameters, ...conditions.flatMap(({ parameters }) => parameters)],
    },
  ]);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Object.fromEntries forgets the names
  return Object.fromEntries(limited) as Named;
}

async function inSession<Named extends Reads>(
  { env, told, key }: SessionCall,
  constraint: string,
  statements: readonly BoundQuery<unknown>[],
  reads: Named,
  milliseconds?: number,
) {
  const session = open(env.DB, constraint);
  const acting = key.lookup ? [key.lookup.find, ...statements] : statements;
  const answer = await actThenRead(session, acting, reads, milliseconds);
  told.bookmark = session.getBookmark() ?? told.bookmark;
  return answer;
}

function open(database: D1Database, constraint: string): D1DatabaseSession {
  try {
    return database.withSession(constraint);
  } catch (cause) {
    throw nothingDone(cause);
  }
}
