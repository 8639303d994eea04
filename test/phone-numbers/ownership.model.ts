/**
 * Random steps of two organizations that want the same numbers, and a model of who holds them. The accounts change too, and
 * late tries of their batches land between the steps.
 */
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import * as z from 'zod';
import { newAccount } from '../accounts.ts';
import type { Account } from '../accounts.ts';
import { interceptedBindings } from '../bindings.ts';
import { call, newClient, rows, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { cron } from '../integrations/rechecks.ts';
import { sip } from '../mutations.ts';
import { holdNow } from '../simulation.ts';

const NUMBERS = 3;

type Side = 0 | 1;
type Ownership = 'confirmed' | 'unconfirmed';

const step = fc.record({
  does: fc.constantFrom(
    'import',
    'import',
    'import unasked',
    'import in bulk',
    'import by SIP',
    'verify',
    'delete',
    'gain',
    'lose',
    'cron',
    'late',
  ),
  side: fc.constantFrom<Side>(0, 1),
  number: fc.nat({ max: NUMBERS - 1 }),
});
type Step = z.output<typeof parsedStep>;
const parsedStep = z.object({ does: z.string(), side: z.union([z.literal(0), z.literal(1)]), number: z.int() });

const imported = z.object({ data: z.object({ phone_number_id: z.string() }) });

class World {
  readonly #clients: [Client, Client];
  readonly #accounts: [Account, Account];
  readonly #numbers: string[];
  /** What each account has. */
  readonly #has: [Set<string>, Set<string>] = [new Set(), new Set()];
  /** Who holds a number. */
  readonly #held = new Map<string, { side: Side; ownership: Ownership; id: string }>();
  readonly #contested = new Set<string>();
  readonly #tries: (() => Promise<unknown>)[] = [];

  private constructor(clients: [Client, Client], accounts: [Account, Account], numbers: string[]) {
    this.#clients = clients;
    this.#accounts = accounts;
    this.#numbers = numbers;
  }

  static async make(): Promise<World> {
    const clients: [Client, Client] = [await newClient(), await newClient()];
    const accounts: [Account, Account] = [await newAccount(clients[0], []), await newAccount(clients[1], [])];
    return new World(clients, accounts, Array.from({ length: NUMBERS }, unusedNumber));
  }

  /** Each batch that writes may land again, later. */
  #bindings() {
    return interceptedBindings((name, carryOut, { statements }) => {
      if (name === 'DB.batch' && statements.some(({ sql }) => !sql.startsWith('select'))) this.#tries.push(carryOut);
      return carryOut();
    });
  }

  /** What is refused has no other try under way: else it would be answered 503. */
  async #send(side: Side, method: string, path: string, body?: object) {
    const { length } = this.#tries;
    const answer = await call(this.#clients[side], method, path, { ...(body && { body }), bindings: this.#bindings() });
    if (answer.status >= 400) this.#tries.length = length;
    return answer;
  }

  #hold(side: Side) {
    return holdNow(this.#accounts[side].secret, [...this.#has[side]]);
  }

  async take({ does, side, number: index }: Step): Promise<void> {
    const number = this.#numbers[index] ?? '';
    const { integration_id } = this.#accounts[side];
    const holder = this.#held.get(number);
    switch (does) {
      case 'gain':
        this.#has[side].add(number);
        return this.#hold(side);
      case 'lose':
        this.#has[side].delete(number);
        return this.#hold(side);
      case 'import': {
        const body = { phone_number: number, provider: 'twilio', integration_id };
        const { status, text } = await this.#send(side, 'POST', '/api/phone-numbers', body);
        return this.#imports(side, number, status, () => imported.parse(JSON.parse(text)).data.phone_number_id);
      }
      case 'import in bulk': {
        const body = { integration_id, phone_numbers: [number] };
        const { status, text } = await this.#send(side, 'POST', '/api/phone-numbers/bulk', body);
        const expected = status === 200 ? 201 : /"code":"phone_number_exists"/.test(text) ? 409 : 422;
        return this.#imports(side, number, expected, () => /phon_[a-f0-9]{12}/.exec(text)?.[0] ?? '');
      }
      case 'import unasked':
      case 'import by SIP': {
        const body =
          does === 'import by SIP' ? sip(number) : { phone_number: number, provider: 'twilio', integration_id };
        const { status, text } = await this.#send(side, 'POST', '/api/phone-numbers?verify=false', body);
        this.#expect(status, holder ? 409 : 201);
        if (holder) return;
        const id = imported.parse(JSON.parse(text)).data.phone_number_id;
        this.#held.set(number, { side, ownership: 'unconfirmed', id });
        return;
      }
      case 'verify': {
        if (!holder) return;
        const { status } = await this.#send(holder.side, 'POST', `/api/phone-numbers/${holder.id}/verify`);
        const isSip = await this.#isSip(holder.id);
        this.#expect(status, isSip ? 422 : 200);
        if (!isSip) holder.ownership = this.#has[holder.side].has(number) ? 'confirmed' : 'unconfirmed';
        return;
      }
      case 'delete': {
        if (!holder) return;
        const { status } = await this.#send(holder.side, 'DELETE', `/api/phone-numbers/${holder.id}`);
        this.#expect(status, 200);
        this.#held.delete(number);
        this.#contested.delete(number);
        return;
      }
      case 'late':
        return void (await this.#tries[index % Math.max(1, this.#tries.length)]?.());
      case 'cron':
        await cron(this.#bindings());
        return this.#afterCron();
    }
  }

  #imports(side: Side, number: string, status: number, idOf: () => string): void {
    const holder = this.#held.get(number);
    const isOurs = this.#has[side].has(number);
    if (holder?.side === side) return this.#expect(status, 409);
    if (!isOurs) return this.#expect(status, 422);
    if (holder?.ownership === 'confirmed') {
      this.#contested.add(number);
      return this.#expect(status, 409);
    }
    this.#expect(status, 201);
    this.#held.set(number, { side, ownership: 'confirmed', id: idOf() });
    this.#contested.delete(number);
  }

  /** It asks about contested numbers; of the others it may have asked, or will on another day. */
  async #afterCron(): Promise<void> {
    const stored = await rows('phone_numbers');
    for (const [number, holder] of this.#held) {
      const row = stored.find(({ phone_number_id }) => phone_number_id === holder.id);
      const isTrue = this.#has[holder.side].has(number) ? 'confirmed' : 'unconfirmed';
      if (this.#contested.has(number) && row?.['ownership'] !== isTrue) {
        throw new Error(`the contested ${number} is ${String(row?.['ownership'])}, and not ${isTrue}`);
      }
      if (row?.['ownership'] !== holder.ownership && row?.['ownership'] !== isTrue) {
        throw new Error(`the cron has made ${number} ${String(row?.['ownership'])}`);
      }
      holder.ownership = row?.['ownership'] === 'confirmed' ? 'confirmed' : 'unconfirmed';
    }
    this.#contested.clear();
  }

  async #isSip(id: string): Promise<boolean> {
    return (await rows('phone_numbers')).some(
      ({ phone_number_id, integration_id }) => phone_number_id === id && integration_id === null,
    );
  }

  #expect(status: number, expected: number): void {
    if (status !== expected) throw new Error(`${status} in place of ${expected}`);
  }

  /** Never two holders, never another than the model says; and credentials are of living rows alone. */
  async check(): Promise<void> {
    const stored = (await rows('phone_numbers')).filter((row) => this.#numbers.includes(String(row['phone_number'])));
    const found = stored.map((row) => [
      row['phone_number'],
      row['organization_id'],
      row['phone_number_id'],
      row['ownership'],
    ]);
    const wanted = [...this.#held].map(([number, { side, id, ownership }]) => [
      number,
      this.#clients[side].organization_id,
      id,
      ownership,
    ]);
    const sorted = (held: unknown[]) =>
      held
        .map((one) => JSON.stringify(one))
        .toSorted()
        .join();
    if (sorted(found) !== sorted(wanted)) {
      throw new Error(`${JSON.stringify(found)} in place of ${JSON.stringify(wanted)}`);
    }
    const kept = (await env.CREDENTIALS.list()).keys.flatMap(({ name }) => /phon_[a-f0-9]{12}/.exec(name)?.[0] ?? []);
    const strays = kept.filter((id) => !stored.some((row) => row['phone_number_id'] === id));
    if (strays.length > 0) throw new Error(`${strays.join()} have left credentials`);
    for (const event of await rows('audit_events')) {
      if (event['action'] === 'phone_number.released' && event['reason'] !== 'ownership_confirmed_elsewhere') {
        throw new Error('a number was released without a reason');
      }
    }
  }
}

/** @returns what went wrong, in the fewest steps that show it; undefined if nothing did */
export async function failureOf(parameters: { numRuns: number; seed?: number }, empty: () => Promise<void>) {
  const result = await fc.check(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 30, size: 'max' }), async (steps) => {
      await empty();
      const world = await World.make();
      for (const one of steps) {
        await world.take(parsedStep.parse(one));
        await world.check();
      }
    }),
    parameters,
  );
  return result.failed ? fc.defaultReportMessage(result) : undefined;
}
