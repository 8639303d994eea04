/**
 * Random mutations one after the other, with Idempotency-Keys and without, and every batch of every one of them landing once
 * more at any later point: behind deletions, updates, drains, rotations, an operator's commands, a restore; while KV refuses.
 * After each step: what a deletion named is never readable again, its ciphertext is gone or named, and the counters count.
 * After each step another Worker of the platform reads everything, from the primary and from a replica that is behind. It
 * never gets credentials of another version, integration, number or organization.
 */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { expect } from 'vitest';
import * as z from 'zod';
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { revokeAllKeys } from '../../src/operator/api-keys/revoke-all.ts';
import { offboardOrganization } from '../../src/operator/organizations/offboard.ts';
import { resumeOrganization, suspendOrganization } from '../../src/operator/organizations/suspend.ts';
import { releasePhoneNumber } from '../../src/operator/phone-numbers/release.ts';
import { reconcile } from '../../src/operator/recovery/reconcile.ts';
import { drainPurges } from '../../src/worker/credentials/drain.ts';
import type { Bindings } from '../../src/worker/env.ts';
import worker from '../../src/worker/index.ts';
import { RECHECK_CRON } from '../../src/worker/integrations/recheck.ts';
import { interceptedBindings, laggingBindings } from '../bindings.ts';
import { read } from '../credentials-reader/reader.ts';
import { call, emptyStorage, newClient, openCredentials, twilio, unusedNumber } from '../fixtures.ts';
import type { Answer, Client } from '../fixtures.ts';
import { sip } from '../mutations.ts';
import { exportedSince, replayRows, restorePoint } from '../operator/recovery/restore.ts';
import { assertInvariants, dataOf } from './invariants.ts';
import type { Data } from './invariants.ts';

const STEPS = { minLength: 10, maxLength: 16 };
const LOST = 'D1_ERROR: Network connection lost.';

export type Mutant = (sql: string) => string;

const kinds = [
  'create',
  'import',
  'import by SIP',
  'rename',
  'replace',
  'check',
  'replace of SIP',
  'delete',
  'delete number',
  'change numbers',
  'delete numbers',
  'delete and reassign',
  'delete and remove',
  'rotate',
  'rename key',
  'revoke',
  'suspend and resume',
  'release',
  'revoke all',
  'drain',
  'cron',
  'recheck',
] as const;

/** What the provider says of the credentials that a step brings or checks. */
const secrets = ['plaintext-good', 'plaintext-refused', 'plaintext-broken'] as const;

interface Verb {
  does: (typeof kinds)[number];
  which: number;
  keyed: boolean;
  loses: number;
  kvRefuses: boolean;
  secret: (typeof secrets)[number];
  /** Whether the provider is asked about new credentials. */
  asks: boolean;
}

type Step = Verb | { does: 'land late'; which: number } | { does: 'save' } | { does: 'restore' } | { does: 'offboard' };

const answered = z.object({ data: z.looseObject({}) });
const deleted = z.object({
  data: z.object({
    results: z.array(z.object({ phone_number_id: z.string() }).transform((one) => one.phone_number_id)),
  }),
});

/** Two key-encryption keys, of which one is current. */
const ringOf = (current: 'k1' | 'k2') => {
  const { keys } = z.object({ keys: z.record(z.string(), z.string()) }).parse(JSON.parse(env.CREDENTIALS_KEKS));
  return JSON.stringify({ current, keys: { ...keys, k2: btoa('a second KEK'.padEnd(32)) } });
};

const readResult = z.union([
  z.object({
    ok: z.literal(true),
    organization_id: z.string(),
    integration_id: z.string().nullable(),
    phone_number_id: z.string().nullable(),
    credentials: z.record(z.string(), z.string()),
    credentials_version: z.string().nullable(),
  }),
  z.strictObject({ ok: z.literal(false), code: z.string() }),
]);
type ReadResult = z.output<typeof readResult>;

class World {
  readonly client: Client;
  readonly integrations: string[] = [];
  readonly numbers: string[] = [];
  /** Every batch that was sent, to be carried out once more. */
  readonly sent: (() => Promise<unknown>)[] = [];
  /** What a 200 of its deletion named, or an operator's command deleted. */
  readonly gone = new Set<string>();
  isRestored = false;
  /** The phone numbers, by the ids of `numbers`. */
  readonly phoneNumbers = new Map<string, string>();
  /** Whose credentials each secret is among. */
  readonly owners = new Map<string, string>();
  /** The secret of each version that was read. */
  readonly versions = new Map<string, string>();
  /** What a replica has answered. */
  private readonly replica = new Map<string, unknown>();
  /** Every batch that records a read, to be carried out once more. */
  private readonly records: (() => Promise<unknown>)[] = [];
  private currentKek: 'k1' | 'k2' = 'k1';
  private secrets = 0;
  private readonly mutant: Mutant;
  private saved: { restore: () => Promise<void>; at: number } | undefined;
  private keys: string[];
  private requests = 0;

