/** Authentication and the rate limit alone, in front of hello's answer. */
import { Hono } from 'hono';
import type { AppEnv } from '../../../src/worker/http/app-env.ts';
import { authenticate } from '../../../src/worker/http/authenticate.ts';
import { limitOrganization } from '../../../src/worker/http/rate-limit.ts';
import { modelled } from './model.ts';

const app = new Hono<AppEnv>()
  .use(async (c, next) => {
    c.set('request_id', '');
    c.set('afterAnswer', () => {});
    c.set('headers', {});
    await next();
  })
  .use(authenticate, limitOrganization)
  .all('*', (c) => c.json({ success: true }));

export default modelled(app.fetch);
