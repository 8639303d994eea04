/** Whose a number is: the account of its integration is asked, and what it holds beats what nobody has confirmed. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { suspendOrganization } from '../../src/operator/organizations/suspend.ts';
import { providerNames } from '../../src/worker/core/vocabulary.ts';
import { credentialsOf, newAccount } from '../accounts.ts';
import { countedBindings, interceptedBindings, stallingBindings } from '../bindings.ts';
import { read } from '../credentials-reader/reader.ts';
import {
  actionsOn,
  call,
  createIntegration,
  emptyStorage,
  eventsOn,
  everythingKept,
  importNumber,
  newClient,
  page,
  resources,
  rowOf,
  start,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { cron } from '../integrations/rechecks.ts';
import { importSip } from '../mutations.ts';
import { answerNow, callsWith, holdNow, secretHolding } from '../simulation.ts';

const HOUR = 3_600_000;

let client: Client;
let other: Client;
let phone_number: string;

beforeEach(async () => {
  await emptyStorage();
  for (const method of ['warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
  [client, other] = [await newClient(), await newClient()];
  phone_number = unusedNumber();
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

const imported = z.object({ data: z.object({ phone_number_id: z.string(), ownership: z.string() }) });

const importing = (
  integration_id: string,
  { by = client, query = '', number = phone_number, provider = 'twilio', bindings = env, key = '' } = {},
) =>
  call(by, 'POST', `/api/phone-numbers${query}`, {
    body: { phone_number: number, provider, integration_id },
    bindings,
    ...(key && { headers: { 'Idempotency-Key': key } }),
  });

/** Imports and answers the id. */
async function held(integration_id: string, by = client, query = ''): Promise<string> {
  const { text } = await importing(integration_id, { by, query });
  return imported.parse(JSON.parse(text)).data.phone_number_id;
}

const ownershipOf = async (phone_number_id: string, by = client) =>
  Object((await call(by, 'GET', `/api/phone-numbers/${phone_number_id}`)).body).data?.ownership;

const holders = async () => {
  const { results } = await env.DB.prepare(
    'SELECT organization_id, ownership FROM phone_numbers WHERE phone_number = ?',
  )
    .bind(phone_number)
    .all();
  return results;
};

describe.each(providerNames)('an import through %s', (provider) => {
  it('is confirmed where the account holds the number', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number], { provider });

    const { status, body } = await importing(integration_id, { provider });

    expect(status).toBe(201);
    expect(body).toMatchObject({ data: { phone_number, ownership: 'confirmed' } });
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it.each(['another number', 'no number at all'])('is refused where the account holds %s', async (holds) => {
    const numbers = holds === 'no number at all' ? [] : [unusedNumber()];
    const { integration_id } = await newAccount(client, numbers, { provider });
    const before = await everythingKept();

    const { status, body } = await importing(integration_id, { provider });

    expect({ status, body }).toMatchObject({ status: 422, body: { code: 'phone_number_not_in_account' } });
    expect((await everythingKept()).d1['phone_numbers']).toEqual(before.d1['phone_numbers']);
  });

  it('is refused where the provider refuses the credentials', async () => {
    const { integration_id } = await newAccount(client, [phone_number], { provider, answers: ['refused'] });

    expect(await importing(integration_id, { provider })).toMatchObject({
      status: 422,
      body: { code: 'credentials_refused', provider_status: 401 },
    });
    expect(await holders()).toEqual([]);
  });

  it.each(['restricted', 'rate-limited', 'broken', 'redirects', 'plain-text', 'endless', 'disconnects'] as const)(
    'is unconfirmed where the account is %s',
    async (answer) => {
      const { integration_id } = await newAccount(client, [phone_number], { provider, answers: [answer] });

      expect(await importing(integration_id, { provider })).toMatchObject({
        status: 201,
        body: { data: { ownership: 'unconfirmed' } },
      });
    },
  );

  it('is unconfirmed, and asks nobody, with ?verify=false', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number], { provider });

    expect(await importing(integration_id, { provider, query: '?verify=false' })).toMatchObject({
      status: 201,
      body: { data: { ownership: 'unconfirmed' } },
    });
    expect(await callsWith(secret)).toEqual([]);
  });
});