  constructor(client: Client, mutant: Mutant) {
    this.client = client;
    this.mutant = mutant;
    this.keys = [];
  }

  /** Bindings whose batches are noted; the answer of one is lost, and KV may refuse. */
  private bindings({ loses = -1, kvRefuses = false }: { loses?: number; kvRefuses?: boolean } = {}): Bindings {
    let batches = 0;
    const intercepted = interceptedBindings(async (name, carryOut) => {
      if (name.startsWith('CREDENTIALS.') && kvRefuses) throw new Error('KV: 503');
      if (name !== 'DB.batch') return carryOut();
      this.sent.push(carryOut);
      batches += 1;
      // Even: lost before it was carried out, so that a later try decides; odd: after.
      if (loses >= 0 && batches === 1 + Math.floor(loses / 2)) {
        if (loses % 2 === 1) await carryOut();
        throw new Error(LOST);
      }
      return carryOut();
    }, this.mutant);
    return { ...intercepted, CREDENTIALS_KEKS: this.ring };
  }

  get ring(): string {
    return ringOf(this.currentKek);
  }

  /** A secret that no other credentials have. The provider goes by the words at its beginning. */
  private secret(words: string): string {
    return `${words}-${(this.secrets += 1)}`;
  }

  /** Reads as another Worker of the platform does. */
  async read(fresh: boolean, request: { integration_id: string } | { phone_number: string }): Promise<ReadResult> {
    const { bindings } = laggingBindings(this.replica, (record) => void this.records.push(record));
    const { organization_id } = this.client;
    const consumer = organization_id.replaceAll('_', '-').slice(0, 40);
    const grants = { [consumer]: { providers: ['twilio', 'sip'], organizations: '*', unconfirmed: true } };
    const method = 'integration_id' in request ? 'read' : 'readByPhoneNumber';
    return readResult.parse(
      await read(
        method,
        { fresh, ...(method === 'read' && { organization_id }), ...request },
        {
          consumer,
          bindings: { ...bindings, CREDENTIALS_KEKS: this.ring, CREDENTIALS_READERS: JSON.stringify(grants) },
        },
      ),
    );
  }

  private async mutate(step: Verb, method: string, path: string, body?: object): Promise<Answer> {
    this.requests += 1;
    return call(this.client, method, path, {
      body,
      headers: step.keyed ? { 'Idempotency-Key': `late-${this.requests}` } : {},
      bindings: this.bindings(step),
    });
  }

  private learn(answer: Answer, member: string, list: string[], secret?: string): void {
    if (answer.status !== 201) return;
    const { data } = answered.parse(answer.body);
    const id = String(data[member]);
    list.push(id);
    if (secret !== undefined) this.owners.set(secret, id);
    if (list === this.numbers) this.phoneNumbers.set(id, String(data['phone_number']));
  }

