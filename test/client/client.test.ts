/** What the typed client does by itself: paths, tries, headers, time limits and errors. `fetch` is what lies outside. */
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { entries, patchbayClient, PatchbayError, patchbayOperator, unwrap } from '../../src/client/client.ts';
import { app } from '../../src/worker/app.ts';
import { beginsRoute } from '../../src/worker/http/route.ts';

interface Sent {
  method: string;
  url: string;
  headers: Headers;
  body: unknown;
}

let sent: Sent[];

beforeEach(() => {
  sent = [];
  vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'] });
  // Each turn of the event loop is a fifth of a second.
  const clock = setInterval(() => vi.advanceTimersByTime(200), 0);
  return () => {
    clearInterval(clock);
    vi.useRealTimers();
  };
});

type Outcome = Response | Error | ((signal: AbortSignal) => Promise<Response>);

const json = (status: number, body: object, headers: Record<string, string> = {}) =>
  new Response(JSON.stringify(body), { status, headers: { 'Content-Type': 'application/json', ...headers } });

const page = (data: object[], next_cursor: string | null = null, headers = {}, has_more = next_cursor !== null) =>
  json(200, { success: true, data, pagination: { next_cursor, has_more } }, headers);

const problem = (status: number, code: string, headers: Record<string, string> = {}, members: object = {}) =>
  json(status, { type: '', title: '', status, code, detail: `It is ${code}.`, request_id: 'r1', ...members }, headers);

/** A `fetch` whose requests have these outcomes, one after the other. */
function fetchOf(outcomes: Outcome[]): typeof fetch {
  return async (input, init) => {
    const { method, url, headers, signal } = new Request(input, init);
    sent.push({ method, url, headers, body: init?.body });
    const outcome = outcomes.shift();
    if (outcome === undefined) throw new Error('nothing more was expected');
    if (outcome instanceof Error) throw outcome;
    return typeof outcome === 'function' ? outcome(init?.signal ?? signal) : outcome;
  };
}

const clientOf = (...outcomes: Outcome[]) =>
  patchbayClient('https://patchbay.test', { apiKey: 'bk_live_x', organizationId: 'org_x', fetch: fetchOf(outcomes) });

const operatorOf = (...outcomes: Outcome[]) =>
  patchbayOperator('https://patchbay.test', { operatorKey: 'bk_operator_x', fetch: fetchOf(outcomes) });

const get = ({ api }: ReturnType<typeof clientOf>, init: RequestInit = {}) =>
  api['phone-numbers'].$get({ query: {} }, { init });
const remove = ({ api }: ReturnType<typeof clientOf>, headers: Record<string, string> = {}) =>
  api.integrations[':integration_id'].$delete({ param: { integration_id: 'intg_1' } }, { headers });

describe('a path parameter', () => {
  const parameters = [
    ...new Set(
      app.routes
        .filter(({ path, handler }) => beginsRoute(handler) && path.includes(':'))
        .map(({ method, path }) => `${method} ${path}`),
    ),
  ];
  const hostile = [
    '../phone-numbers/phon_0123456789ab',
    '../../health',
    '..%2Fphone-numbers',
    '%2e%2e',
    '.%2e',
    '...',
    'a/b',
    'a\\b',
    '/',
    '//evil.example',
    'https://evil.example/',
    'intg_0123456789ab?x=1#y',
    '?',
    '#',
    ';v=1',
    ' ',
    'a b',
    '\n',
    '\0',
    'é',
    '💥',
    '%',
    '%zz',
    ':integration_id',
    '$&',
    "$'",
    '{integration_id}',
    '__proto__',
    'constructor',
  ];

  it('is in every call that the client has for one of the app', () => {
    expect(parameters.length).toBeGreaterThanOrEqual(8);
  });

  it.each(parameters)('of %s stays one segment of the path, whatever is in it', async (route) => {
    const [method = '', path = ''] = route.split(' ');
    for (const value of hostile) {
      await callOf(clientFor(path, json(200, {})), method, path, value);
      const [{ url, method: used } = { url: '', method: '' }] = sent.splice(0);
      expect({ used, url }).toEqual({
        used: method,
        url: `https://patchbay.test${path.replaceAll(/:\w+/g, () => encodeURIComponent(value))}`,
      });
      expect(new URL(url).pathname.split('/')).toHaveLength(path.split('/').length);
    }
  });

  it.each(parameters)('of %s is refused before anything is sent, where no encoding keeps it there', async (route) => {
    const [method = '', path = ''] = route.split(' ');
    for (const value of ['', '.', '..', '\uD800', undefined, null, 1, {}]) {
      await expect(callOf(clientFor(path), method, path, value)).rejects.toThrow(TypeError);
    }
    await expect(callOf(clientFor(path), method, path)).rejects.toThrow(TypeError);
    expect(sent).toEqual([]);
  });

  const clientFor = (path: string, ...outcomes: Outcome[]) =>
    path.startsWith('/operator/') ? operatorOf(...outcomes) : clientOf(...outcomes);

  /** Makes the call of a route, as the client's proxy offers it. */
  function callOf(client: object, method: string, path: string, ...values: unknown[]): Promise<unknown> {
    const target = path
      .split('/')
      .slice(1)
      .reduce<object>((inner, name) => Object(Reflect.get(inner, name)), client);
    const names = Array.from(path.matchAll(/:(\w+)/g), ([, name]) => name);
    const call: unknown = Reflect.get(target, `$${method.toLowerCase()}`);
    if (typeof call !== 'function') throw new Error('no call');
    const param = Object.fromEntries(values.flatMap((value) => names.map((name) => [name, value])));
    return call({ param, json: {}, query: {} });
  }
});

