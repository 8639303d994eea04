/**
 * The same calls written by hand: what Patchbay promises of a get, a list and a delete, and the same answers, in straight code
 * and raw SQL for these three calls alone. Each call of a binding has its deadline and its retries within the isolate's budget, and each request its log
 * line, its rate limits, the checks of all that it may bring, and what follows the answer.
 *
 * What only other calls need is left out, and a request that asks for it is refused: filters and the other order of a list, the
 * other ways of a delete, If-Match and Idempotency-Key. So is what is rare: a refusal tells its code and no details, and who
 * calls with a key that the isolate does not know waits until D1 has been asked about it.
 */
import { Hono } from 'hono';
import type { Context } from 'hono';
import * as z from 'zod';
import { hashKey, isWellFormed } from '../../../src/worker/callers/raw-key.ts';
import { admit } from '../../../src/worker/core/admission.ts';
import { newEventId } from '../../../src/worker/core/ids.ts';
import { logError, logRequest } from '../../../src/worker/core/log.ts';
import { RecentMap } from '../../../src/worker/core/recent-map.ts';
import { toIso } from '../../../src/worker/core/time.ts';
import type { Bindings } from '../../../src/worker/env.ts';
import { modelled } from './model.ts';

const RENEW_HEARTBEAT = `UPDATE heartbeats SET beat_at = unixepoch()
  WHERE source = 'primary' AND beat_at NOT BETWEEN unixepoch() - 4 AND unixepoch()`;

const FIND_KEY = `SELECT key_id, api_keys.name, key_hash, organization_id, tier, user_id, role, expires_at
  FROM api_keys JOIN organizations USING (organization_id)
  WHERE key_hash = ?1 AND api_keys.status = 'active' AND (expires_at IS NULL OR expires_at > ?2)
    AND organizations.status = 'active'`;
const MARK_USED = `UPDATE api_keys SET last_used_at = ?1
  WHERE key_id = ?2 AND organization_id = ?3 AND (last_used_at IS NULL OR last_used_at < ?1)`;

const SHOWN = `integration_id, organization_id, name, provider, category, status, created_at, updated_at, revision,
  account_hint, verification_status, verification_checked_at, verification_provider_status, verification_provider_code`;
const GET = `SELECT ${SHOWN} FROM integrations WHERE organization_id = ?1 AND integration_id = ?2`;

const IS_LISTED = 'organization_id = ?1 AND (created_at, integration_id) >= (?2, ?3)';
const PAGE = `SELECT ${SHOWN}, phone_number_count FROM integrations WHERE ${IS_LISTED}
  ORDER BY created_at, integration_id LIMIT ?4`;
const NEXT_PAGE = PAGE.replace('>=', '>');
const COUNT = `SELECT count(*) AS count FROM (SELECT 1 FROM integrations WHERE ${IS_LISTED} LIMIT 1001)`;

const RECORD_DECISION = `INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id,
    state, created_at, sequence, actor_type, actor_id, actor_name)
  SELECT ?1, ?2, iif(EXISTS (SELECT 1 FROM phone_numbers WHERE organization_id = ?1 AND integration_id = ?3),
      'integration.delete_refused', 'integration.deleted'), integration_id, ?4, ?5,
    json_object('organization_id', ?1, 'integration_id', integration_id, 'name', integrations.name, 'provider', provider, 'category',
      category, 'status', integrations.status, 'credentials_version', credentials_version, 'created_at',
      integrations.created_at, 'updated_at', integrations.updated_at, 'revision', integrations.revision, 'account_hint',
      account_hint, 'verification_status', verification_status, 'verification_checked_at', verification_checked_at,
      'verification_provider_status', verification_provider_status, 'verification_provider_code',
      verification_provider_code),
    max(last_event_at, unixepoch()), last_sequence + 1, 'api_key', ?4, ?6
  FROM integrations JOIN organizations USING (organization_id)
  WHERE organization_id = ?1 AND integration_id = ?3 AND organizations.status = 'active' AND EXISTS (SELECT 1 FROM api_keys
    WHERE key_id = ?4 AND organization_id = ?1 AND role IN ('admin', 'agent_manager') AND status = 'active'
      AND (expires_at IS NULL OR expires_at > ?7))
  ON CONFLICT DO NOTHING`;
