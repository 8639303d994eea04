import { Hono } from 'hono';
import { answer } from './answer.ts';
import { limitByIp } from './rate-limit.ts';
import { kekRing } from '../credentials/kek-ring.ts';
import type { Bindings } from '../env.ts';
import type { AppEnv } from './app-env.ts';
import { logError } from '../core/log.ts';
import { query } from '../d1/query.ts';
import { batch } from '../d1/batch.ts';
import { organizations } from '../d1/schema.ts';
import { VERSION } from '../version.ts';

const REMEMBERED_MILLISECONDS = 5000;

const askDatabase = query((db) => db.select({ tier: organizations.tier }).from(organizations).limit(1));

interface Health {
  database: 'ok' | 'unavailable';
  credentials: 'ok' | 'unavailable';
}

let remembered: { health: Health; until: number } | undefined;

const toldBy = (sign: Promise<unknown>, failed: string): Promise<'ok' | 'unavailable'> =>
  sign.then(
    () => 'ok',
    (error: unknown) => {
      logError(failed, error);
      return 'unavailable';
    },
  );

/** Whether D1 answers and the ring is usable: asked at most once in 5 s by an isolate, because anybody may ask here. */
async function healthOf(env: Bindings): Promise<Health> {
  if (remembered && Date.now() < remembered.until) return remembered.health;
  const [database, credentials] = await Promise.all([
    toldBy(batch(env.DB, [askDatabase.bind({})]), 'health_database_unavailable'),
    toldBy(kekRing(env.CREDENTIALS_KEKS), 'health_credentials_unavailable'),
  ]);
  const health = { database, credentials };
  remembered = { health, until: Date.now() + REMEMBERED_MILLISECONDS };
  return health;
}

/** For monitors: without a key, and telling nothing but the version, whether D1 answers and whether the ring is usable. */
export const healthRoutes = new Hono<AppEnv>().get('/', async (c) => {
  await limitByIp('health', c);
  const health = await healthOf(c.env);
  const isWell = Object.values(health).every((sign) => sign === 'ok');
  return answer(c, isWell ? 200 : 503, { status: isWell ? 'ok' : 'unavailable', version: VERSION, ...health });
});