describe('the key and the organization', () => {
  it('are sent with every request', async () => {
    await get(clientOf(page([])));

    expect(sent[0]?.headers.get('X-API-Key')).toBe('bk_live_x');
    expect(sent[0]?.headers.get('X-Organization-Id')).toBe('org_x');
  });

  it('are not those of an operator, whose key goes alone', async () => {
    const { operator } = operatorOf(page([]));
    await operator.organizations.$get({ query: {} });

    const [{ headers } = { headers: new Headers() }] = sent;
    expect(headers.get('Authorization')).toBe('Bearer bk_operator_x');
    expect([headers.get('X-API-Key'), headers.get('X-Organization-Id')]).toEqual([null, null]);
  });

  it.each(['', 'a b', 'bk_live_x\r\nX-Evil: 1', 'é', ' bk_live_x'])('are refused as %j, without being shown', (key) => {
    const make = () => patchbayClient('https://patchbay.test', { apiKey: key, organizationId: 'org_x' });
    expect(make).toThrow(new TypeError('apiKey must be a string of visible ASCII characters'));
    const makeOperator = () => patchbayOperator('https://patchbay.test', { operatorKey: key });
    expect(makeOperator).toThrow(new TypeError('operatorKey must be a string of visible ASCII characters'));
  });

  it.each([
    'ftp://patchbay.test',
    'https://user:secret@patchbay.test',
    'https://patchbay.test?x=1',
    'https://patchbay.test#y',
    'patchbay',
  ])('are not sent to %s', (url) => {
    expect(() => patchbayClient(url, { apiKey: 'bk_live_x', organizationId: 'org_x' })).toThrow(TypeError);
    expect(() => patchbayOperator(url, { operatorKey: 'bk_operator_x' })).toThrow(TypeError);
  });
});

describe('an Idempotency-Key', () => {
  const keys = () => sent.map(({ headers }) => headers.get('Idempotency-Key'));

  it('is random for each mutation, and the same for all its tries', async () => {
    const client = clientOf(
      new TypeError('lost'),
      problem(503, 'temporarily_unavailable'),
      json(200, {}),
      json(200, {}),
    );
    await remove(client);
    await remove(client);

    expect(keys().map((key) => key?.length)).toEqual([32, 32, 32, 32]);
    expect(new Set(keys().slice(0, 3)).size).toBe(1);
    expect(new Set(keys()).size).toBe(2);
  });

  it('may be the caller’s own', async () => {
    await remove(clientOf(problem(503, 'temporarily_unavailable'), json(200, {})), { 'Idempotency-Key': 'mine' });

    expect(keys()).toEqual(['mine', 'mine']);
  });

  it('does not go with a read', async () => {
    await get(clientOf(page([])));

    expect(keys()).toEqual([null]);
  });
});

