/** ETag, If-None-Match and If-Match (docs/contract.md, Conditional requests). */
import { createExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { patchbayClient, unwrap } from '../../src/client/client.ts';
import worker from '../../src/worker/index.ts';
import { countedBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  emptyStorage,
  importNumber,
  newClient,
  resources,
  rowOf,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { cron } from '../integrations/rechecks.ts';
import { importSip, sip } from '../mutations.ts';
import { callsWith, secretHolding } from '../simulation.ts';

let client: Client;
let integration_id: string;
let phone_number_id: string;
let integration: string;
let number: string;

beforeEach(async () => {
  await emptyStorage();
  client = await newClient();
  integration_id = await createIntegration(client);
  phone_number_id = await importNumber(client, await createIntegration(client), unusedNumber());
  integration = `/api/integrations/${integration_id}`;
  number = `/api/phone-numbers/${phone_number_id}`;
});

afterEach(() => vi.restoreAllMocks());

const get = (path: string, headers = {}, of = client) => call(of, 'GET', path, { headers });
const tagOf = async (path: string) => (await get(path)).headers.get('ETag') ?? '';
const rename = (If_Match: string, name = 'Twilio Europe', of = client) =>
  call(of, 'PUT', integration, { body: { name }, headers: { 'If-Match': If_Match } });
const assign = (If_Match: string, agent = 'agent_1', of = client) =>
  call(of, 'PUT', number, { body: { assigned_agent_id: agent }, headers: { 'If-Match': If_Match } });
const remove = (path: string, If_Match: string, of = client) =>
  call(of, 'DELETE', path, { headers: { 'If-Match': If_Match } });
const pathOf = ({ body }: { body: unknown }, collection: string) =>
  `/api/${collection}/${/"(?:integration|phone_number)_id":"(\w+)"/.exec(JSON.stringify(body))?.[1]}`;

const failed = {
  status: 412,
  body: {
    type: 'urn:patchbay:problem:precondition_failed',
    title: 'Precondition failed',
    status: 412,
    code: 'precondition_failed',
    detail:
      'The resource has changed: its ETag is none of those in If-Match. Nothing was done. Read the resource again, and send its new ETag.',
    precondition: 'If-Match',
  },
};

/** The current state is of revision 2 from now on, and the ETag that is returned is of revision 1. */
async function outdatedTags() {
  const tags = { integration: await tagOf(integration), number: await tagOf(number) };
  await call(client, 'PUT', integration, { body: { name: 'Changed' } });
  await call(client, 'PUT', number, { body: { supports_inbound: true } });
  return tags;
}

describe('an ETag', () => {
  it('of an integration is its revision and the time of its last check, on a POST, a PUT and a GET alike', async () => {
    const created = await call(client, 'POST', '/api/integrations', { body: { name: 'One', credentials: twilio } });
    const path = pathOf(created, 'integrations');
    const { verification_checked_at } = await rowOf('integrations', path.slice('/api/integrations/'.length));

    expect(created.headers.get('ETag')).toBe(`"1-${String(verification_checked_at)}"`);
    expect(await tagOf(path)).toBe(created.headers.get('ETag'));
    const renamed = await call(client, 'PUT', path, { body: { name: 'Two' } });
    expect(renamed.headers.get('ETag')).toBe(`"2-${String(verification_checked_at)}"`);
    expect(await tagOf(path)).toBe(renamed.headers.get('ETag'));
    const replaced = await call(client, 'PUT', path, { body: { credentials: twilio } });
    expect(replaced.headers.get('ETag')).toMatch(/^"3-\d{10}"$/);
    expect(await tagOf(path)).toBe(replaced.headers.get('ETag'));
    const checked = await call(client, 'POST', `${path}/verify`);
    expect(checked.headers.get('ETag')).toMatch(/^"3-\d{10}"$/);
    expect(await tagOf(path)).toBe(checked.headers.get('ETag'));
  });

  it('of an integration that was never checked ends with 0', async () => {
    const unchecked = await createIntegration(client, twilio, '?verify=false');

    expect(await tagOf(`/api/integrations/${unchecked}`)).toBe('"1-0"');
  });

  it('of a phone number is its revision, on a POST, a PUT and a GET alike', async () => {
    const phone_number = unusedNumber();
    const holding = await createIntegration(client, { ...twilio, auth_token: await secretHolding([phone_number]) });
    const imported = await call(client, 'POST', '/api/phone-numbers?verify=false', {
      body: { phone_number, provider: 'twilio', integration_id: holding },
    });
    const path = pathOf(imported, 'phone-numbers');

    expect(imported.headers.get('ETag')).toBe('"1-0"');
    expect(await tagOf(path)).toBe('"1-0"');
    const assigned = await call(client, 'PUT', path, { body: { assigned_agent_id: 'agent_1' } });
    expect(assigned.headers.get('ETag')).toBe('"2-0"');
    const confirmed = await call(client, 'POST', `${path}/verify`);
    expect(confirmed.headers.get('ETag')).toBe('"3-0"');
    const again = await call(client, 'POST', `${path}/verify`);
    expect(again.headers.get('ETag')).toBe('"3-0"');
    expect(await tagOf(path)).toBe('"3-0"');
    const byAccount = await call(client, 'POST', '/api/phone-numbers', { body: sip(unusedNumber()) });
    expect(byAccount.headers.get('ETag')).toBe('"1-0"');
  });

  it('is on no list, no deletion, no import of many, no API key and no error', async () => {
    const answers = [
      await get('/api/integrations'),
      await get('/api/phone-numbers'),
      await get('/api/api-keys'),
      await call(client, 'POST', '/api/api-keys', { body: { name: 'Key', role: 'user' } }),
      await get('/api/integrations/intg_000000000000'),
      await call(client, 'DELETE', number),
      await call(client, 'DELETE', integration),
    ];

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 201, 404, 200, 200]);
    for (const { headers } of answers) expect(headers.get('ETag')).toBeNull();
  });

  it('reaches the client strong: nothing on the way may transform an answer under /api', async () => {
    const paths = [integration, '/api/integrations', '/api/nothing', '/api', '/api/integrations/intg_1'];
    for (const path of paths) {
      expect((await get(path)).headers.get('Cache-Control')).toBe('no-store, no-transform');
    }
    const refused = [
      await get(integration, { 'X-API-Key': null }),
      await call(client, 'DELETE', '/api/integrations'),
      await rename('"99-0"'),
    ];
    expect(refused.map(({ status }) => status)).toEqual([401, 405, 412]);
    for (const { headers } of refused) expect(headers.get('Cache-Control')).toBe('no-store, no-transform');
    expect((await get('/health')).headers.get('Cache-Control')).toBe('no-store');
    expect((await get('/apis')).headers.get('Cache-Control')).toBe('no-store');
  });
});

