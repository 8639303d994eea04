/** What `wrangler.toml` binds; generated from it by `wrangler types`, and `npm run check` holds the two together. */
export type Bindings = Cloudflare.Env;

/** Runs a task once the answer is on its way. A task that fails is logged. */
export type AfterAnswer = (task: () => Promise<unknown>) => void;