  async take(step: Step): Promise<void> {
    const { client } = this;
    const { organization_id } = client;
    if (step.does === 'land late') {
      // A violated constraint is an error that nobody hears.
      const late = this.sent[this.sent.length - 1 - (step.which % Math.max(this.sent.length, 1))];
      await late?.().catch(() => {});
      for (const record of this.records) await record().catch(() => {});
      return;
    }
    if (step.does === 'save') {
      this.saved = { restore: await restorePoint(), at: Math.floor(Date.now() / 1000) - 1 };
      return;
    }
    if (step.does === 'restore') return this.restore();
    if (step.does === 'offboard') {
      await offboardOrganization(this.bindings().DB, organization_id);
      for (const id of [...this.integrations, ...this.numbers]) this.gone.add(id);
      return;
    }
    const nth = (ids: string[], prefix: string) =>
      ids[step.which % Math.max(ids.length, 1)] ?? `${prefix}_000000000000`;
    const integration = nth(this.integrations, 'intg');
    const number = nth(this.numbers, 'phon');
    switch (step.does) {
      case 'create': {
        const auth_token = this.secret(step.secret);
        const answer = await this.mutate(step, 'POST', `/api/integrations?verify=${step.asks}`, {
          name: 'Late',
          credentials: { ...twilio, auth_token },
        });
        if (step.asks && step.secret === 'plaintext-refused' && answer.status < 400) {
          throw new Error('what the provider refuses was stored');
        }
        this.learn(answer, 'integration_id', this.integrations, auth_token);
        return;
      }
      case 'import': {
        const body = { phone_number: unusedNumber(), provider: 'twilio', integration_id: integration };
        const answer = await this.mutate(step, 'POST', '/api/phone-numbers?verify=false', body);
        this.learn(answer, 'phone_number_id', this.numbers);
        return;
      }
      case 'import by SIP': {
        const sip_password = this.secret('plaintext-sip');
        const answer = await this.mutate(step, 'POST', '/api/phone-numbers', { ...sip(unusedNumber()), sip_password });
        this.learn(answer, 'phone_number_id', this.numbers, sip_password);
        return;
      }
      case 'rename':
        await this.mutate(step, 'PUT', `/api/integrations/${integration}`, { name: 'Renamed' });
        return;
      case 'replace': {
        const auth_token = this.secret(step.secret);
        this.owners.set(auth_token, integration);
        await this.mutate(step, 'PUT', `/api/integrations/${integration}?verify=${step.asks}`, {
          credentials: { ...twilio, auth_token },
        });
        return;
      }
      case 'check':
        await this.mutate(step, 'POST', `/api/integrations/${integration}/verify`);
        return;
      case 'replace of SIP': {
        const sip_password = this.secret('plaintext-sip');
        this.owners.set(sip_password, number);
        await this.mutate(step, 'PUT', `/api/phone-numbers/${number}`, { sip_password });
        return;
      }
      case 'delete': {
        const { status } = await this.mutate(step, 'DELETE', `/api/integrations/${integration}`);
        if (status === 200) this.gone.add(integration);
        return;
      }
      case 'delete and reassign': {
        const target = nth(this.integrations.toReversed(), 'intg');
        const path = `/api/integrations/${integration}?reassign_to=${target}`;
        const { status } = await this.mutate(step, 'DELETE', path);
        if (status === 200) this.gone.add(integration);
        return;
      }
      case 'delete and remove': {
        const { phone_numbers } = await dataOf(organization_id);
        const path = `/api/integrations/${integration}?remove_phone_numbers=true`;
        const { status } = await this.mutate(step, 'DELETE', path);
        if (status !== 200) return;
        this.gone.add(integration);
        for (const row of phone_numbers) {
          if (row['integration_id'] === integration) this.gone.add(String(row['phone_number_id']));
        }
        return;
      }
      case 'delete number': {
        const { status } = await this.mutate(step, 'DELETE', `/api/phone-numbers/${number}`);
        if (status === 200) this.gone.add(number);
        return;
      }
      case 'change numbers': {
        const set = { supports_inbound: step.asks, integration_id: nth(this.integrations.toReversed(), 'intg') };
        await this.mutate(step, 'POST', '/api/phone-numbers/bulk-update?verify=false', {
          integration_id: integration,
          set,
        });
        return;
      }
      case 'delete numbers': {
        const left = this.numbers.filter((id) => !this.gone.has(id)).slice(step.which, step.which + 2);
        const body = step.asks || left.length === 0 ? { integration_id: integration } : { phone_number_ids: left };
        const answer = await this.mutate(step, 'POST', '/api/phone-numbers/bulk-delete', body);
        if (answer.status === 200) for (const id of deleted.parse(answer.body).data.results) this.gone.add(id);
        return;
      }
      case 'rename key':
        await this.mutate(step, 'PUT', `/api/api-keys/${nth(this.keys, 'apikey')}`, { name: `Late ${step.which}` });
        return;
      case 'rotate':
      case 'revoke': {
        const key_id = nth(this.keys, 'apikey');
        const revokes = step.does === 'revoke';
        const path = `/api/api-keys/${key_id}`;
        if (this.keys.length === 0) {
          const answer = await this.mutate(step, 'POST', '/api/api-keys', { name: 'Late', role: 'user' });
          if (answer.status !== 201) return;
          const made = z.object({ data: z.object({ key: z.object({ key_id: z.string() }) }) }).parse(answer.body);
          this.keys.push(made.data.key.key_id);
        } else if (revokes) await this.mutate(step, 'DELETE', path);
        else await this.mutate(step, 'POST', `${path}/rotate`, { overlap_seconds: 0 });
        return;
      }
      case 'suspend and resume':
        await suspendOrganization(this.bindings(step).DB, organization_id).catch(() => {});
        await resumeOrganization(this.bindings().DB, organization_id);
        return;
      case 'release': {
        const released = await releasePhoneNumber(this.bindings(step).DB, {
          organization_id,
          phone_number_id: number,
        }).catch(() => undefined);
        if (released) this.gone.add(number);
        return;
      }
      case 'revoke all': {
        await revokeAllKeys(this.bindings(step).DB, organization_id).catch(() => 0);
        // There is one again who may act.
        const { raw_key, key } = await createKeyByCommand(this.bindings().DB, {
          organization_id,
          role: 'admin',
          name: 'After',
          tier: 'enterprise',
          expires_at: null,
        });
        Object.assign(client, { raw_key, key_id: key.key_id });
        this.keys = [];
        return;
      }
      case 'drain':
        await env.DB.prepare(`UPDATE credential_purges SET due_at = 0 WHERE organization_id = ?`)
          .bind(organization_id)
          .run();
        await drainPurges(this.bindings(step)).catch(() => {});
        return;
      case 'cron':
        // Another key-encryption key is current from now on, and the cron wraps the data keys anew.
        this.currentKek = this.currentKek === 'k1' ? 'k2' : 'k1';
        await worker.scheduled(createScheduledController(), this.bindings(step)).catch(() => {});
        return;
      case 'recheck':
        await env.DB.prepare(`UPDATE integrations SET recheck_from = 0 WHERE organization_id = ?`)
          .bind(organization_id)
          .run();
        await worker.scheduled(createScheduledController({ cron: RECHECK_CRON }), this.bindings(step)).catch(() => {});
    }
  }

