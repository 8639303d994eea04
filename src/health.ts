import { Hono } from 'hono';
import { answer } from './answer.ts';
import { limitByIp } from './auth/rate-limit.ts';
import { databases } from './databases.ts';
import type { AppEnv, Bindings } from './env.ts';
import { logError } from './log.ts';
import { batch, query } from './query.ts';
import { organizations } from './schema.ts';
import { VERSION } from './version.ts';

const REMEMBERED_MILLISECONDS = 5000;

const askDatabase = query((db) => db.select({ tier: organizations.tier }).from(organizations).limit(1));

let remembered: { answers: boolean; until: number } | undefined;

/** Whether D1 answers: asked at most once in 5 s by an isolate, because anybody may ask here. */
async function databaseAnswers(env: Bindings): Promise<boolean> {
  if (remembered && Date.now() < remembered.until) return remembered.answers;
  const answers = await Promise.all(databases(env).map((database) => batch(database, [askDatabase.bind({})]))).then(
    () => true,
    (error: unknown) => {
      logError('health_database_unavailable', error);
      return false;
    },
  );
  remembered = { answers, until: Date.now() + REMEMBERED_MILLISECONDS };
  return answers;
}

/** For monitors: without a key, and telling nothing but the version and whether D1 answers. */
export const healthRoutes = new Hono<AppEnv>().get('/', async (c) => {
  await limitByIp('health', c);
  return (await databaseAnswers(c.env))
    ? answer(c, 200, { status: 'ok', version: VERSION, database: 'ok' })
    : answer(c, 503, { status: 'unavailable', version: VERSION, database: 'unavailable' });
});
