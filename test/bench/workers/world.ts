/**
 * Patchbay as clients of the world see it: each call of a binding takes as long as its way from the request's city, which
 * ../world.ts tells. Under /trip, one call of D1 and nothing else: what no Worker that asks it can be faster than.
 *
 * It needs no more of a version of Patchbay than these two files, because ../before.ts bundles it with another.
 */
import type { Bindings } from '../../../src/worker/env.ts';
import worker from '../../../src/worker/index.ts';
import {
  cities,
  D1_MS,
  isCity,
  KV_CENTRAL_MS,
  KV_HOT_MS,
  KV_HOT_SECONDS,
  LAST_MILE_MS,
  toKvCenter,
  toNearestReplica,
  wayTime,
} from '../world.ts';
import type { City, Place } from '../world.ts';
import { takeAtLeast } from './edge.ts';
import { intercept } from './intercept.ts';
import type { Around } from './intercept.ts';
import { nearLimits } from './limits.ts';

/** Takes the median of a way, and says how long it is this time. */
type Way = (median: number) => number;

/**
 * The ways of one kind that the luck of a request gives it. They are equal for the same luck, so that what is compared has
 * the same, and evenly spread over lucks 0, 1, 2, … (a Kronecker sequence), so that few requests have all of it.
 */
function ways(luck: number, primes: readonly number[]): Way {
  let made = 0;
  return (median) => wayTime(median, (luck * Math.sqrt(primes[made++ % primes.length] ?? 0)) % 1);
}

/** Of each kind its own, so that a way of one does not change the luck of another. */
const clientPrimes = [2];
const d1Primes = [3, 5, 7, 11, 13];
const kvPrimes = [17, 19, 23, 29];

const hasMeta = (result: unknown): result is Pick<D1Response, 'meta'> =>
  typeof result === 'object' && result !== null && 'meta' in result;

/** Of a batch or a statement. Local D1 does not tell who served a query. */
function servedBy(answer: unknown, served_by_primary: boolean): unknown {
  for (const { meta } of [answer].flat().filter(hasMeta)) Object.assign(meta, { served_by_primary });
  return answer;
}

/** Sessions ask the nearest replica unless they are to begin on the primary; all else is asked of the primary. */
function farDatabase(database: D1Database, city: City, primary: Place, way: Way): D1Database {
  const toPrimary = cities[city][primary];
  const onPrimary: Around = async (_, call) => servedBy(await takeAtLeast(way(toPrimary + D1_MS), call), true);
  const onReplica: Around = async (_, call) => {
    const answer = await takeAtLeast(way(toNearestReplica(city) + D1_MS), call);
    const hasWritten = [answer]
      .flat()
      .filter(hasMeta)
      .some(({ meta }) => meta.changed_db);
    // A replica passes writes on.
    if (hasWritten) await scheduler.wait(way(toPrimary));
    return servedBy(answer, hasWritten);
  };
  return new Proxy(intercept(database, onPrimary), {
    get(target, name) {
      if (name !== 'withSession') return Reflect.get(target, name);
      return (constraint?: string) =>
        intercept(database.withSession(constraint), constraint === 'first-primary' ? onPrimary : onReplica);
    },
  });
}

/** When a location last read or wrote a key. */
const uses = new Map<string, number>();

function farNamespace(namespace: KVNamespace, city: City, way: Way): KVNamespace {
  return intercept(namespace, (method, call, [key]) => {
    const use = `${city} ${String(key)}`;
    const now = Date.now();
    const isHot = method === 'get' && now - (uses.get(use) ?? 0) < KV_HOT_SECONDS * 1000;
    uses.set(use, now);
    return takeAtLeast(way(isHot ? KV_HOT_MS : toKvCenter(city) + KV_CENTRAL_MS), call);
  });
}

async function trip(path: string, database: D1Database): Promise<Response> {
  const session = database.withSession(path === '/trip/replica' ? 'first-unconstrained' : 'first-primary');
  return Response.json(await session.prepare('SELECT 1').all());
}

// The log's lines are made, and go nowhere, as in model.ts.
Object.assign(console, { info: () => {} });

export default {
  async fetch(request, { PRIMARY, ...env }, context) {
    const city = request.headers.get('X-City') ?? '';
    if (!isCity(city)) throw new Error(`there is no city ${city}`);
    const luck = Number(request.headers.get('X-Luck'));
    const kvWay = ways(luck, kvPrimes);
    const bindings: Bindings = {
      ...env,
      ...nearLimits,
      DB: farDatabase(env.DB, city, PRIMARY, ways(luck, d1Primes)),
      KEY_CACHE: farNamespace(env.KEY_CACHE, city, kvWay),
      CREDENTIALS: farNamespace(env.CREDENTIALS, city, kvWay),
    };
    await scheduler.wait(ways(luck, clientPrimes)(LAST_MILE_MS));
    const { pathname } = new URL(request.url);
    return pathname.startsWith('/trip/') ? trip(pathname, bindings.DB) : worker.fetch(request, bindings, context);
  },
} satisfies ExportedHandler<Bindings & { PRIMARY: Place }>;