const IS_DECIDED = `organization_id = ?1 AND event_id = ?2 AND action = 'integration.deleted'`;
const ENQUEUE_PURGE = `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at, state)
  SELECT 'v1/' || organization_id || '/' || target_id || '/' || json_extract(state, '$.credentials_version'),
    organization_id, ?3, 0, ?3, 'owed'
  FROM audit_events WHERE ${IS_DECIDED} ON CONFLICT (kv_key) DO UPDATE SET state = 'owed'`;
const REMOVE = `DELETE FROM integrations WHERE organization_id = ?1 AND integration_id = ?3
  AND EXISTS (SELECT 1 FROM audit_events WHERE ${IS_DECIDED})`;
const REFERENCES = 'SELECT 1 FROM phone_numbers WHERE organization_id = ?1 AND integration_id = ?2 LIMIT 1';
const DECISION = `SELECT event_id, action, audit_events.state, role FROM (SELECT 1)
  LEFT JOIN audit_events ON audit_events.organization_id = ?1 AND event_id = ?2
  LEFT JOIN api_keys ON event_id IS NULL AND key_id = ?3 AND api_keys.organization_id = ?1 AND api_keys.status = 'active'
    AND (expires_at IS NULL OR expires_at > ?4) AND EXISTS (SELECT 1 FROM organizations
      WHERE organization_id = ?1 AND organizations.status = 'active')`;
const FORGET_PURGE = 'DELETE FROM credential_purges WHERE kv_key = ?1';

const CALL_MILLISECONDS = 5000;

const callerSchema = z.object({
  key_id: z.string(),
  name: z.string(),
  key_hash: z.string(),
  organization_id: z.string(),
  tier: z.enum(['starter', 'pro', 'enterprise']),
  user_id: z.string(),
  role: z.enum(['admin', 'agent_manager', 'user']),
  expires_at: z.int().nullable(),
});
type Caller = z.output<typeof callerSchema> & { deadline: number };

/** Callers whose key was alive when D1 was last asked. */
const callers = new RecentMap<string, Caller>(1000);
const TRUSTED_SECONDS = 56;
const REFRESHED_SECONDS_BEFORE = 5;

const limits = {
  starter: { binding: 'STARTER_LIMIT', calls: 100, mutating: 'STARTER_MUTATIONS_LIMIT', mutations: 20 },
  pro: { binding: 'PRO_LIMIT', calls: 500, mutating: 'PRO_MUTATIONS_LIMIT', mutations: 100 },
  enterprise: {
    binding: 'ENTERPRISE_LIMIT',
    calls: 5000,
    mutating: 'ENTERPRISE_MUTATIONS_LIMIT',
    mutations: 1000,
  },
} as const;

interface IntegrationRow {
  integration_id: string;
  organization_id: string;
  name: string;
  provider: string;
  category: string;
  status: string;
  created_at: number;
  updated_at: number;
  revision: number;
  account_hint: string | null;
  verification_status: keyof typeof details;
  verification_checked_at: number | null;
  verification_provider_status: number | null;
  verification_provider_code: string | null;
}

const details = {
  unverified: 'The provider has not been asked about these credentials.',
  verified: 'The provider accepted the credentials.',
  limited:
    'The provider knows the credentials, but did not permit the call: they are restricted, or the account is suspended.',
  refused: 'The provider refused the credentials.',
  unreachable: 'The provider did not answer.',
};

class Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, options?: ErrorOptions) {
    super(code, options);
    this.status = status;
    this.code = code;
  }
}

class Late extends Error {}

type Ctx = Context<{ Bindings: Bindings }>;