describe('If-None-Match', () => {
  it.each([
    ['an integration', () => integration],
    ['a phone number', () => number],
  ])('of the state that %s is in is a 304 with the headers of the 200, and no body', async (_, pathNow) => {
    const known = await get(pathNow());

    const answer = await get(pathNow(), { 'If-None-Match': known.headers.get('ETag') });

    expect(answer).toMatchObject({ status: 304, text: '' });
    const names = ({ headers }: { headers: Headers }) => [...headers.keys()].toSorted();
    expect(names(answer)).toEqual(names(known).filter((name) => name !== 'content-type'));
    expect(answer.headers.get('ETag')).toBe(known.headers.get('ETag'));
    expect(answer.headers.get('X-D1-Bookmark')).not.toBeNull();
  });

  it('is a 304 for *, for a weak tag, and for one of a list', async () => {
    const tag = await tagOf(integration);

    for (const tags of ['*', `W/${tag}`, `"1-1", ${tag}`, ` ,, "a,b" ,W/"x",${tag},`]) {
      expect((await get(integration, { 'If-None-Match': tags })).status).toBe(304);
    }
  });

  it('is a 200 where the state is another, by its revision or by its check', async () => {
    const tag = await tagOf(integration);
    const [revision, checked_at] = tag.replaceAll('"', '').split('-').map(Number);
    const others = [`"${Number(revision) + 1}-${checked_at}"`, `"${revision}-${Number(checked_at) + 1}"`, '"x"', '""'];

    for (const other of others) expect((await get(integration, { 'If-None-Match': other })).status).toBe(200);
    await call(client, 'PUT', integration, { body: { name: 'Changed' } });
    const changed = await get(integration, { 'If-None-Match': tag });
    expect(changed).toMatchObject({ status: 200, body: { data: { name: 'Changed' } } });
  });

  it('sees a check by the cron, which leaves the revision as it is', async () => {
    await env.DB.prepare('UPDATE integrations SET recheck_from = 0, verification_checked_at = 1').run();
    const tag = await tagOf(integration);

    await cron();

    const answer = await get(integration, { 'If-None-Match': tag });
    expect(tag).toBe('"1-1"');
    expect(answer.status).toBe(200);
    expect(answer.headers.get('ETag')).toMatch(/^"1-\d{10}"$/);
  });

  it('takes one call of D1, as without it', async () => {
    const { bindings, calls } = countedBindings();

    const { status } = await call(client, 'GET', integration, {
      headers: { 'If-None-Match': await tagOf(integration) },
      bindings,
    });

    expect(status).toBe(304);
    expect(calls).toEqual(['DB.batch']);
  });

  it('works with HEAD', async () => {
    const tag = await tagOf(integration);
    const head = (tags: string) =>
      worker.fetch(
        new Request<unknown, IncomingRequestCfProperties>(`https://patchbay.test${integration}`, {
          method: 'HEAD',
          headers: {
            'X-API-Key': client.raw_key,
            'X-Organization-Id': client.organization_id,
            'If-None-Match': tags,
          },
        }),
        env,
        createExecutionContext(),
      );

    const [same, other] = [await head(tag), await head('"9-9"')];

    expect([same.status, other.status]).toEqual([304, 200]);
    expect([same.headers.get('ETag'), other.headers.get('ETag')]).toEqual([tag, tag]);
    expect(await other.text()).toBe('');
  });

  it('tells nothing of what is missing, or another organization’s', async () => {
    const stranger = await newClient();

    for (const tags of ['*', await tagOf(integration)]) {
      const missing = await get('/api/integrations/intg_000000000000', { 'If-None-Match': tags });
      const foreign = await get(integration, { 'If-None-Match': tags }, stranger);
      for (const answer of [missing, foreign]) {
        expect(answer).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
        expect(answer.headers.get('ETag')).toBeNull();
      }
    }
  });

  it('is ignored by lists and by mutations', async () => {
    const headers = { 'If-None-Match': '*' };

    expect((await get('/api/integrations', headers)).status).toBe(200);
    expect((await call(client, 'PUT', integration, { body: { name: 'New' }, headers })).status).toBe(200);
    expect((await get('/api/integrations', { 'If-None-Match': 'malformed' })).status).toBe(200);
  });
});

