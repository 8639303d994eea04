import { logError } from '../core/log.ts';
import { kekRing } from '../credentials/kek-ring.ts';
import { batch } from '../d1/batch.ts';
import { query } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';
import type { Bindings } from '../env.ts';
import { VERSION } from '../version.ts';
import { answer } from './answer.ts';
import { newRoutes } from './new-routes.ts';
import { limitByIp } from './rate-limit.ts';

const REMEMBERED_MILLISECONDS = 5000;

const askDatabase = query((db) => db.select({ tier: organizations.tier }).from(organizations).limit(1));

interface Health {
  database: 'ok' | 'unavailable';
  credentials: 'ok' | 'unavailable';
}

let remembered: { health: Health; until: number } | undefined;

const statusOf = (check: Promise<unknown>, failure: string): Promise<'ok' | 'unavailable'> =>
  check.then(
    () => 'ok',
    (error: unknown) => {
      logError(failure, error);
      return 'unavailable';
    },
  );

/** Checks D1 and the ring. An isolate does so at most once in 5 s, because anybody may call this. */
async function healthOf(env: Bindings): Promise<Health> {
  if (remembered && Date.now() < remembered.until) return remembered.health;
  const [database, credentials] = await Promise.all([
    statusOf(batch(env.DB, [askDatabase.bind({})]), 'health_database_unavailable'),
    statusOf(kekRing(env.CREDENTIALS_KEKS), 'health_credentials_unavailable'),
  ]);
  const health = { database, credentials };
  remembered = { health, until: Date.now() + REMEMBERED_MILLISECONDS };
  return health;
}

/**
 * For monitors, without an API key. It reveals only the version, whether D1 answers, and whether the ring is usable.
 */
export const healthRoutes = newRoutes().get('/', async (c) => {
  await limitByIp('health', c);
  const health = await healthOf(c.env);
  const isHealthy = Object.values(health).every((status) => status === 'ok');
  return answer(c, isHealthy ? 200 : 503, { status: isHealthy ? 'ok' : 'unavailable', version: VERSION, ...health });
});
