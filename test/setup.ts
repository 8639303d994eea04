import { applyD1Migrations } from 'cloudflare:test';
import { env } from 'cloudflare:workers';

const { setTimeout: wait } = globalThis;

// However slow the machine is, no call is late: what waits for a second or longer waits for fake clocks alone.
Reflect.set(globalThis, 'setTimeout', (resume: () => void, milliseconds = 0) =>
  wait(resume, milliseconds < 1_000 ? milliseconds : milliseconds * 1_000),
);

await applyD1Migrations(env.DB, env.MIGRATIONS);