describe('a request', () => {
  it.each<[string, Outcome]>([
    ['a network error', new TypeError('lost')],
    ['a 429', problem(429, 'rate_limited', { 'Retry-After': '10' })],
    ['a 429 until a date', problem(429, 'rate_limited', { 'Retry-After': new Date(Date.now() + 5000).toUTCString() })],
    ['a 503', problem(503, 'temporarily_unavailable')],
    ['a 503 with nonsense', problem(503, 'temporarily_unavailable', { 'Retry-After': 'soon' })],
  ])('is sent again, with the same body, after %s', async (_, outcome) => {
    const { api } = clientOf(outcome, json(200, {}));
    const { status } = await api['phone-numbers'][':phone_number_id'].$put({
      param: { phone_number_id: 'phon_1' },
      json: { supports_inbound: true },
    });

    expect(status).toBe(200);
    expect(sent.map(({ body }) => body)).toEqual(['{"supports_inbound":true}', '{"supports_inbound":true}']);
  });

  it('is sent again where its answer breaks off', async () => {
    const broken = new ReadableStream({ pull: (controller) => controller.error(new TypeError('broke off')) });

    expect((await get(clientOf(new Response(broken), page([])))).status).toBe(200);
    expect(sent).toHaveLength(2);
  });

  it.each([400, 401, 403, 404, 409, 422, 500, 502])('is not sent again after a %d', async (status) => {
    expect((await get(clientOf(problem(status, 'x')))).status).toBe(status);
    expect(sent).toHaveLength(1);
  });

  it('is sent 4 times at most, and then has the last outcome', async () => {
    const unavailable = () => problem(503, 'temporarily_unavailable');
    expect((await get(clientOf(unavailable(), unavailable(), unavailable(), unavailable()))).status).toBe(503);
    const lost = () => new TypeError('lost');
    await expect(get(clientOf(lost(), lost(), lost(), lost()))).rejects.toThrow('lost');

    expect(sent).toHaveLength(8);
  });

  it('has the outcome that says most, where it may have acted and the later tries did nothing', async () => {
    const notDone = () => problem(503, 'temporarily_unavailable', {}, { outcome: 'not_done' });
    const unknown = problem(503, 'temporarily_unavailable', {}, { outcome: 'unknown' });
    await expect(remove(clientOf(new TypeError('lost'), notDone(), notDone(), notDone()))).rejects.toThrow('lost');
    const answer = await remove(clientOf(notDone(), unknown, notDone(), problem(429, 'rate_limited')));
    expect(await answer.json()).toMatchObject({ outcome: 'unknown' });
    const late = await remove(clientOf(new TypeError('lost'), problem(404, 'integration_not_found')));
    expect(late.status).toBe(404);
  });

  it('is not sent again where the wait would be longer than 30 seconds', async () => {
    expect((await get(clientOf(problem(429, 'rate_limited', { 'Retry-After': '31' })))).status).toBe(429);
    expect(sent).toHaveLength(1);
  });

  it('waits as long as Retry-After says', async () => {
    const begin = Date.now();
    await get(clientOf(problem(429, 'rate_limited', { 'Retry-After': '7' }), page([])));

    expect(Date.now() - begin).toBeGreaterThanOrEqual(7000);
  });

  it('ends with the caller’s signal, during a try and between two', async () => {
    const during = new AbortController();
    const hangs = (signal: AbortSignal) =>
      new Promise<Response>((_, reject) => {
        signal.addEventListener('abort', () => reject(new Error('ended')));
        during.abort(new Error('mine'));
      });
    await expect(get(clientOf(hangs), { signal: during.signal })).rejects.toThrow('mine');

    const between = new AbortController();
    const refused = async () => {
      setTimeout(() => between.abort(new Error('mine')), 10);
      return problem(503, 'temporarily_unavailable', { 'Retry-After': '20' });
    };
    await expect(get(clientOf(refused), { signal: between.signal })).rejects.toThrow('mine');
    expect(sent).toHaveLength(2);
  });

  it('ends at its time limit, and is sent again', async () => {
    const hangs = (signal: AbortSignal) =>
      new Promise<Response>((_, reject) => {
        signal.addEventListener('abort', () => reject(new Error('ended')));
      });
    const outcomes: Outcome[] = [hangs, page([])];
    const send: typeof fetch = async (_, init) => {
      const outcome = outcomes.shift();
      return typeof outcome === 'function' && init?.signal ? outcome(init.signal) : page([]);
    };
    const client = patchbayClient('https://patchbay.test', {
      apiKey: 'k',
      organizationId: 'org_x',
      fetch: send,
      timeout: 20,
    });

    expect((await get(client)).status).toBe(200);
    expect(outcomes).toHaveLength(1 - 1);
  });

  it('does not follow a redirect, with which the key would go elsewhere', async () => {
    const redirect = vi.fn<typeof fetch>(async () => page([]));
    await get(patchbayClient('https://patchbay.test', { apiKey: 'k', organizationId: 'o', fetch: redirect }));

    expect(redirect.mock.calls[0]?.[1]?.redirect).toBe('manual');
  });
});

