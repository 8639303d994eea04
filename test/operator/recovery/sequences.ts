/**
 * Random sequences around a restore of D1: what ended since the restore point ends again by one replay, and nothing that lives
 * is lost; whatever clocks say, whatever is late, and though the restore is undone.
 */
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { expect, vi } from 'vitest';
import * as z from 'zod';
import { createKeyByCommand } from '../../../src/operator/api-keys/create.ts';
import { offboardOrganization } from '../../../src/operator/organizations/offboard.ts';
import { resumeOrganization, suspendOrganization } from '../../../src/operator/organizations/suspend.ts';
import { releasePhoneNumber } from '../../../src/operator/phone-numbers/release.ts';
import type { ExportedRow } from '../../../src/operator/recovery/export.ts';
import { reconcile } from '../../../src/operator/recovery/reconcile.ts';
import type { Replayed } from '../../../src/operator/recovery/replay.ts';
import { forgetOldEvents } from '../../../src/worker/audit/retention.ts';
import { forgetKey } from '../../../src/worker/callers/caller.ts';
import { hashKey } from '../../../src/worker/callers/raw-key.ts';
import { drainPurges } from '../../../src/worker/credentials/drain.ts';
import type { Bindings } from '../../../src/worker/env.ts';
import { interceptedBindings, stallingBindings } from '../../bindings.ts';
import { readFresh } from '../../credentials-reader/reader.ts';
import {
  call,
  createIntegration,
  importNumber,
  newClient,
  openCredentials,
  rows,
  twilio,
  unusedNumber,
} from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';
import { importSip, sip } from '../../mutations.ts';
import { exportedSince, replayRows, restorePoint } from './restore.ts';

const HOUR = 3600;
const DAY = 24 * HOUR;
const LOST = 'D1_ERROR: Network connection lost.';
/** The gate runs the same sequences each time; another seed runs others. */
const SEED = 20_261_126;

const kinds = [
  'create',
  'import',
  'import by SIP',
  'replace',
  'reassign',
  'delete',
  'delete number',
  'revoke',
  'rotate',
  'suspend',
  'resume',
  'release',
  'key of a tier',
  'young organization',
] as const;

interface Act {
  does: (typeof kinds)[number] | 'offboard';
  which: number;
  /** Of whoever acts, against D1's: seconds. */
  clock: number;
  /** The batch whose answer is lost, before it is carried out or after; none for -1. */
  loses: number;
  /** It has begun, and goes on only behind the restore point. */
  isConcurrent: boolean;
  /** KV removes nothing: the cron is to do it. */
  kvRefuses: boolean;
}

interface Sequence {
  before: Act[];
  since: Act[];
  /** Batches of before that land once more: between restore and replay, behind the replay, and behind the undo. */
  late: [number[], number[], number[]];
  /** Days that audit events are kept, and as many have gone by. */
  retention: number | null;
  cronAtRestore: boolean;
  cronAfterwards: boolean;
  after: Act[];
  isUndone: boolean;
  runsTwice: boolean;
}

type Row = Record<string, unknown>;

const answered = z.object({ data: z.looseObject({}) });
const madeKey = z.object({ data: z.object({ raw_key: z.string(), key: z.object({ key_id: z.string() }) }) });

/** How what was exported is given to the replay: as it is, but for a mutant. */
export type Mutant = (exported: ExportedRow[]) => ExportedRow[];

let worlds = 0;

class World {
  readonly client: Client;
  /** Whose calls stall: a call waits for another's look-up of the same key. */
  readonly colleague: Client;
  /** Of its own, because each network has a limit of look-ups, and the worlds share an organization. */
  readonly network = { 'CF-Connecting-IP': `2001:db9:${(worlds += 1).toString(16)}::1` };
  readonly integrations: string[] = [];
  readonly numbers: string[] = [];
  readonly keys: Client[] = [];
  /** What a 200 of its deletion named, or an operator's command deleted. */
  readonly gone = new Set<string>();
  readonly revoked: Client[] = [];
  readonly offboarded = new Set<string>();
  /** Whose credentials somebody has tried to replace, and may still, since the restore point. */
  replaced = new Set<string>();
  readonly replacedConcurrently = new Set<string>();
  /** Given new credentials by a client behind the restore: also a kept integration may be. */
  readonly renewed = new Set<string>();
  /** Every batch that was sent, to be carried out once more. */
  readonly sent: (() => Promise<unknown>)[] = [];
  readonly stalled: { letGo: () => void; whole: Promise<unknown> }[] = [];
  replayed: Replayed | undefined;
  /** Where each phone number was assigned at the export. */
  homes = new Map<string, unknown>();