describe('an import', () => {
  it('asks nobody when it is repeated under its Idempotency-Key, and is answered as at first', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    const first = await importing(integration_id, { key: 'once' });
    await holdNow(secret, []);

    const again = await importing(integration_id, { key: 'once' });

    expect(again.text).toBe(first.text);
    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it('asks D1, KV, the provider and D1 again', async () => {
    const { integration_id } = await newAccount(client, [phone_number]);
    const { bindings, calls } = countedBindings();

    await importing(integration_id, { bindings });

    expect(calls).toEqual(['DB.batch', 'CREDENTIALS.get', 'provider.fetch', 'DB.batch']);
  });

  it('asks nobody for a number that the organization has already', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    await held(integration_id, client, '?verify=false');

    expect(await importing(integration_id)).toMatchObject({ status: 409, body: { code: 'phone_number_exists' } });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('through no integration is a 404, also of a number that the organization has', async () => {
    await importSip(client, phone_number);

    for (const query of ['', '?verify=false']) {
      expect(await importing('intg_000000000000', { query })).toMatchObject({
        status: 404,
        body: { code: 'integration_not_found' },
      });
    }
  });

  it('asks again where the credentials were replaced while the account was asked', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const importingSlowly = importing(integration_id, { bindings });
    await stalls;
    const successor = await secretHolding([]);
    const credentials = credentialsOf.twilio(successor);
    await call(client, 'PUT', `/api/integrations/${integration_id}?verify=false`, { body: { credentials } });
    letGo();

    expect(await importingSlowly).toMatchObject({ status: 422, body: { code: 'phone_number_not_in_account' } });
    expect([(await callsWith(secret)).length, (await callsWith(successor)).length]).toEqual([1, 1]);
    expect(await holders()).toEqual([]);
  });

  it('needs no room among the unconfirmed numbers where the account holds the number', async () => {
    const { integration_id } = await newAccount(client, [phone_number]);
    await env.DB.prepare('UPDATE organizations SET max_unconfirmed_numbers = 0 WHERE organization_id = ?')
      .bind(client.organization_id)
      .run();

    expect(await importing(integration_id, { query: '?verify=false' })).toMatchObject({
      status: 409,
      body: { code: 'quota_exceeded', quota: 'unconfirmed_numbers', limit: 0 },
    });
    expect((await importing(integration_id)).status).toBe(201);
  });

  it.each(['credentials_missing', 'active'])(
    'of a suspended organization or with status %s reaches no provider',
    async (state) => {
      const { integration_id, secret } = await newAccount(client, [phone_number]);
      if (state === 'active') await suspendOrganization(env.DB, client.organization_id);
      else {
        await env.DB.prepare(`UPDATE integrations SET status = ? WHERE integration_id = ?`)
          .bind(state, integration_id)
          .run();
      }

      expect((await importing(integration_id)).status).toBe(state === 'active' ? 401 : 409);
      expect(await callsWith(secret)).toEqual([]);
    },
  );
});

describe('a number that another organization has unconfirmed', () => {
  const takes = async () => {
    const { integration_id } = await newAccount(client, [phone_number]);
    return held(integration_id);
  };

  it.each(['through an integration', 'by SIP', 'for an agent'])('%s is taken by a confirmed import', async (how) => {
    const lost =
      how === 'by SIP'
        ? await importSip(other, phone_number)
        : await importNumber(other, await createIntegration(other), phone_number);
    if (how === 'for an agent') {
      await call(other, 'PUT', `/api/phone-numbers/${lost}`, { body: { assigned_agent_id: 'agent_1' } });
    }

    const taken = await takes();

    expect(await holders()).toEqual([{ organization_id: client.organization_id, ownership: 'confirmed' }]);
    expect(await ownershipOf(taken)).toBe('confirmed');
    expect(await call(other, 'GET', `/api/phone-numbers/${lost}`)).toMatchObject({ status: 404 });
    expect((await actionsOn(lost)).at(-1)).toBe('phone_number.released');
    expect(await actionsOn(taken)).toEqual(['phone_number.imported']);
  });

  it('takes its credentials along: they are gone from KV, and no Worker reads them', async () => {
    const lost = await importSip(other, phone_number);
    expect(Object.keys((await resources()).CREDENTIALS).some((key) => key.includes(lost))).toBe(true);

    const taken = await takes();

    const { CREDENTIALS, credential_purges } = await resources();
    expect(Object.keys(CREDENTIALS).filter((key) => key.includes(lost))).toEqual([]);
    expect(credential_purges.filter((row) => String(row['kv_key']).includes(lost))).toEqual([]);
    expect(await read('readByPhoneNumber', { phone_number, fresh: true })).toMatchObject({
      ok: true,
      phone_number_id: taken,
      provider: 'twilio',
    });
  });

  it('has its credentials in the outbox by the same commit, where KV fails after the answer', async () => {
    const lost = await importSip(other, phone_number);
    const { integration_id } = await newAccount(client, [phone_number]);

    await importing(integration_id, {
      bindings: interceptedBindings((name, carryOut) =>
        name === 'CREDENTIALS.delete' ? Promise.reject(new Error('KV fails')) : carryOut(),
      ),
    });

    const owed = (await resources()).credential_purges;
    expect(owed).toMatchObject([{ organization_id: other.organization_id, state: 'owed' }]);
    expect(String(owed[0]?.['kv_key'])).toContain(lost);
  });

  it('tells its former holder why, and nothing about the new one', async () => {
    const lost = await importSip(other, phone_number);

    const { headers } = await importing((await newAccount(client, [phone_number])).integration_id);

    const { data } = await page(other, `/api/audit-events?target_id=${lost}`);
    const event = data.at(-1);
    expect(event).toMatchObject({
      action: 'phone_number.released',
      outcome: 'succeeded',
      actor: { type: 'system', id: null, name: null },
      actor_key_id: null,
      reason: 'ownership_confirmed_elsewhere',
      state: { phone_number_id: lost, phone_number },
      changes: null,
    });
    const text = JSON.stringify(event);
    expect(text).not.toContain(client.organization_id);
    expect(text).not.toContain(client.key_id);
    expect(text).not.toContain(String(headers.get('X-Request-Id')));
    const [ours] = (await page(client, '/api/audit-events?action=phone_number.imported')).data;
    expect(String(event?.['event_id']).slice(0, 24)).not.toBe(String(ours?.['event_id']).slice(0, 24));
    expect(event?.['request_id']).not.toBe(ours?.['request_id']);
  });

  it('counts for the one, and no longer for the other', async () => {
    await importSip(other, phone_number);
    await takes();

    const { results } = await env.DB.prepare(
      'SELECT organization_id, phone_number_count, unconfirmed_number_count FROM organizations WHERE organization_id IN (?, ?)',
    )
      .bind(client.organization_id, other.organization_id)
      .all();
    expect(results).toEqual(
      expect.arrayContaining([
        { organization_id: client.organization_id, phone_number_count: 1, unconfirmed_number_count: 0 },
        { organization_id: other.organization_id, phone_number_count: 0, unconfirmed_number_count: 0 },
      ]),
    );
  });

  it.each(['?verify=false', 'an account that does not answer', 'SIP'])('is not taken by %s', async (how) => {
    const kept = await importSip(other, phone_number);
    const before = await resources();
    const { integration_id } = await newAccount(client, [phone_number], {
      answers: how.startsWith('an account') ? ['broken'] : [],
    });

    const answer =
      how === 'SIP'
        ? await call(client, 'POST', '/api/phone-numbers', { body: { provider: 'sip', phone_number } })
        : await importing(integration_id, { query: how.startsWith('?') ? how : '' });

    expect(answer).toMatchObject({ status: 409, body: { code: 'phone_number_exists' } });
    expect((await resources()).phone_numbers).toEqual(before.phone_numbers);
    expect(await actionsOn(kept)).toEqual(['phone_number.imported']);
  });

  it.each(['phone_numbers', 'audit_events'])('is not taken where there is no room for it: %s', async (quota) => {
    await importSip(other, phone_number);
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    await env.DB.prepare(`UPDATE organizations SET max_${quota} = 0 WHERE organization_id = ?`)
      .bind(client.organization_id)
      .run();

    expect(await importing(integration_id)).toMatchObject({ status: 409, body: { code: 'quota_exceeded', quota } });
    expect(await holders()).toEqual([{ organization_id: other.organization_id, ownership: 'unconfirmed' }]);
    expect(await callsWith(secret)).toEqual([]);
  });

  it.each(['before', 'after'])('changes hands once where the answer is lost %s the commit', async (when) => {
    const lost = await importSip(other, phone_number);
    const { integration_id } = await newAccount(client, [phone_number]);
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'DB.batch') return carryOut();
      batches += 1;
      // The first batch looks, the second decides.
      if (batches !== 2) return carryOut();
      if (when === 'after') await carryOut();
      throw new Error('D1_ERROR: Network connection lost.');
    });

    expect((await importing(integration_id, { bindings })).status).toBe(201);

    // The last one is the removal of the ciphertext, after the answer.
    expect(batches).toBe(4);
    expect(await holders()).toEqual([{ organization_id: client.organization_id, ownership: 'confirmed' }]);
    expect((await actionsOn(lost)).filter((action) => action === 'phone_number.released')).toHaveLength(1);
  });

  it('is not taken back by a late try, once its new holder has deleted it and it is somebody else’s again', async () => {
    const { integration_id } = await newAccount(client, [phone_number]);
    await importSip(other, phone_number);
    const tries: (() => Promise<unknown>)[] = [];
    const bindings = interceptedBindings((name, carryOut) => {
      if (name === 'DB.batch') tries.push(carryOut);
      return carryOut();
    });
    const { text } = await importing(integration_id, { bindings });
    const taken = imported.parse(JSON.parse(text)).data.phone_number_id;
    await call(client, 'DELETE', `/api/phone-numbers/${taken}`);
    const again = await importSip(other, phone_number);

    for (const late of tries) await late();

    expect(await holders()).toEqual([{ organization_id: other.organization_id, ownership: 'unconfirmed' }]);
    expect(await actionsOn(taken)).toEqual(['phone_number.imported', 'phone_number.deleted']);
    expect(await actionsOn(again)).toEqual(['phone_number.imported']);
    expect(Object.keys((await resources()).CREDENTIALS).some((key) => key.includes(again))).toBe(true);
  });
});

