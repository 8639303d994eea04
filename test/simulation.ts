/** What the simulated providers answer, and what they were asked (src/dev/simulation.ts). */
import { env } from 'cloudflare:workers';
import * as z from 'zod';
import type { SimulatedAnswer } from '../src/dev/simulation.ts';

const { twilio: origin = '' } = z.record(z.string(), z.string()).parse(JSON.parse(env.PROVIDER_ORIGINS));

let secrets = 0;

/** A secret that no other test has, which is answered so, time after time; the last answer stays. */
export async function secretAnswering(...answers: SimulatedAnswer[]): Promise<string> {
  const secret = `plaintext-${crypto.randomUUID()}-${(secrets += 1)}`;
  await answerNow(secret, ...answers);
  return secret;
}

/** From now on the secret is answered so. */
export async function answerNow(secret: string, ...answers: SimulatedAnswer[]): Promise<void> {
  await fetch(`${origin}/simulation/answers`, { method: 'PUT', body: JSON.stringify({ secret, answers }) });
}

const calls = z.object({
  calls: z.array(z.object({ provider: z.string(), path: z.string(), headers: z.record(z.string(), z.string()) })),
});

/** The calls that were made with the secret, in their order. */
export async function callsWith(secret: string) {
  const response = await fetch(`${origin}/simulation/calls?secret=${encodeURIComponent(secret)}`);
  return calls.parse(await response.json()).calls;
}