  constructor(client: Client, colleague: Client) {
    this.client = client;
    this.colleague = colleague;
  }

  private bindings({ loses, isConcurrent, kvRefuses }: Act): Bindings {
    let batches = 0;
    const gate = Promise.withResolvers<void>();
    if (isConcurrent) this.stalled.push({ letGo: gate.resolve, whole: gate.promise });
    return interceptedBindings(async (name, carryOut, { statements }) => {
      if (kvRefuses && name === 'CREDENTIALS.delete') throw new Error('KV: 503');
      if (!statements.some(({ sql }) => /^(?:insert|update|delete)/.test(sql))) return carryOut();
      batches += 1;
      const batch = batches;
      this.sent.push(carryOut);
      // What decides is behind the restore point: an intent may be before it.
      if (isConcurrent && statements.some(({ sql }) => sql.startsWith('insert into "audit_events"'))) {
        await gate.promise;
      }
      if (loses >= 0 && batch === 1 + Math.floor(loses / 2)) {
        if (loses % 2 === 1) await carryOut();
        throw new Error(LOST);
      }
      return carryOut();
    });
  }

  /** By a clock that is so many seconds ahead of D1's. */
  private at<Result>(clock: number, work: () => Promise<Result>): () => Promise<Result> {
    return async () => {
      if (clock !== 0) vi.setSystemTime(Date.now() + clock * 1000);
      try {
        return await work();
      } finally {
        vi.setSystemTime(realNow());
      }
    };
  }

  async act(one: Act): Promise<void> {
    const carriedOut = this.at(one.clock, () => this.carryOut(one))();
    if (!one.isConcurrent) return carriedOut;
    const [last] = this.stalled.slice(-1);
    // It may end before it would stall.
    if (last) this.stalled[this.stalled.length - 1] = { ...last, whole: carriedOut };
    await Promise.race([carriedOut, new Promise((resolve) => setTimeout(resolve, 1))]);
  }

  async letGo(): Promise<void> {
    for (const { letGo, whole } of this.stalled.splice(0)) {
      letGo();
      await whole;
    }
  }