describe('a number that another organization has confirmed', () => {
  it('stays there, and its account is asked in the cron’s next turn', async () => {
    const theirs = await newAccount(other, [phone_number]);
    const ours = await newAccount(client, [phone_number]);
    const kept = await held(theirs.integration_id, other);

    expect(await importing(ours.integration_id)).toMatchObject({ status: 409, body: { code: 'phone_number_exists' } });
    const before = await callsWith(theirs.secret);
    await cron();

    expect(await callsWith(theirs.secret)).toHaveLength(before.length + 1);
    expect(await ownershipOf(kept, other)).toBe('confirmed');
    await cron();
    expect(await callsWith(theirs.secret)).toHaveLength(before.length + 1);
    expect(await importing(ours.integration_id)).toMatchObject({ status: 409 });
  });

  it('goes to the next try once its account no longer holds it', async () => {
    const theirs = await newAccount(other, [phone_number]);
    const ours = await newAccount(client, [phone_number]);
    const lost = await held(theirs.integration_id, other);
    await holdNow(theirs.secret, []);

    expect((await importing(ours.integration_id)).status).toBe(409);
    expect(await ownershipOf(lost, other)).toBe('confirmed');
    await cron();
    expect(await ownershipOf(lost, other)).toBe('unconfirmed');
    expect((await eventsOn(lost)).at(-1)).toMatchObject({
      action: 'phone_number.updated',
      actor_type: 'system',
      changes: '{"ownership":"unconfirmed"}',
    });
    expect((await importing(ours.integration_id)).status).toBe(201);

    expect(await holders()).toEqual([{ organization_id: client.organization_id, ownership: 'confirmed' }]);
  });

  it.each(['refused', 'restricted', 'broken'] as const)('stays confirmed where its account is %s', async (answer) => {
    const theirs = await newAccount(other, [phone_number]);
    const kept = await held(theirs.integration_id, other);
    await answerNow(theirs.secret, answer);
    await importing((await newAccount(client, [phone_number])).integration_id);

    await cron();

    expect(await ownershipOf(kept, other)).toBe('confirmed');
  });

  it.each(['?verify=false', 'an account that does not hold it'])('is not asked about because of %s', async (how) => {
    const theirs = await newAccount(other, [phone_number]);
    await held(theirs.integration_id, other);
    const { integration_id } = await newAccount(client, []);
    const before = await callsWith(theirs.secret);

    await importing(integration_id, { query: how.startsWith('?') ? how : '' });
    await cron();

    expect(await callsWith(theirs.secret)).toEqual(before);
  });

  it('is told from one that nobody has by no caller whose account does not hold it', async () => {
    await held((await newAccount(other, [phone_number])).integration_id, other);
    const { integration_id } = await newAccount(client, []);
    const withoutIds = (text: string) => text.replace(/"request_id":"[^"]*"/, '');

    const theirs = await importing(integration_id);
    const nobodys = await importing(integration_id, { number: unusedNumber() });

    expect(withoutIds(theirs.text)).toBe(withoutIds(nobodys.text));
  });
});