describe('If-Match', () => {
  it('of the current state lets a PUT and a DELETE act', async () => {
    const renamed = await rename(await tagOf(integration));
    const assigned = await assign(await tagOf(number));
    await call(client, 'PUT', number, { body: { assigned_agent_id: null } });

    expect([renamed.status, assigned.status]).toEqual([200, 200]);
    expect((await remove(number, await tagOf(number))).status).toBe(200);
    expect((await remove(integration, renamed.headers.get('ETag') ?? '')).status).toBe(200);
  });

  it('of an earlier state refuses every PUT and DELETE: all is as it was, and nothing is on record', async () => {
    const tags = await outdatedTags();
    const phone_number = unusedNumber();
    const secret = await secretHolding([phone_number]);
    const other = await createIntegration(client, {
      ...twilio,
      account_sid: `AC${'b'.repeat(32)}`,
      auth_token: secret,
    });
    const sipNumber = `/api/phone-numbers/${await importSip(client)}`;
    const before = await resources();
    const asked = await callsWith(secret);

    const refused = [
      await rename(tags.integration),
      await call(client, 'PUT', integration, {
        body: { credentials: { ...twilio, auth_token: secret } },
        headers: { 'If-Match': tags.integration },
      }),
      await remove(integration, tags.integration),
      await assign(tags.number),
      await call(client, 'PUT', number, { body: { integration_id: other }, headers: { 'If-Match': tags.number } }),
      await remove(number, tags.number),
      await call(client, 'PUT', sipNumber, {
        body: { sip_password: 'plaintext-new', inbound_pin: '0815' },
        headers: { 'If-Match': '"9-0"' },
      }),
      await call(client, 'PUT', sipNumber, { body: { inbound_pin: '0815' }, headers: { 'If-Match': '"9-0"' } }),
      await call(client, 'PUT', sipNumber, {
        body: { sip_username: null, sip_password: null, inbound_pin: null },
        headers: { 'If-Match': '"9-0"' },
      }),
    ];

    for (const answer of refused) {
      expect(answer).toMatchObject(failed);
      expect(answer.headers.get('ETag')).toBeNull();
      expect(answer.headers.get('X-D1-Bookmark')).toBeNull();
    }
    expect(await resources()).toEqual(before);
    expect(await callsWith(secret)).toEqual(asked);
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.updated']);
    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.updated']);
  });

  it('writes nothing and puts nothing for new credentials that it refuses, not even for a moment', async () => {
    const { bindings, calls } = countedBindings();

    await call(client, 'PUT', integration, {
      body: { credentials: twilio },
      headers: { 'If-Match': '"9-0"' },
      bindings,
    });

    expect(calls.filter((name) => name !== 'DB.batch')).toEqual([]);
  });

  it('refuses new credentials where the integration was changed while their provider was asked', async () => {
    const tag = await tagOf(integration);
    const before = await rowOf('integrations', integration_id);
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.put') await call(client, 'PUT', integration, { body: { name: 'Meanwhile' } });
      return carryOut();
    });

    const answer = await call(client, 'PUT', integration, {
      body: { credentials: twilio },
      headers: { 'If-Match': tag },
      bindings,
    });

    expect(answer).toMatchObject(failed);
    expect(await rowOf('integrations', integration_id)).toMatchObject({
      name: 'Meanwhile',
      credentials_version: before['credentials_version'],
      revision: 2,
    });
  });

  it('accepts * and any tag of a list, and asks for the revision alone', async () => {
    const accepted = ['"1-1700000000"', '*', '"7-0", W/"2-0" ,"3-5"', ',"x",, "4-0",', '"a,b" , "5-0"'];

    for (const tags of accepted) expect((await rename(tags)).status).toBe(200);
    expect((await rowOf('integrations', integration_id))['revision']).toBe(6);
  });

  it.each([
    ['a weak tag', 'W/"1-0"'],
    ['a tag without a second part', '"1"'],
    ['a tag with a third part', '"1-0-0"'],
    ['a revision that is written otherwise', '"01-0"'],
    ['a list that does not name it', '"2-0", "x", W/"1-0", ""'],
  ])('never matches %s', async (_, tags) => {
    expect(await rename(tags)).toMatchObject(failed);
    expect(await assign(tags)).toMatchObject(failed);
  });

  const malformed = ['1-0', '"1-0', '*, "1-0"', '"1-0" "2-0"', 'w/"1-0"', 'W/ "1-0"', "'1-0'", '', ',', '"a b"', '**'];
  it.each([...malformed, `"${'1'.repeat(999)}"`])(
    'that is malformed is a 422 which says how to write it: %s',
    async (tags) => {
      const before = await resources();
      const error = {
        message: 'must be * or a list of ETags of at most 1000 characters, each in double quotes as in "3-1705314600"',
      };

      const refused = [
        await rename(tags),
        await remove(integration, tags),
        await assign(tags),
        await remove(number, tags),
      ];

      for (const answer of refused) {
        expect(answer).toMatchObject({ status: 422, body: { errors: [{ path: 'If-Match', ...error }] } });
      }
      expect(await resources()).toEqual(before);
      expect(await get(integration, { 'If-None-Match': tags })).toMatchObject({
        status: 422,
        body: { errors: [{ path: 'If-None-Match', ...error }] },
      });
    },
  );

  it('comes after a 404, of the resource and of what the body names', async () => {
    const body = { name: 'New' };
    const headers = { 'If-Match': '"9-0"' };

    for (const tags of ['"9-0"', '*']) {
      const path = '/api/integrations/intg_000000000000';
      const missing = await call(client, 'PUT', path, { body, headers: { 'If-Match': tags } });
      expect(missing).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
      expect((await remove('/api/phone-numbers/phon_000000000000', tags)).status).toBe(404);
    }
    const nowhere = await call(client, 'PUT', number, { body: { integration_id: 'intg_000000000000' }, headers });
    expect(nowhere).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
  });

  it('comes before a 409 and a 422 of what is stored', async () => {
    const used = `/api/integrations/${String((await rowOf('phone_numbers', phone_number_id))['integration_id'])}`;
    await call(client, 'PUT', number, { body: { assigned_agent_id: 'agent_1' } });
    const headers = { 'If-Match': '"9-0"' };
    const credentials = { ...twilio, account_sid: `AC${'c'.repeat(32)}` };
    await env.DB.prepare('UPDATE organizations SET max_audit_events = 0').run();

    const refused = [
      await remove(used, '"9-0"'),
      await remove(number, '"9-0"'),
      await call(client, 'PUT', used, { body: { credentials }, headers }),
      await call(client, 'PUT', used, { body: { credentials: { provider: 'telnyx', api_key: 'k' } }, headers }),
      await call(client, 'PUT', number, { body: { inbound_pin: '0815' }, headers }),
      await rename('"9-0"'),
    ];

    for (const answer of refused) expect(answer).toMatchObject(failed);
    expect((await remove(used, '"1-0"')).status).toBe(409);
    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.updated']);
  });

  it('tells another organization nothing: a matching tag is a 404 like any other', async () => {
    const stranger = await newClient();
    const before = await resources();

    for (const tags of ['*', '"1-0"', '"9-0"']) {
      const answers = [
        await rename(tags, 'Theirs', stranger),
        await remove(integration, tags, stranger),
        await assign(tags, 'agent_1', stranger),
        await remove(number, tags, stranger),
      ];
      expect(answers.map(({ status }) => status)).toEqual([404, 404, 404, 404]);
    }
    expect(await resources()).toEqual(before);
  });

  it('of two clients that assign one number with the same tag lets one, and the other hears of it', async () => {
    const tag = await tagOf(number);

    const answers = await Promise.all([assign(tag, 'agent_1'), assign(tag, 'agent_2')]);

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 412]));
    const winner = answers[0].status === 200 ? 'agent_1' : 'agent_2';
    expect(await rowOf('phone_numbers', phone_number_id)).toMatchObject({ assigned_agent_id: winner, revision: 2 });
    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.updated']);
  });

  it('is not failed by a check of the cron between the GET and the PUT', async () => {
    await env.DB.prepare('UPDATE integrations SET recheck_from = 0, verification_checked_at = 1').run();
    const tag = await tagOf(integration);
    await cron();
    expect(await tagOf(integration)).not.toBe(tag);

    const renamed = await rename(tag);

    expect(renamed).toMatchObject({ status: 200, body: { data: { name: 'Twilio Europe' } } });
  });

  it('is not asked again by a repeat under the Idempotency-Key, whatever it says then', async () => {
    const headers = { 'Idempotency-Key': 'once', 'If-Match': await tagOf(number) };
    const body = { assigned_agent_id: 'agent_1' };
    const first = await call(client, 'PUT', number, { body, headers });
    await call(client, 'PUT', number, { body: { assigned_agent_id: 'agent_2' } });

    for (const tags of [headers['If-Match'], '"99-0"', null]) {
      const again = await call(client, 'PUT', number, { body, headers: { ...headers, 'If-Match': tags } });
      expect(again).toMatchObject({ status: 200, text: first.text });
      expect(again.headers.get('Idempotency-Replayed')).toBe('true');
      expect(again.headers.get('ETag')).toBe(first.headers.get('ETag'));
    }
    expect(await rowOf('phone_numbers', phone_number_id)).toMatchObject({ assigned_agent_id: 'agent_2' });
  });

  it('that was refused is judged anew by a repeat under the Idempotency-Key', async () => {
    const send = (tags: string) =>
      call(client, 'DELETE', integration, { headers: { 'Idempotency-Key': 'once', 'If-Match': tags } });

    expect((await send('"9-0"')).status).toBe(412);
    expect((await send('"1-0"')).status).toBe(200);
  });

  it.each([
    ['rename', () => integration, { name: 'Late' }],
    ['assignment', () => number, { assigned_agent_id: 'agent_9' }],
    ['deletion', () => integration, undefined],
  ])('holds for a late try of a refused %s: it changes nothing', async (_, pathNow, body) => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    vi.spyOn(console, 'error').mockImplementation(() => {});
    await outdatedTags();
    const before = await resources();
    const late: (() => Promise<unknown>)[] = [];
    const bindings = interceptedBindings((name, carryOut) => {
      if (name !== 'DB.batch' || late.length > 0) return carryOut();
      late.push(carryOut);
      throw new Error('D1_ERROR: Network connection lost.');
    });

    const answer = await call(client, body ? 'PUT' : 'DELETE', pathNow(), {
      ...(body && { body }),
      headers: { 'If-Match': '"1-0"' },
      bindings,
    });
    for (const land of late) await land();

    expect(answer).toMatchObject({ status: 503, body: { outcome: 'unknown' } });
    expect(late).toHaveLength(1);
    expect(await resources()).toEqual(before);
  });

  it('is ignored by calls that know no precondition', async () => {
    const headers = { 'If-Match': 'malformed' };
    const body = { name: 'Key', role: 'user' };
    const created = await call(client, 'POST', '/api/api-keys', { body, headers });
    const [key_id = ''] = /apikey_[a-f0-9]{12}/.exec(created.text) ?? [];

    expect(created.status).toBe(201);
    expect((await call(client, 'POST', `${integration}/verify`, { headers })).status).toBe(200);
    expect((await call(client, 'DELETE', `/api/api-keys/${key_id}`, { headers })).status).toBe(200);
    expect((await get(integration, headers)).status).toBe(200);
  });
});