  private async carryOut(one: Act): Promise<void> {
    const { client } = this;
    const { organization_id } = client;
    const bindings = this.bindings(one);
    const nth = (ids: string[], prefix: string) => ids[one.which % Math.max(ids.length, 1)] ?? `${prefix}_000000000000`;
    const integration = nth(this.integrations, 'intg');
    const number = nth(this.numbers, 'phon');
    const send = (method: string, path: string, body?: object) =>
      call(one.isConcurrent ? this.colleague : client, method, path, { body, bindings, headers: this.network });
    const learn = (answer: { status: number; body: unknown }, member: string, list: string[]) => {
      if (answer.status === 201) list.push(String(answered.parse(answer.body).data[member]));
    };
    switch (one.does) {
      case 'create':
        learn(
          await send('POST', '/api/integrations', { name: 'Random', credentials: twilio }),
          'integration_id',
          this.integrations,
        );
        return;
      case 'import':
        learn(
          await send('POST', '/api/phone-numbers?verify=false', {
            phone_number: unusedNumber(),
            provider: 'twilio',
            integration_id: integration,
          }),
          'phone_number_id',
          this.numbers,
        );
        return;
      case 'import by SIP':
        learn(await send('POST', '/api/phone-numbers', sip(unusedNumber())), 'phone_number_id', this.numbers);
        return;
      case 'replace':
        this.replaced.add(integration);
        if (one.isConcurrent) this.replacedConcurrently.add(integration);
        if (this.replayed) this.renewed.add(integration);
        await send('PUT', `/api/integrations/${integration}`, {
          credentials: { ...twilio, auth_token: 'plaintext-replacement' },
        });
        return;
      case 'reassign':
        await send('PUT', `/api/phone-numbers/${number}`, { integration_id: integration });
        return;
      case 'delete':
        if ((await send('DELETE', `/api/integrations/${integration}`)).status === 200) this.gone.add(integration);
        return;
      case 'delete number':
        if ((await send('DELETE', `/api/phone-numbers/${number}`)).status === 200) this.gone.add(number);
        return;
      case 'revoke':
      case 'rotate': {
        const key = this.keys[one.which % Math.max(this.keys.length, 1)];
        if (!key) return;
        const path = `/api/api-keys/${key.key_id}`;
        if (one.does === 'revoke') {
          if ((await send('DELETE', path)).status === 200) this.revoked.push(key);
          return;
        }
        const answer = await send('POST', `${path}/rotate`, { overlap_seconds: HOUR * 2 });
        if (answer.status !== 201) return;
        const { raw_key, key: made } = madeKey.parse(answer.body).data;
        this.keys.push({ organization_id, raw_key, key_id: made.key_id });
        return;
      }
      case 'suspend':
        await suspendOrganization(bindings.DB, organization_id).catch(() => {});
        return;
      case 'resume':
        await resumeOrganization(bindings.DB, organization_id).catch(() => {});
        return;
      case 'release':
        if (await releasePhoneNumber(bindings.DB, { organization_id, phone_number_id: number }).catch(() => {})) {
          this.gone.add(number);
        }
        return;
      case 'key of a tier': {
        const wanted = { organization_id, role: 'user', name: 'Operator', expires_at: null } as const;
        const tier = one.which % 2 === 0 ? 'enterprise' : 'pro';
        await createKeyByCommand(bindings.DB, { ...wanted, tier }).catch(() => {});
        return;
      }
      case 'young organization': {
        const young = await newClient();
        await createIntegration(young);
        if (one.which % 2 === 1) return;
        await offboardOrganization(bindings.DB, young.organization_id).catch(() => {});
        await offboardOrganization(env.DB, young.organization_id);
        this.offboarded.add(young.organization_id);
        return;
      }
      case 'offboard':
        await offboardOrganization(bindings.DB, organization_id).catch(() => {});
        await offboardOrganization(env.DB, organization_id);
        this.offboarded.add(organization_id);
        for (const id of [...this.integrations, ...this.numbers]) this.gone.add(id);
    }
  }

  async landLate(which: number[]): Promise<void> {
    for (const one of which) {
      const late = this.sent[this.sent.length - 1 - (one % Math.max(this.sent.length, 1))];
      // A violated constraint is an error that nobody hears.
      await late?.().catch(() => {});
    }
  }
}

let started = 0;
let startedAt = 0;
/** The real time: the clock that `Date` has is the one who acts'. */
const realNow = () => startedAt + (performance.now() - started);

const trailOf = async ({ organization_id }: Client): Promise<Row[]> =>
  (await rows('audit_events'))
    .filter((event) => event['organization_id'] === organization_id)
    .toSorted(
      (one, next) =>
        Number(one['created_at']) - Number(next['created_at']) || Number(one['sequence']) - Number(next['sequence']),
    );
const idsOf = (events: Row[]) => events.map(({ event_id }) => event_id);

const subjects = async () => [...(await rows('integrations')), ...(await rows('phone_numbers'))];
const subjectId = (row: Row) => String(row['phone_number_id'] ?? row['integration_id']);

/** What lives: what must still be there behind a restore to this point, unless it has ended since. */
const living = async () => new Map((await subjects()).map((row) => [subjectId(row), row]));

async function opens(row: Row): Promise<boolean> {
  if (row['phone_number_id'] !== undefined) return true;
  return openCredentials(subjectId(row)).then(
    () => true,
    () => false,
  );
}

