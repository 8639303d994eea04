/** Authentication and the rate limit alone, in front of hello's answer. */
import { Hono } from 'hono';
import { nearest } from '../../../src/worker/d1/replica-session.ts';
import type { AppEnv } from '../../../src/worker/http/app-env.ts';
import { authenticate } from '../../../src/worker/http/authenticate.ts';
import { limitOrganization } from '../../../src/worker/http/rate-limit.ts';
import { modelled } from './model.ts';

const app = new Hono<AppEnv>()
  .use(async (c, next) => {
    c.set('request_id', '');
    c.set('afterAnswer', () => {});
    c.set('headers', {});
    c.set('told', { replayed: false, bookmark: null, exhausted: null });
    await next();
  })
  .use(authenticate, limitOrganization)
  .all('*', async (c) => {
    const call = c.get('call');
    if (call.key.lookup) await nearest(call, {});
    return c.json({ success: true });
  });

export default modelled(app.fetch);
