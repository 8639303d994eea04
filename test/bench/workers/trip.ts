/** One call of D1 and nothing else: what no Worker that asks it can be faster than. */
import { Hono } from 'hono';
import type { Bindings } from '../../../src/worker/env.ts';
import { modelled } from './model.ts';

const app = new Hono<{ Bindings: Bindings }>().all('*', async (c) => {
  const { success } = await c.env.DB.prepare('SELECT 1').all();
  return c.json({ success });
});

export default modelled(app.fetch);