/** No deleted integration or number is readable, no revoked key is alive, no offboarded organization is back. */
async function assertEnded(world: World): Promise<void> {
  const here = await living();
  const back = [...world.gone].filter((id) => here.has(id));
  const numbers = await rows('phone_numbers');
  /** By numbers that have nowhere else to go. */
  const isUsed = (id: string) => {
    const using = numbers.filter((row) => row['integration_id'] === id);
    const homes = using.map((row) => world.homes.get(String(row['phone_number_id'])));
    return using.length > 0 && homes.every((home) => home === id || !here.has(String(home)));
  };
  const isKept = (id: string) =>
    (here.get(id)?.['status'] === 'credentials_missing' || world.renewed.has(id)) &&
    world.replayed?.integrations_kept.includes(id) &&
    isUsed(id);
  expect(
    back.filter((id) => !isKept(id)),
    'what a deletion named, and is there',
  ).toEqual([]);
  for (const key of world.revoked) {
    forgetKey(await hashKey(key.raw_key));
    await env.KEY_CACHE.delete(await hashKey(key.raw_key));
    expect(
      (await call(key, 'GET', '/api/integrations', { headers: world.network })).status,
      'what a revoked key reads',
    ).toBe(401);
  }
  const organizations = await rows('organizations');
  for (const id of world.offboarded) {
    const organization = organizations.find((row) => row['organization_id'] === id);
    expect(organization, 'an offboarded organization').toMatchObject({ status: 'offboarded' });
  }
  await assertReads(world, organizations);
}

/** Another Worker reads what is active, and nothing that a deletion named, even where its row had to be kept. */
async function assertReads(world: World, organizations: Row[]): Promise<void> {
  for (const row of await rows('integrations')) {
    const [organization_id, integration_id] = [String(row['organization_id']), String(row['integration_id'])];
    const { ok } = await readFresh(organization_id, integration_id);
    const organization = organizations.find((one) => one['organization_id'] === organization_id);
    const isActive = row['status'] === 'active' && organization?.['status'] === 'active';
    expect({ integration_id, ok }, 'what another Worker reads').toEqual({ integration_id, ok: isActive });
    const isEnded = world.gone.has(integration_id) && !world.renewed.has(integration_id);
    expect({ integration_id, back: ok && isEnded }, 'what a deletion named').toEqual({ integration_id, back: false });
  }
}

/** Nothing that lived is lost, but what has ended since; what says that it is active opens. */
async function assertNothingLost(world: World, lived: Map<string, Row>): Promise<void> {
  const here = await living();
  const inDoubt = new Set(
    (await rows('audit_events'))
      .filter((event) => String(event['action']).match(/deleted|released/))
      .map((event) => event['target_id']),
  );
  const lost = [...lived.keys()].filter((id) => !here.has(id) && !world.gone.has(id) && !inDoubt.has(id));
  expect(lost, 'what lived, and is gone').toEqual([]);
  for (const [id, row] of here) {
    if (row['status'] === 'credentials_missing') {
      const isExplained = world.replaced.has(id) || world.gone.has(id) || inDoubt.has(id) || !lived.has(id);
      expect(isExplained, `${id} has lost its credentials, which nobody has replaced`).toBe(true);
    } else expect(await opens(row), `${id} is active, and opens`).toBe(true);
  }
}

/** Whoever has read the trail reads on behind it. */
async function assertTrailGoesOn(client: Client, read: Row[], saved: Row[]): Promise<void> {
  const now = idsOf(await trailOf(client));
  const known = new Set(idsOf(read));
  const before = new Set(idsOf(saved));
  expect(
    now.filter((id) => known.has(id)),
    'the events that were read',
  ).toEqual(idsOf(read));
  const last = now.indexOf(read.at(-1)?.['event_id']);
  const strays = now.filter((id, index) => index < last && !known.has(id) && !before.has(id));
  expect(strays, 'events among those that were read, which nobody will read').toEqual([]);
}

/** In an order that their references allow. */
const tables = [
  'idempotency_keys',
  'credential_purges',
  'audit_events',
  'phone_numbers',
  'integrations',
  'api_keys',
  'organizations',
] as const;

/** What every sequence begins with. */
interface Beginning {
  client: Client;
  colleague: Client;
  integrations: string[];
  number: string;
  key: Client;
  bringBack: () => Promise<void>;
  ciphertexts: Map<string, ArrayBuffer>;
}

