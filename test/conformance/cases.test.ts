/** Requests that callers tripped over, made from public bug reports (cases.json): each is answered as it should be. */
import { generateKeyPairSync } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import given from './cases.json' with { type: 'json' };
import { joinServer, newNumbers } from './server.ts';
import type { Client } from './server.ts';

const server = joinServer();

const cases = z
  .array(
    z.strictObject({
      id: z.string(),
      kind: z.string(),
      source: z.string(),
      /** What the answer that is wanted had to wait for. */
      needs: z.string().optional(),
      request: z.strictObject({
        method: z.string(),
        path: z.string(),
        headers: z.record(z.string(), z.string()).optional(),
        body: z.unknown().optional(),
      }),
      got: z.unknown(),
      want: z.strictObject({
        status: z.number(),
        code: z.string().optional(),
        field: z.string().optional(),
        says: z.array(z.string()).default([]),
        never: z.array(z.string()).default([]),
        why: z.string().optional(),
      }),
    }),
  )
  .parse(given.cases);

/** A private key in a case, as JSON has it. */
const madeByTheTest = /-----BEGIN PRIVATE KEY-----[^"]+/;
const { privateKey } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});

let client: Client;
let placeholders: Record<string, string>;

beforeAll(async () => {
  client = await server.newOrganization();
  const integration = await server.createIntegration(client);
  const [number = ''] = newNumbers(1);
  placeholders = { integration, phone: await server.importNumber(client, integration, number) };
});

const problem = z.object({ code: z.string(), errors: z.array(z.object({ path: z.string() })).default([]) });

async function send({ method, path, headers, body }: (typeof cases)[number]['request']) {
  const [number = ''] = newNumbers(1);
  const fill = (text: string) =>
    text
      .replace(madeByTheTest, privateKey.replaceAll('\n', '\\n'))
      .replaceAll(/\{\{(\w+)\}\}/g, (_, name: string) => ({ ...placeholders, number })[name] ?? '');
  return server.call(client, method, fill(path), {
    ...(body !== undefined && { body: fill(JSON.stringify(body)) }),
    ...(headers && { headers }),
  });
}

describe('a request that callers tripped over', () => {
  it.each(cases.filter(({ want }) => want.code === undefined))(
    'is accepted: $id, $source',
    async ({ request, want }) => {
      const { status, text } = await send(request);

      expect({ status, text }).toMatchObject({ status: want.status });
    },
  );

  it.each(cases.filter(({ want }) => want.code !== undefined))(
    'is refused: $id, $source',
    async ({ request, want }) => {
      const before = await server.stored();

      const { status, text, body } = await send(request);

      const { code, errors } = problem.parse(body);
      expect({ status, code }).toEqual({ status: want.status, code: want.code });
      expect(want.field === undefined || errors.map(({ path }) => path).join() === want.field).toBe(true);
      for (const words of want.says) expect(text).toContain(words);
      for (const words of want.never) expect(text).not.toContain(words);
      expect(await server.stored()).toEqual(before);
    },
  );
});