describe('what a provider says of a number', () => {
  /** From now on a provider answers so, in place of the simulation. */
  const answerWith = (...bodies: unknown[]) => {
    const left = [...bodies];
    vi.stubGlobal('fetch', async () => Response.json(left.length > 1 ? left.shift() : left[0]));
  };
  const digitsOf = (number: string) => number.slice(1);

  it.each([
    [
      'telnyx',
      'that is being ported in',
      (number: string) => ({ id: '1', phone_number: number, status: 'port-pending' }),
    ],
    ['telnyx', 'that was ported out', (number: string) => ({ id: '1', phone_number: number, status: 'ported-out' })],
    ['plivo', 'of another carrier', (number: string) => ({ number: digitsOf(number), carrier: '12345678901234' })],
  ] as const)('does not confirm one of %s %s, and takes it from nobody', async (provider, _, numberOf) => {
    const kept = await importSip(other, phone_number);
    const { integration_id } = await newAccount(client, [], { provider });
    const found = numberOf(phone_number);
    answerWith(provider === 'telnyx' ? { data: [found], meta: { total_pages: 1 } } : found);

    expect(await importing(integration_id, { provider })).toMatchObject({ status: 409 });
    expect(await importing(integration_id, { provider, number: unusedNumber() })).toMatchObject({ status: 422 });
    expect(await ownershipOf(kept, other)).toBe('unconfirmed');
  });

  it.each([
    ['telnyx', { data: [{ id: '1', phone_number: '+14155550199', status: 'active' }], meta: { total_pages: 0 } }],
    ['vonage', { message: 'words' }],
    ['vonage', { count: 0, numbers: [{ msisdn: '14155550199', features: [] }] }],
    ['vonage', { numbers: [] }],
  ] as const)('is nothing where a list of %s is %j', async (provider, body) => {
    const { integration_id } = await newAccount(client, [], { provider });
    answerWith(body);

    const { text } = await call(client, 'POST', '/api/phone-numbers/bulk', {
      body: { integration_id, phone_numbers: [phone_number, unusedNumber()] },
    });

    expect(text).not.toContain('phone_number_not_in_account');
    expect(await holders()).toMatchObject([{ ownership: 'unconfirmed' }]);
  });

  it('is found by its digits alone, where Telnyx’s filter finds nothing with a +', async () => {
    const { integration_id } = await newAccount(client, [], { provider: 'telnyx' });
    const none = { data: [], meta: { total_pages: 0 } };
    answerWith(none, { data: [{ id: '1', phone_number, status: 'active' }], meta: { total_pages: 1 } });

    expect(await importing(integration_id, { provider: 'telnyx' })).toMatchObject({
      status: 201,
      body: { data: { ownership: 'confirmed' } },
    });
  });

  it('is that Plivo does not have it only in Plivo’s own form', async () => {
    const { integration_id } = await newAccount(client, [], { provider: 'plivo' });
    vi.stubGlobal('fetch', async () => new Response('<h1>404</h1>', { status: 404 }));

    expect(await importing(integration_id, { provider: 'plivo' })).toMatchObject({
      status: 201,
      body: { data: { ownership: 'unconfirmed' } },
    });
  });
});

