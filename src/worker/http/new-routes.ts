import { HonoBase } from 'hono/hono-base';
import { TrieRouter } from 'hono/router/trie-router';
import type { AppEnv } from './app-env.ts';

/** Hono with the one router that `hono/method-not-allowed` needs too, so that the bundle has no other. */
export const newRoutes = () => new HonoBase<AppEnv>({ router: new TrieRouter() });