describe('the typed client', () => {
  /** @param losing whether the answer to a request is lost, once */
  function clientLosing(losing: (request: Request) => boolean) {
    let lost = false;
    const { api } = patchbayClient('https://patchbay.test', {
      apiKey: client.raw_key,
      organizationId: client.organization_id,
      fetch: async (input, init) => {
        const request = new Request<unknown, IncomingRequestCfProperties>(new Request(input, init));
        const isLost = !lost && losing(request);
        const response = await worker.fetch(request, env, createExecutionContext());
        if (!isLost) return response;
        lost = true;
        throw new TypeError('lost');
      },
    });
    return { path: api['phone-numbers'][':phone_number_id'], param: { phone_number_id }, isLost: () => lost };
  }

  it('does not fail its own If-Match where the answer to its PUT is lost, and it sends it again', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const { path, param, isLost } = clientLosing(({ method }) => method === 'PUT');
    const read = await path.$get({ param });
    const headers = { 'If-Match': read.headers.get('ETag') ?? '' };

    const answer = await path.$put({ param, json: { assigned_agent_id: 'agent_1' } }, { headers });

    expect(isLost()).toBe(true);
    expect(answer.status).toBe(200);
    expect([answer.headers.get('ETag'), answer.headers.get('Idempotency-Replayed')]).toEqual(['"2-0"', 'true']);
    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.updated']);
  });

  it('gets the 304 and the 412 as they are, and unwrap throws their codes', async () => {
    const { path, param } = clientLosing(() => false);
    const known = { headers: { 'If-None-Match': '"1-0"' } };
    const outdated = { headers: { 'If-Match': '"9-0"' } };

    expect((await path.$get({ param }, known)).status).toBe(304);
    await expect(unwrap(path.$get({ param }, known))).rejects.toMatchObject({ status: 304, code: 'not_modified' });
    await expect(unwrap(path.$delete({ param }, outdated))).rejects.toMatchObject({
      status: 412,
      code: 'precondition_failed',
      problem: { precondition: 'If-Match' },
    });
  });
});
