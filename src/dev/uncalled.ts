/**
 * Leaves out of the bundle what the Worker never calls of its libraries. A bundler keeps every method of a class, with all
 * that it needs, because it does not know which are called.
 */
import type { Plugin } from 'rolldown';

/** By the end of the file's path. */
const uncalled: Record<string, string> = {
  // Relational queries, db.query.…
  '/drizzle-orm/sqlite-core/dialect.js': 'buildRelationalQuery',
  // The columns of a table that gives them by a function.
  '/drizzle-orm/sqlite-core/columns/all.js': 'getSQLiteColumnBuilders',
  '/hono/dist/hono-base.js': 'mount',
  '/hono/dist/request.js': 'parseBody',
};

/** What a body becomes. The lines after it stay where they are, for the source map. */
const thrown = (lines: string) =>
  `throw new Error('src/dev/uncalled.ts left it out');${lines.replaceAll(/[^\n]/g, '')}`;

/**
 * In place of what it did, each of these throws. The build fails if one is not found, and if a method is named anywhere
 * else. (The only function among them would throw as soon as the Worker starts.)
 */
export function withoutUncalled(): Plugin {
  const left = new Map(Object.entries(uncalled));
  return {
    name: 'without-uncalled',
    transform(code, id) {
      const path = [...left.keys()].find((end) => id.replaceAll('\\', '/').endsWith(end));
      const name = path === undefined ? undefined : left.get(path);
      if (path === undefined || name === undefined) return null;
      const body = new RegExp(`(?<=^([ \\t]*)(?:async |function )?${name}\\([^]*?\\) \\{\\n)[^]*?(?=^\\1\\}$)`, 'm');
      if (!body.test(code)) return null;
      left.delete(path);
      return { code: code.replace(body, thrown), map: null };
    },
    generateBundle(_, bundle) {
      if (left.size > 0) this.error(`Not found: ${[...left].join('; ')}`);
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== 'chunk') continue;
        for (const name of Object.values(uncalled)) {
          const uses = chunk.code.match(new RegExp(`\\b${name}\\b`, 'g')) ?? [];
          if (uses.length > 1) this.error(`The Worker may call ${name} now.`);
        }
      }
    },
  };
}
