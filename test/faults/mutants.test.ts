/**
 * Mutants of the predicates, by hand: each is the statements' own text without one condition, and each must break a scenario
 * that holds without it. (Stryker, `npm run test:mutation`, mutates the TypeScript around them.)
 */
import { applyD1Migrations, reset } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Bindings } from '../../src/worker/env.ts';
import { interceptedBindings, without } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  emptyStorage,
  importNumber,
  newClient,
  resources,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import { mutations } from '../mutations.ts';
import type { Mutation } from '../mutations.ts';

/** Rewrites the statements of a request. */
type Mutant = (sql: string) => string;

/** The bindings with a mutant's statements; `applied` tells whether any was another. */
function mutatedBindings(mutant: Mutant) {
  const applied = new Set<string>();
  const bindings = interceptedBindings(
    (_, carryOut) => carryOut(),
    (sql) => {
      const mutated = mutant(sql);
      if (mutated !== sql) applied.add(sql);
      return mutated;
    },
  );
  return { bindings, applied };
}

const theRule = without(/(?<=iif\()exists \(select 1 from "phone_numbers" where \([^()]*\)\)/g);
/** The decision is `deleted`, whatever references there are. */
const withoutTheRule: Mutant = (sql) =>
  theRule(sql).replace("'integration.delete_refused', 'integration.deleted'", "'integration.deleted', ''");
const withoutOrganization = without(
  /"(?:integrations|phone_numbers|api_keys|webhook_\w+|source|target)"\."organization_id" = \?/g,
);
const withoutStatus = without(/"api_keys"\."status" = \?/g);
const withoutExpiry = without(/"api_keys"\."expires_at" > \?/g);
const withoutRole = without(/"api_keys"\."role" in \(\?(?:, \?)*\)/g);
const withoutSuspension = without(/"organizations"\."status" = \?/g);
const withoutIdempotency = without(
  /not exists \(select 1 from "idempotency_keys" where \((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\)/g,
);

beforeEach(emptyStorage);

type Scenario = (bindings: Bindings) => Promise<void>;

/** The scenario holds, and with the mutant it does not. */
async function assertKilled(mutant: Mutant, scenario: Scenario): Promise<void> {
  await scenario(env);
  const { bindings, applied } = mutatedBindings(mutant);
  const broken: unknown = await scenario(bindings).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(broken, 'the scenario with the mutant').toBeInstanceOf(Error);
  expect(String(broken), 'a mutant is no failure of D1').not.toContain('503');
  expect(applied.size, 'statements that the mutant changes').toBeGreaterThan(0);
}

async function inUse() {
  const client = await newClient();
  const integration_id = await createIntegration(client);
  await importNumber(client, integration_id, unusedNumber());
  return { client, integration_id, path: `/api/integrations/${integration_id}` };
}

describe('the deletion of an integration in use', () => {
  it('is refused by the rule, and recorded as refused; without the rule’s EXISTS it is not', async () => {
    await assertKilled(withoutTheRule, async (bindings) => {
      const { client, integration_id, path } = await inUse();

      expect((await call(client, 'DELETE', path, { bindings })).status).toBe(409);
      expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.delete_refused']);
    });
  });

  describe('where the rule is broken', () => {
    const scenario: Scenario = async () => {
      const { client, path } = await inUse();
      const before = await resources();

      const { status, body } = await call(client, 'DELETE', path, mutatedBindings(withoutTheRule));

      expect(status).toBe(409);
      expect(body).toMatchObject({ code: 'integration_in_use', reference_count: 1 });
      expect(await resources()).toEqual(before);
    };

    afterEach(async () => {
      await reset();
      await applyD1Migrations(env.DB, env.MIGRATIONS);
    });

    it('is refused by ON DELETE RESTRICT all the same: the mutant without it is not', async () => {
      await scenario(env);
      await env.DB.batch(
        [
          'CREATE TABLE unreferencing AS SELECT * FROM phone_numbers',
          'DROP TABLE phone_numbers',
          'ALTER TABLE unreferencing RENAME TO phone_numbers',
          'CREATE UNIQUE INDEX phone_numbers_phone_number_unique ON phone_numbers (phone_number)',
        ].map((sql) => env.DB.prepare(sql)),
      );

      await expect(scenario(env)).rejects.toThrow(/./);
    });
  });
});

const asksFirst = /check of|reassignment|go to another account|new secret|a test that|a replay of/;
const ofOneThing = mutations.filter(({ status, name }) => status < 300 && !/creation|import/.test(name));

/** Calls that tell of each number that it is not there. */
const whereNotFound: Record<string, number> = {
  'a change of three numbers': 422,
  'the deletion of three numbers, of which two have SIP credentials': 409,
};

describe.each(ofOneThing)('$name', ({ name, prepare }) => {
  const nothingHappens = async (mutation: Mutation, of: Awaited<ReturnType<typeof newClient>>, bindings: Bindings) => {
    const keys = () => env.DB.prepare('SELECT key_id, status, expires_at FROM api_keys').all();
    const before = [await resources(), (await keys()).results];
    const { method, path, body, headers = {} } = mutation;
    const { status } = await call(of, method, path, { body, headers, bindings });
    expect([await resources(), (await keys()).results]).toEqual(before);
    return status;
  };

  // What keeps a PIN's password needs the ciphertext, whose place names the organization: without the check it is a 503.
  const foreign = name.includes('PIN alone') ? [] : [withoutOrganization];
  it.each(foreign)(
    'finds nothing in another organization, and nothing happens: the mutant without the organization is not',
    async (mutant) => {
      await assertKilled(mutant, async (bindings) => {
        const [owner, stranger] = [await newClient(), await newClient()];

        expect(await nothingHappens(await prepare(owner), stranger, bindings)).toBe(whereNotFound[name] ?? 404);
      });
    },
  );

  const checks = [
    ['was revoked', `status = 'revoked'`, withoutStatus],
    // What asks a provider or an endpoint, or must know a revision, reads the caller's key before, and its role is judged then too.
    ...(asksFirst.test(name) ? [] : [['lost its role', `role = 'user'`, withoutRole] as const]),
    // A rotation also compares expiries, and this comparison already refuses an expired key.
    ...(name.includes('rotation') ? [] : [['has expired', 'expires_at = unixepoch() - 60', withoutExpiry] as const]),
  ] as const;

  it.each(checks)('does nothing for a key that %s; without that check it acts', async (_, assignment, mutant) => {
    await assertKilled(mutant, async (bindings) => {
      const client = await newClient();
      const mutation = await prepare(client);
      await call(client, 'GET', '/api/nothing');
      await changeKey(client, assignment);

      expect([401, 403]).toContain(await nothingHappens(mutation, client, bindings));
    });
  });

  it('does nothing for a suspended organization; without that check it acts', async () => {
    await assertKilled(withoutSuspension, async (bindings) => {
      const client = await newClient();
      const mutation = await prepare(client);
      await call(client, 'GET', '/api/nothing');
      await env.DB.prepare(`UPDATE organizations SET status = 'suspended' WHERE organization_id = ?`)
        .bind(client.organization_id)
        .run();

      expect(await nothingHappens(mutation, client, bindings)).toBe(401);
    });
  });
});

describe('an integration that is created again under the Idempotency-Key of the first', () => {
  it('is the first: the mutant that asks for no remembered answer creates another', async () => {
    await assertKilled(withoutIdempotency, async (bindings) => {
      const client = await newClient();
      const create = () =>
        call(client, 'POST', '/api/integrations', {
          body: { name: 'One', credentials: twilio },
          headers: { 'Idempotency-Key': 'once' },
          bindings,
        });
      const first = await create();

      const second = await create();

      expect(second.body).toEqual(first.body);
      const { integrations } = await resources();
      expect(integrations.filter((row) => row['organization_id'] === client.organization_id)).toHaveLength(1);
    });
  });
});
