import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { admit, setAnswered } from '../../src/worker/core/admission.ts';
import { withDeadlines } from '../../src/worker/core/deadlines.ts';
import { batch } from '../../src/worker/d1/batch.ts';
import { query } from '../../src/worker/d1/query.ts';
import { organizations } from '../../src/worker/d1/schema.ts';
import { interceptedBindings } from '../bindings.ts';

const SOME = 64;
const VERY_MANY = 10_000;
const SECOND = 1_000;
const HOUR = 3_600 * SECOND;

/** What D1 has to answer, and what waits for it. */
let open: PromiseWithResolvers<void>[] = [];
let waiting: Promise<void>[] = [];
let now = Date.now();

const pass = (milliseconds: number) => vi.setSystemTime((now += milliseconds));

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
  // What earlier tests sent is long ago.
  pass(HOUR);
  setAnswered(0);
  open = [];
  waiting = [];
});

afterEach(() => {
  vi.useRealTimers();
});

function send(): Promise<void> {
  const answer = Promise.withResolvers<void>();
  return admit(() => {
    open.push(answer);
    waiting.push(answer.promise);
    return answer.promise;
  });
}

/** D1 is not quick: it lets a batch wait for a second. */
function beSlow(): void {
  send().catch(() => {});
  pass(SECOND);
}

/** Sends batches until one is refused. @returns how many are at D1 then */
async function sendUntilRefused(): Promise<number> {
  let refusal: unknown;
  while (open.length < VERY_MANY) {
    const before = open.length;
    const sending = send();
    if (open.length === before) {
      refusal = await sending.catch(String);
      break;
    }
    sending.catch(() => {});
  }
  expect(refusal).toContain('overloaded');
  return open.length;
}

/** All that is at D1 ends, and what waits for it has heard so. */
async function endWith(end: (answer: PromiseWithResolvers<void>) => void): Promise<void> {
  for (const answer of open.splice(0)) end(answer);
  await Promise.allSettled(waiting.splice(0));
  await Promise.resolve();
}

/** D1 answers so many batches, each at once. */
async function haveAnswered(batches: number): Promise<void> {
  for (let answered = 0; answered < batches; answered += 1) await admit(async () => {});
}

describe('the batches that an isolate has at D1', () => {
  it('are as many as come at once, if D1 has let none wait for longer than half a second', async () => {
    send().catch(() => {});
    pass(SECOND / 2);
    for (let sent = 0; sent < 2 * SOME; sent += 1) send().catch(() => {});
    expect(open).toHaveLength(2 * SOME + 1);

    pass(1);
    await expect(send()).rejects.toThrow('overloaded');
  });

  it('are a few if D1 is slower and has answered none of late; further ones are not sent', async () => {
    beSlow();

    expect(await sendUntilRefused()).toBe(SOME);
  });

  it('are as many as D1 answered it just now', async () => {
    beSlow();
    await haveAnswered(500);

    expect(await sendUntilRefused()).toBe(500);
  });

  it('are as many as D1 answers in two seconds, if it goes on like that', async () => {
    for (let part = 0; part < 1_000; part += 1) {
      await haveAnswered(2);
      pass(10);
    }
    beSlow();

    const sent = await sendUntilRefused();
    // In the last second it answered nothing.
    expect(sent / (400 * Math.exp(-1 / 2))).toBeCloseTo(1, 1);
  });

  it('become few again after D1 has answered nothing for some seconds', async () => {
    await haveAnswered(500);
    pass(10 * SECOND);
    beSlow();

    expect(await sendUntilRefused()).toBe(SOME);
  });

  it('end with their answers and their errors; an error is no answer', async () => {
    beSlow();
    await sendUntilRefused();
    await endWith(({ resolve }) => resolve());
    setAnswered(0);
    for (let round = 0; round < 3; round += 1) {
      beSlow();
      expect(await sendUntilRefused()).toBe(SOME);
      await endWith(({ reject }) => reject(new Error('D1 DB is overloaded.')));
    }
  });

  it('are forgotten after 30 seconds: a call whose client has gone may never tell of their end', async () => {
    beSlow();
    await sendUntilRefused();
    pass(28 * SECOND);
    expect(await sendUntilRefused()).toBe(SOME);
    pass(2 * SECOND);
    open = [];
    beSlow();

    expect(await sendUntilRefused()).toBe(SOME);
  });

  it('are all that is bounded, and one too many is answered as if D1 were overloaded', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const ask = query((db) => db.select({ tier: organizations.tier }).from(organizations).limit(1));
    const calls: string[] = [];
    const bindings = interceptedBindings(async (name, carryOut) => {
      calls.push(name);
      return carryOut();
    });
    const env = withDeadlines(bindings, () => {}, HOUR);
    beSlow();
    await sendUntilRefused();

    await expect(batch(env.DB, [ask.bind({})])).rejects.toMatchObject({
      code: 'temporarily_unavailable',
      members: { outcome: 'not_done' },
    });
    expect(calls).toEqual([]);
    expect(await env.KEY_CACHE.get('nothing')).toBe(null);
    vi.restoreAllMocks();
  });
});
