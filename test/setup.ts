import { applyD1Migrations } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach } from 'vitest';
import { setAnswered } from '../src/worker/core/admission.ts';
import { refillRetryBudget } from '../src/worker/core/retry.ts';

const { setTimeout: wait } = globalThis;

// However slow the machine is, no call is late: what waits for a second or longer waits for fake clocks alone.
Reflect.set(globalThis, 'setTimeout', (resume: () => void, milliseconds = 0) =>
  wait(resume, milliseconds < 1_000 ? milliseconds : milliseconds * 1_000),
);

// A test's retries and batches are not refused for those of others, nor because the machine is slow.
beforeEach(refillRetryBudget);
beforeEach(() => setAnswered(Infinity));

await applyD1Migrations(env.DB, env.MIGRATIONS);