describe('refused credentials', () => {
  const counted = async () => {
    const { results } = await env.DB.prepare(
      'SELECT refused_check_count AS n FROM organizations WHERE organization_id = ?',
    )
      .bind(client.organization_id)
      .all();
    return results[0]?.['n'];
  };

  it('count where the cron meets them, once, and it does not ask with them again', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number], { answers: ['refused'] });
    await held(integration_id, client, '?verify=false');

    await cron();
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 3 * HOUR });
    await cron();

    expect(await counted()).toBe(1);
    expect(await callsWith(secret)).toHaveLength(1);
    expect(await rowOf('integrations', integration_id)).toMatchObject({ last_verdict: 'refused' });
  });

  it('are not told where they were replaced meanwhile, and so were not counted', async () => {
    const { integration_id } = await newAccount(client, [phone_number], { answers: ['refused'] });
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'provider.fetch') {
        const credentials = credentialsOf.twilio(await secretHolding([], 'refused'));
        await call(client, 'PUT', `/api/integrations/${integration_id}?verify=false`, { body: { credentials } });
      }
      return result;
    });

    expect(await importing(integration_id, { bindings })).toMatchObject({
      status: 503,
      body: { code: 'temporarily_unavailable', outcome: 'not_done' },
    });
  });
});

describe('POST /api/phone-numbers/{phone_number_id}/verify', () => {
  const verify = (id: string, { by = client, bindings = env, headers = {} } = {}) =>
    call(by, 'POST', `/api/phone-numbers/${id}/verify`, { bindings, headers });

  it.each([{}, { 'Idempotency-Key': 'verify-1' }])(
    'answers what a GET then shows, also repeated: %j',
    async (headers) => {
      const { integration_id } = await newAccount(client, [phone_number]);
      const id = await held(integration_id, client, '?verify=false');
      await env.DB.prepare('UPDATE phone_numbers SET updated_at = created_at - 60 WHERE phone_number_id = ?')
        .bind(id)
        .run();

      const first = await verify(id, { headers });

      const shown = await call(client, 'GET', `/api/phone-numbers/${id}`);
      const expected = { message: 'Phone number checked successfully', ...Object(shown.body) };
      expect(first.body).toEqual(expected);
      expect((await verify(id, { headers })).body).toEqual(expected);
    },
  );

  it('confirms what the account holds, with an event', async () => {
    const { integration_id } = await newAccount(client, [phone_number]);
    const id = await held(integration_id, client, '?verify=false');

    const { status, body } = await verify(id);

    expect(status).toBe(200);
    expect(body).toMatchObject({ message: 'Phone number checked successfully', data: { ownership: 'confirmed' } });
    expect(await ownershipOf(id)).toBe('confirmed');
    const [event] = (await page(client, `/api/audit-events?target_id=${id}`)).data.slice(-1);
    expect(event).toMatchObject({
      action: 'phone_number.updated',
      actor: { type: 'api_key', id: client.key_id },
      changes: { ownership: { from: 'unconfirmed', to: 'confirmed' } },
    });
  });

  it('says that the account no longer holds what it held', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    const id = await held(integration_id);
    await holdNow(secret, []);

    expect(await verify(id)).toMatchObject({ status: 200, body: { data: { ownership: 'unconfirmed' } } });
    expect(await ownershipOf(id)).toBe('unconfirmed');
  });

  it.each(['confirmed', 'unconfirmed'])('leaves no event where the number stays %s', async (ownership) => {
    const { integration_id } = await newAccount(client, ownership === 'confirmed' ? [phone_number] : []);
    const id = await held(integration_id, client, ownership === 'confirmed' ? '' : '?verify=false');

    expect(await verify(id)).toMatchObject({ status: 200, body: { data: { ownership } } });
    expect(await actionsOn(id)).toEqual(['phone_number.imported']);
  });

  it.each([
    ['refused', 422, 'credentials_refused'],
    ['restricted', 422, 'credentials_limited'],
    ['broken', 502, 'provider_unavailable'],
  ] as const)('is an error, and changes nothing, where the account is %s', async (word, status, code) => {
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    const id = await held(integration_id);
    await answerNow(secret, word);

    expect(await verify(id)).toMatchObject({ status, body: { code } });
    expect(await ownershipOf(id)).toBe('confirmed');
  });

  it('is refused for a SIP number, and finds none of another organization', async () => {
    const id = await importSip(client);

    expect(await verify(id)).toMatchObject({ status: 422, body: { errors: [{ path: 'phone_number_id' }] } });
    expect(await verify(id, { by: other })).toMatchObject({ status: 404, body: { code: 'phone_number_not_found' } });
  });

  it('is answered again under its Idempotency-Key, and asks nobody then', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    const id = await held(integration_id, client, '?verify=false');
    const first = await verify(id, { headers: { 'Idempotency-Key': 'once' } });
    await holdNow(secret, []);

    const again = await verify(id, { headers: { 'Idempotency-Key': 'once' } });

    expect(again.text).toBe(first.text);
    expect(await callsWith(secret)).toHaveLength(1);
    expect(await ownershipOf(id)).toBe('confirmed');
  });

  it('writes nothing that is no longer true: a try that lands much later', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    const id = await held(integration_id);
    await holdNow(secret, []);
    const tries: (() => Promise<unknown>)[] = [];
    const bindings = interceptedBindings((name, carryOut, { statements }) => {
      const decides = name === 'DB.batch' && statements.some(({ sql }) => sql.startsWith('update "phone_numbers"'));
      if (!decides) return carryOut();
      tries.push(carryOut);
      throw new Error('D1_ERROR: Network connection lost.');
    });
    // By D1's clock, the account answered an hour ago.
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() - HOUR });
    expect(await verify(id, { bindings })).toMatchObject({ status: 503, body: { outcome: 'unknown' } });
    vi.useRealTimers();

    expect(tries.length).toBeGreaterThan(0);
    await tries[0]?.();

    expect(await ownershipOf(id)).toBe('confirmed');
  });

  it('is asked again where the number moved meanwhile', async () => {
    const { integration_id } = await newAccount(client, [phone_number]);
    const without = await newAccount(client, []);
    const id = await held(integration_id, client, '?verify=false');
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const verifying = verify(id, { bindings });
    await stalls;
    await call(client, 'PUT', `/api/phone-numbers/${id}?verify=false`, {
      body: { integration_id: without.integration_id },
    });
    letGo();

    expect(await verifying).toMatchObject({ status: 200, body: { data: { ownership: 'unconfirmed' } } });
    expect(await callsWith(without.secret)).toHaveLength(1);
  });
});