let beginning: Promise<Beginning> | undefined;

const namesInKv = async () => (await env.CREDENTIALS.list()).keys.map(({ name }) => name);

async function makeBeginning(): Promise<Beginning> {
  const client = await newClient();
  const colleague = await newClient(client);
  const integrations = [await createIntegration(client), await createIntegration(client)];
  const number = await importNumber(client, integrations[0] ?? '', unusedNumber());
  await importSip(client, unusedNumber());
  const key = await newClient({ organization_id: client.organization_id, role: 'user' });
  const ciphertexts = new Map<string, ArrayBuffer>();
  for (const name of await namesInKv()) {
    const ciphertext = await env.CREDENTIALS.get(name, 'arrayBuffer');
    if (ciphertext) ciphertexts.set(name, ciphertext);
  }
  return { client, colleague, integrations, number, key, bringBack: await restorePoint(), ciphertexts };
}

async function startAfresh(): Promise<World> {
  beginning ??= makeBeginning();
  const { client, colleague, integrations, number, key, bringBack, ciphertexts } = await beginning;
  await bringBack();
  const names = await namesInKv();
  const missing = [...ciphertexts].filter(([name]) => !names.includes(name));
  await Promise.all([
    ...names.filter((name) => !ciphertexts.has(name)).map((name) => env.CREDENTIALS.delete(name)),
    ...missing.map(([name, ciphertext]) => env.CREDENTIALS.put(name, ciphertext)),
  ]);
  const world = new World(client, colleague);
  world.integrations.push(...integrations);
  world.numbers.push(number);
  world.keys.push(key);
  return world;
}

/** As the runbook tells (docs/operations.md): one run. */
async function recover(world: World, exported: ExportedRow[], mutant: Mutant): Promise<void> {
  world.replayed = await replayRows(mutant(exported));
  await reconcile(env);
}

async function run(sequence: Sequence, mutant: Mutant): Promise<void> {
  const world = await startAfresh();
  const { client } = world;
  for (const one of sequence.before) await world.act(one);

  const restore = await restorePoint();
  const lived = await living();
  const saved = await trailOf(client);
  const since = Math.floor(realNow() / 1000);
  world.replaced = new Set(world.replacedConcurrently);

  await world.letGo();
  for (const one of sequence.since) await world.act(one);
  await world.letGo();
  if (sequence.retention !== null) {
    vi.setSystemTime(realNow() + (sequence.retention + 1) * DAY * 1000);
    await forgetOldEvents({ ...env, AUDIT_RETENTION_DAYS: String(sequence.retention) });
    vi.setSystemTime(realNow());
    // No try is late by days.
    world.sent.splice(0);
  }
  let endCron = async () => {};
  if (sequence.cronAtRestore) endCron = await stalledCron();

  const livedBefore = await living();
  world.homes = new Map([...livedBefore].map(([id, row]) => [id, row['integration_id']]));
  const exported = await exportedSince(since);
  const read = await trailOf(client);
  const undo = await restorePoint();
  await restore();
  await world.landLate(sequence.late[0]);
  await recover(world, exported, mutant);
  await endCron();
  await world.landLate(sequence.late[1]);
  await assertEnded(world);
  await assertNothingLost(world, lived);
  await assertTrailGoesOn(client, read, saved);
  if (sequence.runsTwice) await assertDoneAtOnce(world, exported, sequence.late[1].length > 0);

  // A try that is late may have replaced credentials behind the restore, where they were replaced before it.
  if (sequence.late[0].length + sequence.late[1].length === 0) world.replaced.clear();
  for (const one of sequence.after) await world.act(one);
  await world.letGo();
  if (sequence.cronAfterwards) {
    vi.setSystemTime(realNow() + 2 * HOUR * 1000);
    await drainPurges(env);
    vi.setSystemTime(realNow());
  }
  await assertEnded(world);
  if (!sequence.isUndone) return;

  const exportedAfter = await exportedSince(since);
  await undo();
  await world.landLate(sequence.late[2]);
  await recover(world, exportedAfter, mutant);
  await assertEnded(world);
  for (const [id, { status }] of livedBefore) if (status === 'credentials_missing') world.replaced.add(id);
  await assertNothingLost(world, livedBefore);
}

