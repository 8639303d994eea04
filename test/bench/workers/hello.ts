/** The floor: Hono, and one answer. */
import { Hono } from 'hono';

export default new Hono().all('*', (c) => c.json({ success: true }));