describe('many contested numbers', () => {
  it('are asked about once each, and hold up no other', async () => {
    const numbers = Array.from({ length: 30 }, unusedNumber);
    const theirs = await newAccount(other, numbers);
    await call(other, 'POST', '/api/phone-numbers/bulk', {
      body: { integration_id: theirs.integration_id, phone_numbers: numbers },
    });
    const bystander = await newClient();
    const own = unusedNumber();
    const { integration_id } = await newAccount(bystander, [own]);
    const waiting = await importNumber(bystander, integration_id, own);
    const ours = await newAccount(client, numbers);
    const contest = () =>
      call(client, 'POST', '/api/phone-numbers/bulk', {
        body: { integration_id: ours.integration_id, phone_numbers: numbers },
      });
    await contest();
    const before = (await callsWith(theirs.secret)).length;

    // Contested again while it is asked: the claim stands.
    let isFirst = true;
    await cron(
      interceptedBindings(async (name, carryOut) => {
        if (name === 'provider.fetch' && isFirst) {
          isFirst = false;
          await contest();
        }
        return carryOut();
      }),
    );

    expect(await ownershipOf(waiting, bystander)).toBe('confirmed');
    const paths = (await callsWith(theirs.secret)).slice(before).map(({ path }) => path);
    expect(paths.length).toBeGreaterThan(0);
    expect(new Set(paths).size).toBe(paths.length);
  });

  it('that stayed open are looked up alone again, not sought in a list that shifts', async () => {
    const many = Array.from({ length: 260 }, (_, index) => `+${14_156_000_000 + index}`);
    const contested = many.slice(250, 252);
    const theirs = await newAccount(other, many, { provider: 'telnyx' });
    const ours = await newAccount(client, contested);
    const importBoth = (by: Client, { integration_id }: { integration_id: string }) =>
      call(by, 'POST', '/api/phone-numbers/bulk', { body: { integration_id, phone_numbers: contested } });
    await importBoth(other, theirs);
    await answerNow(theirs.secret, 'broken');
    await importBoth(client, ours);
    await cron();
    await answerNow(theirs.secret, 'good');
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 1.1 * HOUR });
    let calls = 0;

    await cron(
      interceptedBindings(async (name, carryOut) => {
        const result = await carryOut();
        if (name === 'provider.fetch' && (calls += 1) === 1) await holdNow(theirs.secret, many.slice(1));
        return result;
      }),
    );

    const { results } = await env.DB.prepare(
      'SELECT ownership, ownership_due_at FROM phone_numbers WHERE organization_id = ?',
    )
      .bind(other.organization_id)
      .all();
    expect(results).toEqual(contested.map(() => ({ ownership: 'confirmed', ownership_due_at: null })));
  });
});