/** A second run finds nothing to do. */
async function assertDoneAtOnce(world: World, exported: ExportedRow[], wasLate: boolean): Promise<void> {
  // What is owed again is only removed again.
  const looked = tables.filter((table) => table !== 'credential_purges');
  const state = async () => Promise.all(looked.map((table) => rows(table)));
  const before = await state();
  const again = await replayRows(exported);
  const told = ['integrations_kept', 'keys_to_rotate', 'organizations_without_keys', 'ciphertexts_enqueued'];
  const done = Object.entries(again).filter(([name, ids]) => ids.length > 0 && !told.includes(name));
  if (!wasLate) {
    expect(done, 'what a second run has done').toEqual([]);
    expect(await state()).toEqual(before);
  }
  world.replayed = again;
}

/** A run of the cron that has claimed what is due, and has its removals on their way. */
async function stalledCron(): Promise<() => Promise<void>> {
  await env.DB.prepare(`UPDATE credential_purges SET due_at = 1 WHERE state = 'owed'`).run();
  const { bindings, stalls, letGo } = stallingBindings('CREDENTIALS.delete');
  const cron = drainPurges(bindings);
  await Promise.race([stalls, cron]);
  return async () => {
    letGo();
    await cron;
  };
}

const act = (...does: Act['does'][]): fc.Arbitrary<Act> =>
  fc.record({
    does: fc.constantFrom(...does),
    which: fc.nat({ max: 3 }),
    clock: fc.constantFrom(0, 0, HOUR, -HOUR),
    loses: fc.oneof({ weight: 3, arbitrary: fc.constant(-1) }, fc.nat({ max: 3 })),
    isConcurrent: fc.boolean(),
    kvRefuses: fc.boolean(),
  });

const late = fc.array(fc.nat({ max: 20 }), { maxLength: 2 });

const sequences: fc.Arbitrary<Sequence> = fc.record({
  before: fc.array(act('create', 'replace', 'import', 'reassign', 'delete', 'rotate'), { maxLength: 2 }),
  since: fc
    .tuple(
      fc.array(act(...kinds), { minLength: 1, maxLength: 3 }),
      fc.array(act('delete', 'delete number', 'revoke', 'replace', 'reassign'), { minLength: 1, maxLength: 2 }),
      fc.option(act('offboard', 'young organization'), { freq: 5 }),
    )
    .map(([some, ends, last]) => [...some, ...ends, ...(last ? [last] : [])]),
  late: fc.tuple(late, late, late),
  retention: fc.option(fc.constantFrom(1, 7, 29), { freq: 4 }),
  cronAtRestore: fc.boolean(),
  cronAfterwards: fc.boolean(),
  after: fc.array(act('create', 'replace', 'delete', 'delete number', 'revoke'), { maxLength: 2 }),
  isUndone: fc.boolean(),
  runsTwice: fc.constantFrom(true, false, false, false),
});

/** For each test: a clock of each one's own, back-off without waiting, and no log. */
export function prepare(): () => void {
  started = performance.now();
  startedAt = Date.now();
  vi.useFakeTimers({ toFake: ['Date'], now: startedAt });
  vi.spyOn(Math, 'random').mockReturnValue(0);
  // What waits a moment for others to join waits for nobody here.
  const { setTimeout: wait } = globalThis;
  vi.stubGlobal('setTimeout', (resume: () => void, milliseconds = 0) =>
    wait(resume, milliseconds <= 10 ? 0 : milliseconds),
  );
  for (const level of ['info', 'warn', 'error'] as const) vi.spyOn(console, level).mockImplementation(() => {});
  return () => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  };
}

/** What breaks among so many sequences: nothing where all hold. */
export async function failureOf(numRuns: number, mutant: Mutant = (exported) => exported) {
  const { failed, counterexample, errorInstance, seed } = await fc.check(
    fc.asyncProperty(sequences, (sequence) => run(sequence, mutant)),
    { numRuns, endOnFailure: true, seed: SEED },
  );
  return failed ? { counterexample, errorInstance, seed } : undefined;
}
