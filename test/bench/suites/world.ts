/** Latency for clients in ten cities: of an earlier version of Patchbay, of this one, and of a service in one region. */
import { BEFORE } from '../before.ts';
import { startLoad } from '../load.ts';
import type { Loader, LoadRequest } from '../load.ts';
import { atLeast, atMost, shown } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { create, get, remove } from '../requests.ts';
import { addIntegrations, addKeys, assertDeleted, integrationId, newClient } from '../seed.ts';
import type { Client } from '../seed.ts';
import { serve } from '../server.ts';
import type { Server } from '../server.ts';
import { median, quantile } from '../statistics.ts';
import { cities, isCity, LAST_MILE_MS, ONE_REGION_MS, primaries, wayTime } from '../world.ts';
import type { City, Place } from '../world.ts';

const ROUNDS = 3;
/** Requests of each kind in a round. */
const BLOCK = 20;
const CONNECTIONS = 24;
/** For the targets: a near trip is so short that requests must hardly wait for each other. */
const FEW_CONNECTIONS = 2;

const cityNames = Object.keys(cities).filter(isCity);
const versions = ['before', 'after'] as const;
type Version = (typeof versions)[number];
const calls = ['read', 'create', 'delete'] as const;
type Call = (typeof calls)[number];

/**
 * `cold`: neither the isolate nor KV knows the API key. `warm`: the isolate has just served it. `trip`: one call of D1 and
 * nothing else.
 */
type Kind = `${'cold' | 'warm'} ${Call}` | `trip to ${'replica' | 'primary'}`;

const cold: Kind[] = ['cold read', 'cold create', 'cold delete'];
const warm: Kind[] = ['warm read', 'warm create', 'warm delete'];
const trips: Kind[] = ['trip to replica', 'trip to primary'];
const kindsOf: Record<Version, Kind[]> = { before: [...cold, ...warm], after: [...cold, ...warm, ...trips] };

const nameOf = (version: Version, primary: Place) => `${version}-${primary}`;

/** @throws Error if there are no more */
function next<Value>(values: Iterator<Value>): Value {
  const result = values.next();
  if (result.done) throw new Error('too few were made');
  return result.value;
}

/** Makes the rows that all rounds need, and measures one version with them. */
async function measuring(server: Server, load: Loader, name: string, rounds: number) {
  const { DB } = await server.bindings(name);
  const url = await server.url(name);
  const client = await newClient(DB);
  // From no city are there more calls of one kind: one before each round; and in it cold, warm, and for the targets.
  const callsFromCity = rounds * (1 + 3 * BLOCK);
  const keys = (await addKeys(DB, client, cityNames.length * calls.length * callsFromCity)).values();
  const warmKeys = new Map(cityNames.map((city) => [city, next(keys)]));
  // The first one is read; the others are there to be deleted.
  const seeded = 1 + cityNames.length * callsFromCity;
  await addIntegrations(DB, client, seeded);
  const ids = Array.from({ length: seeded - 1 }, (_, index) => integrationId(1 + index)).values();

  type Make = (headers: Client['headers']) => LoadRequest;
  const read: Make = (headers) => get(headers, integrationId(0));
  const createOne: Make = (headers) => ({ ...create(headers), path: '/api/integrations?verify=false' });
  const removeOne: Make = (headers) => remove(headers, next(ids));
  const trip = (path: string, byPrimary: boolean): LoadRequest => ({
    method: 'GET',
    path,
    status: 200,
    expected: `"served_by_primary":${byPrimary}`,
  });
  const makers: Record<Kind, Make> = {
    'cold read': () => read(next(keys)),
    'cold create': () => createOne(next(keys)),
    'cold delete': () => removeOne(next(keys)),
    'warm read': read,
    'warm create': createOne,
    'warm delete': removeOne,
    'trip to replica': () => trip('/trip/replica', false),
    'trip to primary': () => trip('/trip/primary', true),
  };
  function make(kind: Kind, city: City, luck: number): LoadRequest {
    const request = makers[kind](warmKeys.get(city) ?? {});
    return { ...request, headers: { ...request.headers, 'X-City': city, 'X-Luck': String(luck) } };
  }

  const sent: LoadRequest[] = [];
  const latencies: Record<string, number[]> = {};
  const nameIn = (city: City, kind: Kind, connections: number) => `${city}, ${kind}, ${connections}`;
  async function send(requests: LoadRequest[], connections: number): Promise<number[]> {
    sent.push(...requests);
    return (await load.run({ url, connections, requests })).latencies;
  }
  return {
    /** Makes the keys warm. The mutations also make D1 as lately written as it is from then on. */
    async warmUp(): Promise<void> {
      const requests = warm.flatMap((kind) => cityNames.map((city) => make(kind, city, 0)));
      await send(requests, CONNECTIONS);
    },
    /** Sends a block of each kind from each city, all of them in turn. */
    async measure(round: number, from: City[], kinds: Kind[], connections: number): Promise<void> {
      const planned = Array.from({ length: BLOCK }, (_, index) =>
        from.flatMap((city) => kinds.map((kind) => ({ city, kind, request: make(kind, city, round * BLOCK + index) }))),
      ).flat();
      const taken = await send(
        planned.map(({ request }) => request),
        connections,
      );
      for (const [index, { city, kind }] of planned.entries()) {
        (latencies[nameIn(city, kind, connections)] ??= []).push(taken[index] ?? Number.NaN);
      }
    },
    /** In milliseconds. */
    latencies: (city: City, kind: Kind, connections: number) => latencies[nameIn(city, kind, connections)] ?? [],
    assertDone(): Promise<void> {
      const count = (wanted: LoadRequest['method']) => sent.filter(({ method }) => method === wanted).length;
      return assertDeleted(DB, count('DELETE'), seeded + count('POST') - count('DELETE'));
    },
  };
}