describe('a bookmark', () => {
  const bookmarks = () => sent.map(({ headers }) => headers.get('X-D1-Bookmark'));
  const at = (bookmark: string) => page([], null, { 'X-D1-Bookmark': bookmark });

  it('is the newest of all answers, in whatever order they came, and goes with reads alone', async () => {
    const client = clientOf(at('00000002-a'), at('00000001-a'), at('00000003-a'), json(200, {}), page([]));
    for (const _ of [1, 2, 3]) await get(client);
    await remove(client);
    await get(client);

    expect(bookmarks()).toEqual([null, '00000002-a', '00000002-a', null, '00000003-a']);
  });
});

describe('an operator’s call', () => {
  const param = { organization_id: 'org_1' };

  it('is sent again under one Idempotency-Key, and its bookmark goes with reads', async () => {
    const done = json(202, { success: true, message: '', data: {} }, { 'X-D1-Bookmark': '00000001-a' });
    const { operator } = operatorOf(
      new TypeError('lost'),
      problem(503, 'temporarily_unavailable'),
      done,
      json(200, {}),
    );
    const organization = operator.organizations[':organization_id'];

    await unwrap(organization.offboard.$post({ param, json: param }));
    await organization.$get({ param });

    expect(new Set(sent.slice(0, 3).map(({ headers }) => headers.get('Idempotency-Key'))).size).toBe(1);
    expect(sent.map(({ headers }) => [headers.has('Idempotency-Key'), headers.get('X-D1-Bookmark')])).toEqual([
      [true, null],
      [true, null],
      [true, null],
      [false, '00000001-a'],
    ]);
  });
});

describe('a precondition', () => {
  const number = ({ api }: ReturnType<typeof clientOf>) => api['phone-numbers'][':phone_number_id'];
  const param = { phone_number_id: 'phon_1' };

  it('goes with every try of a mutation, under one Idempotency-Key', async () => {
    const client = clientOf(new TypeError('lost'), problem(503, 'temporarily_unavailable'), json(200, {}));

    await number(client).$put({ param, json: { supports_inbound: true } }, { headers: { 'If-Match': '"1-0"' } });

    expect(sent.map(({ headers }) => headers.get('If-Match'))).toEqual(['"1-0"', '"1-0"', '"1-0"']);
    expect(new Set(sent.map(({ headers }) => headers.get('Idempotency-Key'))).size).toBe(1);
  });

  it('goes with every try of a read, whose 304 is an answer with a tag and a bookmark, and not sent again', async () => {
    const headers = { ETag: '"1-0"', 'X-D1-Bookmark': '00000007-a', 'X-Request-Id': 'r1' };
    const client = clientOf(new TypeError('lost'), new Response(null, { status: 304, headers }), page([]));

    const read = await number(client).$get({ param }, { headers: { 'If-None-Match': '"1-0"' } });
    await get(client);

    expect([read.status, read.ok, read.headers.get('ETag')]).toEqual([304, false, '"1-0"']);
    expect(sent.map((request) => request.headers.get('If-None-Match'))).toEqual(['"1-0"', '"1-0"', null]);
    expect(sent.at(-1)?.headers.get('X-D1-Bookmark')).toBe('00000007-a');
  });

  it('that names the state which is there gives unwrap no body: it throws not_modified', async () => {
    const unchanged = () => clientOf(new Response(null, { status: 304, headers: { 'X-Request-Id': 'r1' } }));

    await expect(unwrap(number(unchanged()).$get({ param }))).rejects.toMatchObject({
      name: 'PatchbayError',
      status: 304,
      code: 'not_modified',
      detail: 'The state is still the one that If-None-Match names.',
      request_id: 'r1',
      problem: undefined,
    });
  });
});

