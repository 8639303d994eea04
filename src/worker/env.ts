/**
 * The bindings of `wrangler.toml`. `wrangler types` generates the type, and `npm run check` fails if it is out of date.
 */
export type Bindings = Cloudflare.Env;

/** Runs a task after the answer has been sent. If the task fails, that is logged. */
export type AfterAnswer = (task: () => Promise<unknown>) => void;
