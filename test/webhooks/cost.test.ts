import { env } from 'cloudflare:workers';
import { describe, expect, it } from 'vitest';
import { interceptedBindings } from '../bindings.ts';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { mutations } from '../mutations.ts';
import type { Case } from '../mutations.ts';

/** As many as an organization can have, all of them verified. */
const fillEndpoints = ({ organization_id }: Client) =>
  env.DB.prepare(
    `INSERT INTO webhook_endpoints (organization_id, endpoint_id, url, events, enabled, created_at, updated_at, verified_at,
       cursor_at, cursor_sequence)
     WITH RECURSIVE numbered(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbered WHERE n < 9)
     SELECT ?, printf('whep_%012x', n), 'https://hooks.example.com/', '["*"]', 1, 0, 0, 1, 0, 0 FROM numbered`,
  )
    .bind(organization_id)
    .run();

/** The statements that a mutation sends to D1, before its answer and after it. */
async function statementsOf({ prepare }: Case, client: Client): Promise<string[]> {
  const { method, path, body, headers = {} } = await prepare(client);
  const sent: string[] = [];
  const bindings = interceptedBindings((_, carryOut, { statements }) => {
    sent.push(...statements.map(({ sql }) => sql));
    return carryOut();
  });
  await call(client, method, path, { body, headers, bindings });
  return sent;
}

describe('with ten webhook endpoints', () => {
  const others = mutations.filter(({ name }) => !/webhook|deliver/.test(name));

  it.each(others.map((one) => [one.name, one] as const))(
    '%s sends the same statements as without, none of which touches their tables',
    async (_, mutation) => {
      const [without, having] = [await newClient(), await newClient()];
      await fillEndpoints(having);
      const statements = await statementsOf(mutation, without);
      expect(await statementsOf(mutation, having)).toEqual(statements);
      expect(statements.length).toBeGreaterThan(0);
      expect(statements.filter((sql) => sql.includes('webhook_'))).toEqual([]);
    },
  );

  it('no trigger of another table touches them', async () => {
    const { results } = await env.DB.prepare(
      `SELECT name FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%webhook%' AND tbl_name NOT GLOB 'webhook_*'`,
    ).all();
    expect(results).toEqual([]);
  });
});
