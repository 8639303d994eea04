/**
 * The world that the suite `world` models: how far it is from ten cities to Cloudflare, to KV and to D1. Milliseconds, there
 * and back, and medians.
 *
 * Published: the times between cities. Each city is the AWS region there; cloudping.co measures TCP between all regions.
 * Median of the year before 2022-04-08, rounded, as kept in https://github.com/bc-computing/gus-automation
 * (generate_server_ping_latencies/all_latencies.json). IBM's data centers in the same cities are about as far from each
 * other: Sydney to Washington 213, Frankfurt to Washington 90, London to Frankfurt 13 (average of 2024-09-28 to 2024-10-27,
 * https://github.com/ibm-cloud-docs/vpc, _include-segments/network-latency.md).
 *
 * Published: where D1 has replicas. That is every region of D1, the primary's included (of 2026-08-10,
 * https://developers.cloudflare.com/d1/best-practices/read-replication/#read-replica-locations). Stated: in which city of
 * its region a replica is. Eastern Europe is left out, because it is nearest to none of the cities.
 *
 * Stated on 2026-11-28, because nobody publishes it: everything else.
 */

/** Where D1 can be, by its name of the region. */
export const d1Places = {
  ENAM: 'Virginia',
  WEUR: 'Frankfurt',
  WNAM: 'San Francisco',
  APAC: 'Singapore',
  OC: 'Sydney',
} as const;

export type Place = (typeof d1Places)[keyof typeof d1Places];

/** From a city to each place of D1. */
export const cities = {
  Sydney: { Virginia: 199, Frankfurt: 267, 'San Francisco': 139, Singapore: 93, Sydney: 3 },
  Tokyo: { Virginia: 146, Frankfurt: 225, 'San Francisco': 109, Singapore: 74, Sydney: 111 },
  Singapore: { Virginia: 214, Frankfurt: 157, 'San Francisco': 177, Singapore: 2, Sydney: 94 },
  Mumbai: { Virginia: 187, Frankfurt: 122, 'San Francisco': 233, Singapore: 60, Sydney: 149 },
  'Cape Town': { Virginia: 221, Frankfurt: 162, 'San Francisco': 295, Singapore: 214, Sydney: 413 },
  Frankfurt: { Virginia: 90, Frankfurt: 3, 'San Francisco': 151, Singapore: 157, Sydney: 269 },
  London: { Virginia: 77, Frankfurt: 17, 'San Francisco': 146, Singapore: 171, Sydney: 266 },
  'Sao Paulo': { Virginia: 116, Frankfurt: 205, 'San Francisco': 177, Singapore: 324, Sydney: 313 },
  Virginia: { Virginia: 5, Frankfurt: 91, 'San Francisco': 63, Singapore: 215, Sydney: 199 },
  'San Francisco': { Virginia: 62, Frankfurt: 151, 'San Francisco': 2, Singapore: 177, Sydney: 139 },
} satisfies Record<string, Record<Place, number>>;

export type City = keyof typeof cities;
export const isCity = (name: string): name is City => Object.hasOwn(cities, name);

/** Where the primary is, in turn. */
export const primaries = ['Virginia', 'Frankfurt'] as const satisfies Place[];

/** From a client to the nearest location of Cloudflare, which is in its city. */
export const LAST_MILE_MS = 10;
/** What D1 adds to the way there: the hops within its location, and the queries. */
export const D1_MS = 8;

/** A read of a key that this location has. */
export const KV_HOT_MS = 5;
/** For so long a location has a key that was read or written there: the `cacheTtl` of Patchbay's reads. */
export const KV_HOT_SECONDS = 30;
/**
 * Any other read, and every write, goes to the nearer of KV's central stores, which are taken to be in Virginia and
 * Frankfurt. This is what KV adds to the way there.
 */
export const KV_CENTRAL_MS = 60;

/** What a service in one region takes for a call, with everything local to it. */
export const ONE_REGION_MS = 5;

/**
 * A way's time is its median × (1 + JITTER × (E − ln 2)), E exponentially distributed with mean 1: seldom much shorter
 * than the median, and at times much longer. The 99th percentile is 1.39 × the median.
 */
export const JITTER = 0.1;

/** @param share the share of the ways that take no longer, from 0 to less than 1 */
export const wayTime = (median: number, share: number) => median * (1 + JITTER * (-Math.log1p(-share) - Math.LN2));

/** The way to the nearest copy of the database. */
export const toNearestReplica = (city: City) => Math.min(...Object.values(cities[city]));

/** The way to the nearer of KV's central stores. */
export const toKvCenter = (city: City) => Math.min(cities[city].Virginia, cities[city].Frankfurt);