  /** As README tells: the events since then are saved, D1 goes back, what had ended ends again, and KV is made to agree. */
  private async restore(): Promise<void> {
    if (!this.saved) return;
    const exported = await exportedSince(this.saved.at);
    await this.saved.restore();
    const bindings = this.bindings();
    await replayRows(exported, bindings.DB);
    await reconcile(bindings);
    this.isRestored = true;
    this.saved = undefined;
  }
}

const verb = (...does: (typeof kinds)[number][]) =>
  fc.record({
    does: fc.constantFrom(...does),
    which: fc.nat({ max: 3 }),
    keyed: fc.boolean(),
    loses: fc.oneof({ weight: 2, arbitrary: fc.constant(-1) }, fc.nat({ max: 3 })),
    kvRefuses: fc.boolean(),
    secret: fc.constantFrom(...secrets),
    asks: fc.boolean(),
  });

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: verb('create', 'import by SIP') },
  {
    weight: 6,
    arbitrary: verb('delete', 'delete number', 'delete numbers', 'delete and reassign', 'delete and remove'),
  },
  { weight: 4, arbitrary: verb(...kinds) },
  { weight: 8, arbitrary: fc.record({ does: fc.constant('land late' as const), which: fc.nat({ max: 15 }) }) },
  { weight: 1, arbitrary: fc.constantFrom({ does: 'save' as const }, { does: 'restore' as const }) },
);

/** Most runs end the organization, and try late after that too. */
const steps = fc
  .tuple(fc.array(step, STEPS), fc.boolean(), fc.array(fc.nat({ max: 30 }), { maxLength: 4 }))
  .map(([before, ends, late]): Step[] => [
    ...before,
    ...(ends ? [{ does: 'offboard' as const }] : []),
    ...late.map((which) => ({ does: 'land late' as const, which })),
  ]);

const saysOf: Record<string, string[]> = {
  'plaintext-good': ['unverified', 'verified'],
  'plaintext-refused': ['unverified', 'refused'],
  'plaintext-broken': ['unverified', 'unreachable'],
};

/** What is stored of a check is what the provider says of the credentials that are stored. */
async function assertVerified(integrations: Record<string, unknown>[], ring: string): Promise<void> {
  for (const { integration_id, status, verification_status } of integrations) {
    if (status !== 'active') continue;
    const opened = await openCredentials(String(integration_id), ring);
    const { auth_token } = z.object({ auth_token: z.string() }).parse(opened);
    const says = saysOf[auth_token.replace(/-\d+$/, '')];
    expect(says, `what is stored of a check of ${auth_token}`).toContain(verification_status);
  }
}

