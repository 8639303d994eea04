/** What Hono and Drizzle cost together: one answer, and one query built. */
import { eq } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/d1';
import { sqliteTable, text } from 'drizzle-orm/sqlite-core';
import { Hono } from 'hono';

const things = sqliteTable('things', { thing_id: text().primaryKey(), name: text().notNull() });

export default new Hono<{ Bindings: { DB: D1Database } }>().all('*', (c) => {
  const query = drizzle(c.env.DB).select().from(things).where(eq(things.thing_id, 'one')).toSQL();
  return c.json({ success: query.params.length === 1 });
});
