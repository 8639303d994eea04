/**
 * Bindings that answer from memory, so that only the Worker's own CPU remains: a batch is answered with what D1 itself
 * said when it was first sent.
 */
import type { Bindings } from '../../../src/worker/env.ts';
import { nearLimits } from './limits.ts';

const notRecorded = () => Promise.reject(new Error('Only batches are recorded.'));

class RecordedStatement implements D1PreparedStatement {
  readonly sql: string;
  readonly values: unknown[];
  readonly run = notRecorded;
  readonly all = notRecorded;
  readonly raw = notRecorded;

  readonly #database: D1Database;

  constructor(database: D1Database, sql: string, values: unknown[] = []) {
    this.#database = database;
    this.sql = sql;
    this.values = values;
  }

  bind(...values: unknown[]) {
    return new RecordedStatement(this.#database, this.sql, values);
  }

  /** Not recorded: who asks in this way keeps the answer. */
  first<Row>() {
    return this.#database
      .prepare(this.sql)
      .bind(...this.values)
      .first<Row>();
  }
}

/** What D1 said to the batch of the statements so far, and to those that go on with this one. */
interface Recorded {
  results?: D1Result<never>[];
  next: Map<string, Recorded>;
}

class RecordedDatabase implements D1Database {
  readonly exec = notRecorded;
  readonly dump = notRecorded;
  readonly #database: D1Database;
  /** By the SQL of one statement after the other: their parameters change, and batches have statements in common. */
  readonly #recorded: Recorded = { next: new Map() };

  constructor(database: D1Database) {
    this.#database = database;
  }

  prepare(sql: string) {
    return new RecordedStatement(this.#database, sql);
  }

  withSession() {
    return { prepare: this.prepare.bind(this), batch: this.batch.bind(this), getBookmark: () => 'recorded' };
  }

  async batch<Row>(given: D1PreparedStatement[]): Promise<D1Result<Row>[]> {
    const statements = given.filter((statement) => statement instanceof RecordedStatement);
    let recorded = this.#recorded;
    for (const { sql } of statements) {
      const next = recorded.next.get(sql) ?? { next: new Map() };
      recorded.next.set(sql, next);
      recorded = next;
    }
    if (recorded.results) return inNameOf(statements, recorded.results);
    return (recorded.results = await this.#database.batch<never>(
      statements.map(({ sql, values }) => this.#database.prepare(sql).bind(...values)),
    ));
  }
}

const isEventId = (value: unknown) => typeof value === 'string' && /^[0-9a-f]{8}-[0-9a-f]{4}-7/.test(value);

/** A decision is told from another request's by the id of its event: the one that was sent. */
function inNameOf(statements: RecordedStatement[], known: D1Result<never>[]): D1Result<never>[] {
  const decides = statements.find(({ values }) => values.some(isEventId));
  const event_id = decides?.values.find(isEventId);
  const decided: object[] = known.flatMap(({ results }) => results).filter((row) => 'event_id' in row);
  for (const row of decided) Object.assign(row, { event_id });
  return known;
}

/** A namespace of which every key is missing. */
function missing(key: string): Promise<null>;
function missing(keys: string[]): Promise<Map<string, null>>;
async function missing(key: string | string[]) {
  return typeof key === 'string' ? null : new Map<string, null>();
}

/** A binding with some of its methods replaced. */
const withMethods = <Binding extends object>(binding: Binding, methods: Partial<Binding>): Binding =>
  new Proxy(binding, {
    get(target, name) {
      if (name in methods) return Reflect.get(methods, name);
      const member: unknown = Reflect.get(target, name);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });

export function recordedBindings(env: Bindings): Bindings {
  return {
    ...env,
    ...nearLimits,
    DB: new RecordedDatabase(env.DB),
    KEY_CACHE: { ...env.KEY_CACHE, get: missing, put: async () => {} },
    CREDENTIALS: withMethods(env.CREDENTIALS, { put: async () => {}, delete: async () => {} }),
  };
}