/** What another Worker reads is what is stored; of a replica that is behind, what was stored. */
async function assertReads(world: World, { integrations, phone_numbers }: Data, isActive: boolean): Promise<void> {
  const { gone, owners, versions } = world;
  const { organization_id } = world.client;
  const numbers = [...world.phoneNumbers].map(([id, phone_number]) => ({ id, request: { phone_number } }));
  const all = [...world.integrations.map((id) => ({ id, request: { integration_id: id } })), ...numbers];
  for (const { id, request } of all) {
    const number = phone_numbers.find((one) => one['phone_number_id'] === id);
    const subject = number?.['integration_id'] ?? id;
    const row =
      integrations.find((one) => one['integration_id'] === subject) ??
      phone_numbers.find((one) => one['phone_number_id'] === subject);
    for (const fresh of [true, false]) {
      const result = await world.read(fresh, request);
      const isThere = row !== undefined && row['status'] !== 'credentials_missing' && isActive;
      if (fresh && !world.isRestored)
        expect({ id, ok: result.ok }, 'what a read from the primary gets').toEqual({ id, ok: isThere });
      if (!result.ok) continue;
      const { credentials, credentials_version } = result;
      const secret = credentials['auth_token'] ?? credentials['sip_password'] ?? '';
      if (fresh) {
        expect(gone, 'what a deletion named, and is read').not.toContain(id);
        expect(credentials_version, 'the version that is read').toBe(row?.['credentials_version']);
      }
      expect(result.organization_id).toBe(organization_id);
      expect(owners.get(secret), 'whose credentials are read').toBe(result.integration_id ?? result.phone_number_id);
      const version = String(credentials_version);
      expect(versions.get(version) ?? secret, `the credentials of version ${version}`).toBe(secret);
      versions.set(version, secret);
    }
  }
}

/** What must hold after every step. */
async function assertHolds(world: World): Promise<void> {
  const { client, gone, isRestored } = world;
  const { organization_id } = client;
  const data = await dataOf(organization_id);
  const { integrations, phone_numbers, api_keys, audit_events } = data;
  const here = [...integrations, ...phone_numbers].flatMap((row) => Object.values(row));
  const back = [...gone].filter((id) => here.includes(id));
  expect(back, 'what a deletion named, and a row that is there').toEqual([]);
  for (const id of gone) {
    const path = `/api/${id.startsWith('intg') ? 'integrations' : 'phone-numbers'}/${id}`;
    expect((await call(client, 'GET', path)).status, `GET ${path}`).not.toBe(200);
  }
  if (!isRestored) {
    await assertInvariants(organization_id, world.ring);
    await assertVerified(integrations, world.ring);
  }

  const [organization] = (
    await env.DB.prepare('SELECT * FROM organizations WHERE organization_id = ?').bind(organization_id).all()
  ).results;
  const refusals = audit_events.filter((event) => String(event['action']).endsWith('_refused'));
  const reads = audit_events.filter((event) => event['action'] === 'credentials.read');
  expect(organization, 'the counters of the organization').toMatchObject({
    integration_count: integrations.length,
    phone_number_count: phone_numbers.length,
    unconfirmed_number_count: phone_numbers.filter((row) => row['ownership'] === 'unconfirmed').length,
    api_key_count: api_keys.filter((row) => 'ended_at' in row && row['ended_at'] === null).length,
    audit_event_count: audit_events.length - refusals.length - reads.length,
    refusal_count: refusals.length,
    read_count: reads.length,
  });
  const numbersOf = (id: unknown) => phone_numbers.filter((row) => row['integration_id'] === id).length;
  expect(
    integrations.map((row) => row['phone_number_count']),
    'the counters of the integrations',
  ).toEqual(integrations.map((row) => numbersOf(row['integration_id'])));

  const endedAt = new Map(
    audit_events
      .filter(({ action }) => action === 'integration.deleted' || action === 'phone_number.deleted')
      .map(({ target_id, sequence }) => [target_id, Number(sequence)]),
  );
  const readAfter = reads.filter(({ target_id, sequence }) => Number(sequence) > (endedAt.get(target_id) ?? Infinity));
  expect(readAfter, 'reads on record after a deletion').toEqual([]);
  await assertReads(world, data, organization?.['status'] === 'active');
}

async function run(taken: Step[], mutant: Mutant): Promise<void> {
  await emptyStorage();
  const world = new World(await newClient(), mutant);
  for (const [index, one] of taken.entries()) {
    await world.take(one);
    await assertHolds(world).catch((error: unknown) => {
      throw new Error(`after step ${index}, ${one.does}`, { cause: error });
    });
  }
}

/** What breaks in so many runs: nothing where all hold. */
export async function failureOf(parameters: { numRuns: number; seed?: number }, mutant: Mutant = (sql) => sql) {
  const { failed, counterexample, errorInstance, seed } = await fc.check(
    fc.asyncProperty(steps, (taken) => run(taken, mutant)),
    { ...parameters, endOnFailure: true },
  );
  return failed ? { counterexample, errorInstance, seed } : undefined;
}