describe('the cron', () => {
  const later = (milliseconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + milliseconds });

  it('confirms what was imported without asking, and asks once for many numbers of an account', async () => {
    const numbers = Array.from({ length: 30 }, unusedNumber);
    const { integration_id, secret } = await newAccount(client, numbers);
    for (const number of numbers) await importNumber(client, integration_id, number);

    await cron();

    const { results } = await env.DB.prepare('SELECT DISTINCT ownership FROM phone_numbers WHERE integration_id = ?')
      .bind(integration_id)
      .all();
    expect(results).toEqual([{ ownership: 'confirmed' }]);
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it('asks again a day later about what the account did not hold, and not before', async () => {
    const { integration_id, secret } = await newAccount(client, []);
    const id = await held(integration_id, client, '?verify=false');
    await cron();
    await holdNow(secret, [phone_number]);

    later(23 * HOUR);
    await cron();
    expect(await ownershipOf(id)).toBe('unconfirmed');
    later(2 * HOUR);
    await cron();

    expect(await ownershipOf(id)).toBe('confirmed');
    const asked = (await callsWith(secret)).filter(({ path }) => path.includes('PhoneNumber='));
    expect(asked).toHaveLength(2);
  });

  it('asks an hour later where the account did not say', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number], { answers: ['broken', 'good'] });
    const id = await held(integration_id, client, '?verify=false');

    await cron();
    await cron();
    expect(await ownershipOf(id)).toBe('unconfirmed');
    expect(await callsWith(secret)).toHaveLength(1);
    later(1.1 * HOUR);
    await cron();

    expect(await ownershipOf(id)).toBe('confirmed');
  });

  it('never asks about SIP numbers, nor for a suspended organization', async () => {
    const { integration_id, secret } = await newAccount(client, [phone_number]);
    await held(integration_id, client, '?verify=false');
    const sip = await importSip(other);
    await env.DB.prepare('UPDATE phone_numbers SET ownership_due_at = 1 WHERE phone_number_id = ?').bind(sip).run();
    await suspendOrganization(env.DB, client.organization_id);

    await cron();

    expect(await callsWith(secret)).toEqual([]);
    expect(await rowOf('phone_numbers', sip)).toMatchObject({ ownership: 'unconfirmed', ownership_due_at: null });
  });

  it('writes nothing about a number that moved while its account was asked', async () => {
    const { integration_id } = await newAccount(client, [phone_number]);
    const without = await newAccount(client, []);
    const id = await held(integration_id, client, '?verify=false');
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const running = cron(bindings);
    await stalls;
    await call(client, 'PUT', `/api/phone-numbers/${id}?verify=false`, {
      body: { integration_id: without.integration_id },
    });
    letGo();
    await running;

    expect(await ownershipOf(id)).toBe('unconfirmed');
  });
});

