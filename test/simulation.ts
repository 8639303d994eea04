/** What the simulated providers answer, and what they were asked (src/dev/simulation.ts). */
import { env } from 'cloudflare:workers';
import * as z from 'zod';
import type { SimulatedAnswer } from '../src/dev/simulation.ts';

const { twilio: origin = '' } = z.record(z.string(), z.string()).parse(JSON.parse(env.PROVIDER_ORIGINS));

let secrets = 0;

/** A secret that no other test has. */
const newSecret = () => `plaintext-${crypto.randomUUID()}-${(secrets += 1)}`;

const put = (path: string, body: object) => fetch(`${origin}${path}`, { method: 'PUT', body: JSON.stringify(body) });

/** A secret that no other test has, which is answered so, time after time; the last answer stays. */
export async function secretAnswering(...answers: SimulatedAnswer[]): Promise<string> {
  const secret = newSecret();
  await answerNow(secret, ...answers);
  return secret;
}

/** The same, of an account that has these numbers; without answers it is good. */
export async function secretHolding(numbers: string[], ...answers: SimulatedAnswer[]): Promise<string> {
  const secret = newSecret();
  await holdNow(secret, numbers);
  if (answers.length > 0) await answerNow(secret, ...answers);
  return secret;
}

/** From now on the secret is answered so. */
export async function answerNow(secret: string, ...answers: SimulatedAnswer[]): Promise<void> {
  await put('/simulation/answers', { secret, answers });
}

/** From now on the account of the secret has these numbers and no other. */
export async function holdNow(secret: string, numbers: string[]): Promise<void> {
  await put('/simulation/numbers', { secret, numbers });
}

const calls = z.object({
  calls: z.array(z.object({ provider: z.string(), path: z.string(), headers: z.record(z.string(), z.string()) })),
});

/** The calls that were made with the secret, in their order. */
export async function callsWith(secret: string) {
  const response = await fetch(`${origin}/simulation/calls?secret=${encodeURIComponent(secret)}`);
  return calls.parse(await response.json()).calls;
}