interface Call {
  c: Ctx;
  request_id: string;
  caller?: Caller;
  headers: Record<string, string>;
  afterAnswer: (() => Promise<unknown>)[];
}

const unixNow = () => Math.floor(Date.now() / 1000);

function inTime<Result>({ c }: Call, name: string, answering: Promise<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      c.executionCtx.waitUntil(answering.catch(() => {}));
      reject(new Late(`${name} did not answer in time`));
    }, CALL_MILLISECONDS);
    const before =
      <Value>(settle: (value: Value) => void) =>
      (value: Value) => {
        clearTimeout(timer);
        settle(value);
      };
    answering.then(before(resolve), before(reject));
  });
}

type Rows<Row> = D1Result<Row>[];

/** The isolate's budget of retries: each takes ten, and a batch that succeeds brings one. */
let tokens = 1000;

async function batch<Row>(call: Call, session: D1DatabaseSession, statements: D1PreparedStatement[], writes: boolean) {
  let inDoubt = false;
  for (let tries = 1; ; tries += 1) {
    try {
      const results: Rows<Row> = await inTime(
        call,
        'DB.batch',
        admit(() => session.batch<Row>(statements)),
      );
      tokens = Math.min(tokens + 1, 1000);
      const bookmark = session.getBookmark();
      if (bookmark !== null) call.headers['X-D1-Bookmark'] = bookmark;
      return { results, inDoubt };
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const neverRan = /overloaded|Cannot resolve D1|starting up D1|maximum DB size|SQLITE_(BUSY|LOCKED|FULL)/.test(
        message,
      );
      if (!neverRan && /\bSQLITE_|^D1_(TYPE|EXEC)_ERROR|^D1_COLUMN_NOTFOUND/.test(message)) throw error;
      if (!neverRan) inDoubt = writes;
      const maxTries = message.includes('overloaded') ? 2 : 3;
      if (error instanceof Late || tries >= maxTries || tokens < 10 || call.c.req.raw.signal.aborted) {
        throw new Refusal(503, 'temporarily_unavailable', { cause: error });
      }
    }
    tokens -= 10;
    const milliseconds = Math.random() * 100 * 2 ** (tries - 1);
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

/** @throws Refusal of a key that is unknown or dead */
async function askForKey(call: Call, key_hash: string, now: number): Promise<Caller> {
  const session = call.c.env.DB.withSession('first-primary');
  const { results } = await batch(call, session, [session.prepare(FIND_KEY).bind(key_hash, now)], false);
  const found = callerSchema.safeParse(results[0]?.results[0]);
  callers.delete(key_hash);
  if (!found.success) throw new Refusal(401, 'invalid_api_key');
  const caller = { ...found.data, deadline: now + TRUSTED_SECONDS };
  callers.set(key_hash, caller);
  const { organization_id, key_id } = caller;
  call.afterAnswer.push(() =>
    batch(
      call,
      session,
      [session.prepare(RENEW_HEARTBEAT), session.prepare(MARK_USED).bind(now, key_id, organization_id)],
      true,
    ),
  );
  return caller;
}

async function isAdmitted(call: Call, binding: keyof Bindings & `${string}_LIMIT`, key: string): Promise<boolean> {
  try {
    const { success } = await inTime(call, binding, call.c.env[binding].limit({ key }));
    return success;
  } catch (error) {
    logError('rate_limiter_failed', error);
    return true;
  }
}

/** @throws Refusal */
async function authenticate(call: Call, request: Request, isMutation: boolean): Promise<Caller> {
  const rawKey = request.headers.get('X-API-Key');
  if (!rawKey) throw new Refusal(401, 'missing_api_key');
  if (!isWellFormed(rawKey)) throw new Refusal(401, 'invalid_api_key');
  const key_hash = await hashKey(rawKey);
  const now = unixNow();
  let caller = callers.get(key_hash);
  if (!caller || caller.key_hash !== key_hash || now >= caller.deadline || caller.deadline > now + 60) {
    const address = request.headers.get('CF-Connecting-IP') ?? 'unknown';
    if (!(await isAdmitted(call, 'IP_LIMIT', `key_lookup ${address}`))) throw new Refusal(429, 'rate_limited');
    caller = await askForKey(call, key_hash, now);
  } else if (caller.deadline - now <= REFRESHED_SECONDS_BEFORE) {
    call.afterAnswer.push(() => askForKey(call, key_hash, unixNow()));
  }
  if (caller.expires_at !== null && now >= caller.expires_at) throw new Refusal(401, 'invalid_api_key');
  call.caller = caller;

  const { organization_id, tier } = caller;
  const { binding, calls, mutating, mutations } = limits[tier];
  const policy = `"${tier}";q=${calls};w=10`;
  call.headers['RateLimit-Policy'] = isMutation ? `${policy}, "${tier}_mutations";q=${mutations};w=10` : policy;
  const passes =
    (await isAdmitted(call, binding, organization_id)) &&
    (!isMutation || (await isAdmitted(call, mutating, organization_id)));
  if (!passes) throw new Refusal(429, 'rate_limited');

  const named = request.headers.get('X-Organization-Id');
  if (!named) throw new Refusal(400, 'missing_organization_id');
  if (!/^org_[A-Za-z0-9_-]{1,40}$/.test(named)) throw new Refusal(400, 'invalid_organization_id');
  if (named !== organization_id) throw new Refusal(403, 'organization_mismatch');
  if (isMutation && caller.role === 'user') throw new Refusal(403, 'permission_denied');
  return caller;
}

const invalid = () => new Refusal(422, 'validation_failed');

/** @throws Refusal */
function idIn(c: Ctx): string {
  const id = c.req.param('integration_id') ?? '';
  if (!/^intg_[a-f0-9]{12}$/.test(id)) throw invalid();
  return id;
}

/** @throws Refusal of a parameter that the call does not have, or that is given twice */
function parametersIn(url: string, ...names: string[]): Map<string, string> {
  const given = new Map<string, string>();
  const start = url.indexOf('?');
  if (start === -1) return given;
  for (const [name, value] of new URLSearchParams(url.slice(start + 1))) {
    if (!names.includes(name) || given.has(name)) throw invalid();
    given.set(name, value);
  }
  return given;
}

/** @throws Refusal */
function sessionOf({ c }: Call): D1DatabaseSession {
  const bookmark = c.req.raw.headers.get('X-D1-Bookmark');
  if (bookmark === null) return c.env.DB.withSession('first-unconstrained');
  if (!/^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/.test(bookmark)) throw invalid();
  return c.env.DB.withSession(bookmark);
}

const presentDeleted = (row: IntegrationRow) => ({
  integration_id: row.integration_id,
  client_id: row.organization_id,
  name: row.name,
  provider: row.provider,
  category: row.category,
  status: row.status,
  created_at: toIso(row.created_at),
  updated_at: toIso(row.updated_at),
});

const present = (row: IntegrationRow) => ({
  integration_id: row.integration_id,
  client_id: row.organization_id,
  name: row.name,
  provider: row.provider,
  category: row.category,
  status: row.status,
  created_at: toIso(row.created_at),
  updated_at: toIso(row.updated_at),
  account_hint: row.account_hint,
  verification: {
    status: row.verification_status,
    checked_at: row.verification_checked_at === null ? null : toIso(row.verification_checked_at),
    provider_status: row.verification_provider_status,
    provider_code: row.verification_provider_code,
    detail:
      row.verification_status === 'unreachable' && row.verification_provider_status !== null
        ? `The provider answered with status ${row.verification_provider_status} in a way that says nothing about the credentials.`
        : details[row.verification_status],
  },
});

async function get(call: Call): Promise<Response> {
  const { c, headers } = call;
  const { organization_id } = await authenticate(call, c.req.raw, false);
  const id = idIn(c);
  parametersIn(c.req.url);
  const known = c.req.raw.headers.get('If-None-Match') ?? '';
  if (known.length > 1000) throw invalid();
  const session = sessionOf(call);
  const { results } = await batch<IntegrationRow>(
    call,
    session,
    [session.prepare(GET).bind(organization_id, id)],
    false,
  );
  const row = results[0]?.results[0];
  if (!row) throw new Refusal(404, 'integration_not_found');
  headers['ETag'] = `"${row.revision}-${row.verification_checked_at ?? 0}"`;
  if (known === '*' || (known !== '' && known.includes(headers['ETag']))) {
    return new Response(null, { status: 304, headers });
  }
  headers['Content-Type'] = 'application/json';
  return new Response(JSON.stringify({ success: true, data: present(row) }), { headers });
}

const cursorSchema = z.strictObject({
  list: z.string(),
  after: z.tuple([z.number(), z.string()]),
  count: z.int().nonnegative(),
});

/** @throws Refusal of a cursor that is not of this list */
function readCursor(cursor: string, thisList: string): z.output<typeof cursorSchema> {
  try {
    const content = cursorSchema.parse(JSON.parse(atob(cursor.replaceAll('-', '+').replaceAll('_', '/'))));
    if (content.list === thisList) return content;
  } catch (cause) {
    throw new Refusal(422, 'validation_failed', { cause });
  }
  throw invalid();
}

const writeCursor = (content: object) =>
  btoa(JSON.stringify(content)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');

async function list(call: Call): Promise<Response> {
  const { c, headers } = call;
  const { organization_id } = await authenticate(call, c.req.raw, false);
  const parameters = parametersIn(c.req.url, 'page_size', 'cursor');
  const given = parameters.get('page_size') ?? '20';
  const page_size = Number(given);
  if (!/^[1-9]\d*$/.test(given) || page_size > 100) throw invalid();
  const thisList = JSON.stringify(['integrations', organization_id, []]);
  const cursor = parameters.get('cursor');
  const place = cursor === undefined ? undefined : readCursor(cursor, thisList);
  const session = sessionOf(call);
  const [time, id] = place?.after ?? [0, ''];
  const page = session.prepare(place ? NEXT_PAGE : PAGE).bind(organization_id, time, id, page_size + 1);
  const { results } = await batch<IntegrationRow & { phone_number_count: number; count: number }>(
    call,
    session,
    place ? [page] : [page, session.prepare(COUNT).bind(organization_id, time, id)],
    false,
  );
  const found = results[0]?.results ?? [];
  const rows = found.slice(0, page_size);
  const last = found.length > page_size ? rows.at(-1) : undefined;
  const count = place?.count ?? results[1]?.results[0]?.count ?? 0;
  headers['Content-Type'] = 'application/json';
  return new Response(
    JSON.stringify({
      success: true,
      data: rows.map((row) => ({ ...present(row), phone_number_count: row.phone_number_count })),
      pagination: {
        next_cursor: last
          ? writeCursor({ list: thisList, after: [last.created_at, last.integration_id], count })
          : null,
        has_more: last !== undefined,
        page_size,
        total_count: Math.min(count, 1000),
        total_count_exact: count <= 1000,
      },
    }),
    { headers },
  );
}

interface DecisionRow {
  action: string | null;
  state: string;
  role: string | null;
}

async function remove(call: Call): Promise<Response> {
  const { c, request_id, headers } = call;
  const { organization_id, key_id, name, key_hash } = await authenticate(call, c.req.raw, true);
  const id = idIn(c);
  parametersIn(c.req.url);
  const isMore = c.req.raw.headers.get('Idempotency-Key') ?? c.req.raw.headers.get('If-Match');
  if (isMore !== null) throw new Refusal(501, 'not_written_by_hand');
  const now = unixNow();
  const event_id = newEventId();
  const session = c.env.DB.withSession('first-primary');
  const { results, inDoubt } = await batch<DecisionRow>(
    call,
    session,
    [
      session.prepare(RENEW_HEARTBEAT),
      session.prepare(RECORD_DECISION).bind(organization_id, event_id, id, key_id, request_id, name, now),
      session.prepare(ENQUEUE_PURGE).bind(organization_id, event_id, now),
      session.prepare(REMOVE).bind(organization_id, event_id, id),
      session.prepare(REFERENCES).bind(organization_id, id),
      session.prepare(DECISION).bind(organization_id, event_id, key_id, now),
    ],
    true,
  );
  const decision = results[5]?.results[0];
  if (!decision || decision.action === null) {
    if (inDoubt) throw new Refusal(503, 'temporarily_unavailable');
    if (decision?.role === 'admin' || decision?.role === 'agent_manager')
      throw new Refusal(404, 'integration_not_found');
    callers.delete(key_hash);
    throw decision?.role ? new Refusal(403, 'permission_denied') : new Refusal(401, 'invalid_api_key');
  }
  if (decision.action === 'integration.delete_refused') throw new Refusal(409, 'integration_in_use');
  const state: IntegrationRow & { credentials_version: string } = JSON.parse(decision.state);
  const kv_key = `v1/${organization_id}/${id}/${state.credentials_version}`;
  call.afterAnswer.push(async () => {
    await inTime(call, 'CREDENTIALS.delete', c.env.CREDENTIALS.delete(kv_key));
    await batch(call, session, [session.prepare(FORGET_PURGE).bind(kv_key)], true);
  });
  headers['Content-Type'] = 'application/json';
  return new Response(
    JSON.stringify({ success: true, message: 'Integration deleted successfully', data: presentDeleted(state) }),
    { headers },
  );
}

function refuse({ request_id, headers }: Call, error: unknown): { response: Response; code: string } {
  const { status, code } = error instanceof Refusal ? error : new Refusal(500, 'internal_error');
  if (status >= 500) logError(code, error, { request_id });
  if (status === 401) delete headers['RateLimit-Policy'];
  delete headers['X-D1-Bookmark'];
  headers['Content-Type'] = 'application/problem+json';
  const body = { type: `urn:patchbay:problem:${code}`, status, code, request_id };
  return { response: new Response(JSON.stringify(body), { status, headers }), code };
}

async function runAfterAnswer({ afterAnswer, request_id }: Call): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
  await Promise.all(
    afterAnswer.map((task) => task().catch((error: unknown) => logError('after_answer_failed', error, { request_id }))),
  );
}

/** What every call has around it. */
async function answered(c: Ctx, route: string, carryOut: (call: Call) => Promise<Response>): Promise<Response> {
  const request_id = crypto.randomUUID();
  const call: Call = {
    c,
    request_id,
    headers: {
      'X-Request-Id': request_id,
      'Cache-Control': 'no-store, no-transform',
      'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
      'Referrer-Policy': 'no-referrer',
      'Strict-Transport-Security': 'max-age=15552000; includeSubDomains',
      'X-Content-Type-Options': 'nosniff',
      'X-Frame-Options': 'DENY',
    },
    afterAnswer: [],
  };
  let response: Response;
  let outcome = 'ok';
  try {
    response = await carryOut(call);
  } catch (error) {
    ({ response, code: outcome } = refuse(call, error));
  }
  logRequest({
    request_id,
    method: c.req.method,
    route,
    organization_id: call.caller?.organization_id,
    key_id: call.caller?.key_id,
    operator_key_id: undefined,
    status: response.status,
    outcome,
    replayed: undefined,
  });
  if (call.afterAnswer.length > 0) c.executionCtx.waitUntil(runAfterAnswer(call));
  return response;
}

const LIST_ROUTE = '/api/integrations';
const ROUTE = '/api/integrations/:integration_id';

const app = new Hono<{ Bindings: Bindings }>()
  .get(LIST_ROUTE, (c) => answered(c, LIST_ROUTE, list))
  .get(ROUTE, (c) => answered(c, ROUTE, get))
  .delete(ROUTE, (c) => answered(c, ROUTE, remove));

export default modelled(app.fetch);