describe('an error', () => {
  const thrown = (outcome: Outcome) => unwrap(get(clientOf(outcome))).catch((error: unknown) => error);

  it('has the code, the detail, the request id and the members of its problem', async () => {
    const error = await thrown(problem(409, 'quota_exceeded', {}, { quota: 'integrations', limit: 50 }));

    expect(error).toBeInstanceOf(PatchbayError);
    expect(error).toMatchObject({
      name: 'PatchbayError',
      message: 'It is quota_exceeded. (quota_exceeded, request r1)',
      status: 409,
      code: 'quota_exceeded',
      detail: 'It is quota_exceeded.',
      request_id: 'r1',
      problem: { quota: 'integrations', limit: 50 },
    });
  });

  it.each<[string, Response]>([
    [
      'a page of a proxy',
      new Response('<h1>Bad gateway</h1>', { status: 502, headers: { 'Content-Type': 'text/html' } }),
    ],
    ['nothing', new Response(null, { status: 500 })],
    ['JSON of something else', json(404, { message: 'no route' })],
    ['null', new Response('null', { status: 404 })],
    ['a success that is no JSON', new Response('<h1>Welcome</h1>')],
  ])('has the code unexpected_answer where the answer is %s', async (_, response) => {
    expect(await thrown(response)).toMatchObject({
      name: 'PatchbayError',
      code: 'unexpected_answer',
      status: response.status,
      problem: undefined,
    });
  });
});

describe('entries', () => {
  it('walks through all pages with the same filters', async () => {
    const client = clientOf(page([{ n: 1 }, { n: 2 }], 'two'), page([], 'three'), page([{ n: 3 }]));
    const found: unknown[] = [];
    for await (const entry of entries(client.api['phone-numbers'].$get, { status: 'free', page_size: 2 })) {
      found.push(entry);
    }

    expect(found).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
    expect(sent.map(({ url }) => new URL(url).search)).toEqual([
      '?status=free&page_size=2',
      '?status=free&page_size=2&cursor=two',
      '?status=free&page_size=2&cursor=three',
    ]);
  });

  it('walks through a list whose path has a parameter', async () => {
    const { operator } = operatorOf(page([{ n: 1 }], 'two'), page([{ n: 2 }]), page([{ n: 3 }]));
    const list = operator.organizations[':organization_id']['api-keys'].$get;
    const param = { organization_id: 'org_1' };
    const found: unknown[] = [];
    for await (const entry of entries(list, { param, query: { page_size: 1 } })) found.push(entry);
    for await (const entry of entries(list, { param })) found.push(entry);

    expect(found).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
    const path = 'https://patchbay.test/operator/organizations/org_1/api-keys';
    expect(sent.map(({ url }) => url)).toEqual([`${path}?page_size=1`, `${path}?page_size=1&cursor=two`, path]);
  });

  it('follows a list to its end, where the last page has a cursor too, and no further', async () => {
    const last = () => page([{ n: 3 }], 'end', {}, false);
    const { api } = clientOf(page([{ n: 1 }, { n: 2 }], 'two'), last(), last());
    const found: unknown[] = [];
    for await (const event of entries(api['audit-events'].$get, { after: '', page_size: 2 })) found.push(event);
    for await (const event of entries(api['audit-events'].$get, { after: 'two' })) found.push(event);

    expect(found).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }, { n: 3 }]);
    expect(sent.map(({ url }) => new URL(url).search)).toEqual([
      '?after=&page_size=2',
      '?after=two&page_size=2',
      '?after=two',
    ]);
  });

  it('walks through webhook endpoints and their deliveries', async () => {
    const { api } = clientOf(page([{ endpoint_id: 'whep_1' }]), page([{ delivery_id: 'whdel_1' }]));
    const endpoints = api['webhook-endpoints'];
    const found: string[] = [];
    for await (const { endpoint_id } of entries(endpoints.$get, {})) {
      const given = { param: { endpoint_id }, query: { status: 'dead' as const } };
      for await (const { delivery_id } of entries(endpoints[':endpoint_id'].deliveries.$get, given)) {
        found.push(endpoint_id, delivery_id);
      }
    }

    expect(found).toEqual(['whep_1', 'whdel_1']);
    expect(sent.at(-1)?.url).toBe('https://patchbay.test/api/webhook-endpoints/whep_1/deliveries?status=dead');
  });

  it('asks for no page more than is used', async () => {
    const client = clientOf(page([{ n: 1 }], 'two'));
    for await (const _ of entries(client.api['phone-numbers'].$get, {})) break;

    expect(sent).toHaveLength(1);
  });

  it('throws what unwrap throws', async () => {
    const list = entries(clientOf(problem(403, 'permission_denied')).api['audit-events'].$get, {});

    await expect(list.next()).rejects.toThrow(PatchbayError);
  });
});