describe('a number that moves to another integration', () => {
  const move = (id: string, integration_id: string, query = '') =>
    call(client, 'PUT', `/api/phone-numbers/${id}${query}`, { body: { integration_id } });

  it('of another account is confirmed where that holds it', async () => {
    const id = await held((await newAccount(client, [], {})).integration_id, client, '?verify=false');
    const target = await newAccount(client, [phone_number]);

    expect(await move(id, target.integration_id)).toMatchObject({
      status: 200,
      body: { data: { integration_id: target.integration_id, ownership: 'confirmed' } },
    });
    expect((await eventsOn(id)).at(-1)).toMatchObject({ action: 'phone_number.updated' });
  });

  it('of another account stays where it is, where that does not hold it', async () => {
    const { integration_id } = await newAccount(client, [phone_number]);
    const id = await held(integration_id);
    const before = await everythingKept();
    const target = await newAccount(client, []);
    const { d1 } = await everythingKept();

    expect(await move(id, target.integration_id)).toMatchObject({
      status: 422,
      body: { code: 'phone_number_not_in_account' },
    });
    expect((await everythingKept()).d1['phone_numbers']).toEqual(before.d1['phone_numbers']);
    expect((await everythingKept()).d1['audit_events']).toEqual(d1['audit_events']);
  });

  it.each([
    ['restricted', ''],
    ['broken', ''],
    ['good', '?verify=false'],
  ] as const)('of another account, which is %s, asked with "%s", is unconfirmed', async (answer, query) => {
    const id = await held((await newAccount(client, [phone_number])).integration_id);
    const target = await newAccount(client, [phone_number], { answers: [answer] });

    expect(await move(id, target.integration_id, query)).toMatchObject({
      status: 200,
      body: { data: { ownership: 'unconfirmed' } },
    });
    expect(await ownershipOf(id)).toBe('unconfirmed');
  });

  it('of the same account keeps its ownership, and nobody is asked', async () => {
    const secret = await secretHolding([phone_number]);
    const credentials = credentialsOf.twilio(secret);
    const [from, to] = [await createIntegration(client, credentials), await createIntegration(client, credentials)];
    const id = await held(from);
    const before = await callsWith(secret);

    expect(await move(id, to)).toMatchObject({ status: 200, body: { data: { ownership: 'confirmed' } } });
    expect(await move(id, from, '?verify=false')).toMatchObject({
      status: 200,
      body: { data: { ownership: 'confirmed' } },
    });
    expect(await callsWith(secret)).toEqual(before);
  });

  it('of an account that nobody knows is asked about: Telnyx’s keys name none', async () => {
    const [from, to] = [
      await newAccount(client, [phone_number], { provider: 'telnyx' }),
      await newAccount(client, [], { provider: 'telnyx' }),
    ];
    const { text } = await importing(from.integration_id, { provider: 'telnyx' });
    const id = imported.parse(JSON.parse(text)).data.phone_number_id;

    expect(await move(id, to.integration_id)).toMatchObject({ status: 422 });
    // With the + and without.
    expect(await callsWith(to.secret)).toHaveLength(2);
  });

  it('is answered again under its Idempotency-Key, as it was moved', async () => {
    const id = await held((await newAccount(client, [])).integration_id, client, '?verify=false');
    const target = await newAccount(client, [phone_number]);
    const send = () =>
      call(client, 'PUT', `/api/phone-numbers/${id}`, {
        body: { integration_id: target.integration_id },
        headers: { 'Idempotency-Key': 'once' },
      });
    const first = await send();
    await holdNow(target.secret, []);

    expect((await send()).text).toBe(first.text);
    expect(await callsWith(target.secret)).toHaveLength(1);
  });

  it('cannot become unconfirmed where there is no room for one more', async () => {
    const id = await held((await newAccount(client, [phone_number])).integration_id);
    const target = await newAccount(client, [phone_number]);
    await env.DB.prepare('UPDATE organizations SET max_unconfirmed_numbers = 0 WHERE organization_id = ?')
      .bind(client.organization_id)
      .run();

    expect(await move(id, target.integration_id, '?verify=false')).toMatchObject({
      status: 409,
      body: { quota: 'unconfirmed_numbers' },
    });
    expect((await move(id, target.integration_id)).status).toBe(200);
  });
});

describe('GET /api/phone-numbers?ownership=', () => {
  it('lists those alone, with any other filter', async () => {
    const numbers = [phone_number, unusedNumber(), unusedNumber()];
    const { integration_id } = await newAccount(client, numbers);
    for (const [index, number] of numbers.entries()) {
      await importing(integration_id, { number, query: index === 0 ? '?verify=false' : '' });
    }

    const listed = async (query: string) =>
      (await page(client, `/api/phone-numbers?${query}`)).data.map((number) => number['phone_number']);

    expect(await listed('ownership=unconfirmed')).toEqual(numbers.slice(0, 1));
    expect(await listed('ownership=confirmed')).toEqual(numbers.slice(1));
    expect(await listed(`ownership=confirmed&status=free&integration_id=${integration_id}`)).toEqual(numbers.slice(1));
    expect(await listed('ownership=unconfirmed&status=assigned')).toEqual([]);
  });
});

it('a Worker reads by an unconfirmed number only under a grant that says so', async () => {
  const { integration_id } = await newAccount(client, [phone_number]);
  const id = await held(integration_id, client, '?verify=false');
  const readBy = (consumer: string) => read('readByPhoneNumber', { phone_number, fresh: true }, { consumer });

  expect(await readBy('confirmed-only')).toEqual({ ok: false, code: 'not_granted' });
  expect(await readBy('call-router')).toMatchObject({ ok: true, ownership: 'unconfirmed' });
  await call(client, 'POST', `/api/phone-numbers/${id}/verify`);
  expect(await readBy('confirmed-only')).toMatchObject({ ok: true, ownership: 'confirmed' });
});

it('two confirmed imports at the same time have one holder', async () => {
  const [ours, theirs] = [await newAccount(client, [phone_number]), await newAccount(other, [phone_number])];

  const answers = await Promise.all([
    start(client, 'POST', '/api/phone-numbers', {
      body: { phone_number, provider: 'twilio', integration_id: ours.integration_id },
    }),
    start(other, 'POST', '/api/phone-numbers', {
      body: { phone_number, provider: 'twilio', integration_id: theirs.integration_id },
    }),
  ]);

  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201, 409]));
  expect(await holders()).toHaveLength(1);
});