/** What the targets are about, from {@link TARGET_CITY} with the primary in {@link TARGET_PRIMARY}. */
const targets = [
  { call: 'read', trip: 'trip to replica', copy: 'the nearest replica', most: 1.15 },
  { call: 'delete', trip: 'trip to primary', copy: 'the primary', most: 1.05 },
] as const;
const targetKinds: Kind[] = ['cold read', 'cold delete', ...trips];
const TARGET_CITY = 'Sydney';
const TARGET_PRIMARY = 'Virginia';

export async function world({ rounds = ROUNDS }: Settings): Promise<Findings> {
  const server = await serve(
    primaries.flatMap((primary) =>
      versions.map((version) => ({
        name: nameOf(version, primary),
        worker: 'world',
        variables: { PRIMARY: primary },
        ...(version === 'before' && { commit: BEFORE }),
      })),
    ),
  );
  const load = startLoad();
  try {
    const worlds = [];
    for (const primary of primaries) {
      const before = await measuring(server, load, nameOf('before', primary), rounds);
      const after = await measuring(server, load, nameOf('after', primary), rounds);
      worlds.push({ primary, of: { before, after } });
    }
    for (let round = 0; round < rounds; round += 1) {
      for (const { primary, of } of worlds) {
        for (const version of versions) {
          const kinds = kindsOf[version];
          await of[version].warmUp();
          await of[version].measure(round, cityNames, kinds, CONNECTIONS);
          if (primary !== TARGET_PRIMARY) continue;
          const wanted = targetKinds.filter((kind) => kinds.includes(kind));
          await of[version].measure(round, [TARGET_CITY], wanted, FEW_CONNECTIONS);
        }
      }
    }

    const tables = [];
    const verdicts = [];
    for (const { primary, of } of worlds) {
      for (const version of versions) await of[version].assertDone();
      const taken = (version: Version, city: City, kind: Kind, connections = CONNECTIONS) =>
        of[version].latencies(city, kind, connections);
      const tripOf = (call: Call) => (call === 'read' ? 'trip to replica' : 'trip to primary');
      const title = `Primary in ${primary}: p50 / p99 in ms, ${rounds * BLOCK} requests of each kind`;
      tables.push({
        title: `${title} at ${CONNECTIONS} connections`,
        rows: cityNames.flatMap((city) =>
          calls.map((call) => ({
            from: city,
            call,
            'cold, before': pair(taken('before', city, `cold ${call}`)),
            'cold, after': pair(taken('after', city, `cold ${call}`)),
            'warm, before': pair(taken('before', city, `warm ${call}`)),
            'warm, after': pair(taken('after', city, `warm ${call}`)),
            'one D1 trip alone': pair(taken('after', city, tripOf(call))),
            'one region': oneRegion(city, primary),
          })),
        ),
      });
      if (primary !== TARGET_PRIMARY) continue;
      const figures = targets.map(({ call, trip, copy, most }) => ({
        before: taken('before', TARGET_CITY, `cold ${call}`, FEW_CONNECTIONS),
        after: taken('after', TARGET_CITY, `cold ${call}`, FEW_CONNECTIONS),
        alone: taken('after', TARGET_CITY, trip, FEW_CONNECTIONS),
        call,
        copy,
        most,
      }));
      tables.push({
        title: `${title} at ${FEW_CONNECTIONS} connections`,
        rows: figures.map(({ call, before, after, alone }) => ({
          from: TARGET_CITY,
          call,
          'cold, before': pair(before),
          'cold, after': pair(after),
          'one D1 trip alone': pair(alone),
        })),
      });
      for (const { call, copy, most, before, after, alone } of figures) {
        const what = `cold ${call} from ${TARGET_CITY}, primary in ${TARGET_PRIMARY}`;
        verdicts.push(
          atMost(`${what}: p50 ÷ a trip to ${copy}`, median(after) / median(alone), most),
          atLeast(`${what}: × as fast as before`, median(before) / median(after), 2),
        );
      }
    }
    return { tables, verdicts };
  } finally {
    load.stop();
    await server.dispose();
  }
}

const pair = (latencies: number[]) => `${shown(median(latencies))} / ${shown(quantile(latencies, 0.99))}`;

/** Not run, but reckoned: a trip to the region, and a fixed time there. */
function oneRegion(city: City, region: Place): string {
  const time = (share: number) => shown(wayTime(LAST_MILE_MS + cities[city][region], share) + ONE_REGION_MS);
  return `${time(0.5)} / ${time(0.99)}`;
}
