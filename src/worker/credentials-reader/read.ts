/**
 * Reads credentials for the platform's own Workers, which place and answer calls (docs/credentials-reader.md). A read
 * is one statement in D1 and, if this isolate does not keep the ciphertext, one read in KV.
 */
import * as z from 'zod/mini';
import { idSchema, organizationIdPattern } from '../core/ids.ts';
import { logAlert, logError, logRead } from '../core/log.ts';
import { parse, sentenceOf } from '../core/parse.ts';
import { passes } from '../core/rate-limiter.ts';
import { RecentMap } from '../core/recent-map.ts';
import { visibleName } from '../core/text.ts';
import { toIso, unixNow } from '../core/time.ts';
import type { Ownership, ReadableProvider } from '../core/vocabulary.ts';
import type { OpenedCredentials } from '../credentials/envelope.ts';
import { readCredentials } from '../credentials/read.ts';
import type { BoundQuery } from '../d1/query.ts';
import { nearest, readOnPrimary } from '../d1/replica-session.ts';
import type { AfterAnswer, Bindings } from '../env.ts';
import { e164 } from '../phone-numbers/e164.ts';
import { findByPhoneNumber, findIntegration } from './find.ts';
import type { Found } from './find.ts';
import { grantOf, mayReadOf } from './grants.ts';
import type { Grant } from './grants.ts';
import { recordRead } from './record.ts';

/** One has up to 10 KiB. */
const MAX_KEPT_CIPHERTEXTS = 500;
/** Only a restore of D1 can name ciphertext again that KV has no more. */
const KEPT_MILLISECONDS = 600_000;
/** After so many versions that were replaced while they were read, the read gives up. */
const MAX_VERSIONS = 3;

/** What opens it stays in D1: without its row's data key it is useless. */
const keptCiphertexts = new RecentMap<string, Uint8Array<ArrayBuffer>>(MAX_KEPT_CIPHERTEXTS, KEPT_MILLISECONDS);

const anyRequest = () => ({
  /** For the log. */
  purpose: visibleName(100),
  /** Whether the primary is asked, and not the nearest replica. */
  fresh: z._default(z.boolean(), false),
});

// A malformed id or number is answered as not found.
const readRequest = z.lazy(() =>
  z.strictObject({ organization_id: z.string(), integration_id: z.string(), ...anyRequest() }),
);
const readByPhoneNumberRequest = z.lazy(() => z.strictObject({ phone_number: z.string(), ...anyRequest() }));

export type ReadRequest = z.input<typeof readRequest>;
export type ReadByPhoneNumberRequest = z.input<typeof readByPhoneNumberRequest>;

export type ReadRefusal =
  | 'integration_not_found'
  | 'phone_number_not_found'
  | 'not_granted'
  | 'rate_limited'
  | 'credentials_missing'
  | 'organization_inactive'
  | 'temporarily_unavailable';

/** Credentials as a consumer gets them. */
export interface CredentialsRead {
  ok: true;
  organization_id: string;
  /** Null for a SIP number. */
  integration_id: string | null;
  /** Null if the integration was asked for. */
  phone_number_id: string | null;
  /** Whether the account is known to hold the number. Null if the integration was asked for. */
  ownership: Ownership | null;
  provider: ReadableProvider;
  /** The fields of the integration's credentials; of a SIP number, those of its trunk. None is empty. */
  credentials: OpenedCredentials;
  /** Another one for each change of the credentials. Null for a SIP number without a password and a PIN. */
  credentials_version: string | null;
  /** When they were read; ISO 8601 in UTC. */
  read_at: string;
}

export type ReadResult = CredentialsRead | { ok: false; code: ReadRefusal };

/** One call of a consumer, which is a Worker that reads credentials. */
export interface ReaderCall {
  env: Bindings;
  /** As its binding names it; undefined if that is no name. */
  consumer: string | undefined;
  request_id: string;
  afterAnswer: AfterAnswer;
}

/** What a call asks for. */
interface Target {
  /** As far as it is known before anything is found. */
  asked: { organization_id?: string; subject_id?: string };
  /** Undefined if there can be no such thing. */
  statement: BoundQuery<Found[]> | undefined;
  notFound: 'integration_not_found' | 'phone_number_not_found';
}

const integrationId = idSchema('intg');

/** @throws TypeError if the request is malformed */
export function readByIntegration(call: ReaderCall, given: unknown): Promise<ReadResult> {
  const { organization_id, integration_id, ...request } = validate(call, readRequest, given);
  const isId = organizationIdPattern.test(organization_id) && integrationId.safeParse(integration_id).success;
  return answer(call, request, {
    asked: isId ? { organization_id, subject_id: integration_id } : {},
    statement: isId ? findIntegration.bind({ organization_id, integration_id }) : undefined,
    notFound: 'integration_not_found',
  });
}

/** @throws TypeError if the request is malformed */
export function readByPhoneNumber(call: ReaderCall, given: unknown): Promise<ReadResult> {
  const { phone_number, ...request } = validate(call, readByPhoneNumberRequest, given);
  return answer(call, request, {
    asked: {},
    statement: e164.safeParse(phone_number).success ? findByPhoneNumber.bind({ phone_number }) : undefined,
    notFound: 'phone_number_not_found',
  });
}

function validate<Schema extends z.ZodMiniType>({ request_id, consumer }: ReaderCall, schema: Schema, given: unknown) {
  const parsed = parse(schema, given, 'field');
  if (!parsed.faults) return parsed.data;
  logRead({ request_id, consumer, outcome: 'invalid_request' });
  throw new TypeError(sentenceOf(parsed.faults, 'the request'));
}

interface Outcome {
  result: ReadResult;
  found?: Found;
  /** KV has no ciphertext of the version that the row names. */
  isMissing?: boolean;
}

const refused = (code: ReadRefusal, more: Omit<Outcome, 'result'> = {}): Outcome => ({
  result: { ok: false, code },
  ...more,
});

async function answer(
  call: ReaderCall,
  { purpose, fresh }: { purpose: string; fresh: boolean },
  target: Target,
): Promise<ReadResult> {
  const { consumer, request_id } = call;
  const { result, found } = await decide(call, fresh, target).catch((error: unknown) => {
    logError('temporarily_unavailable', error, { request_id });
    return refused('temporarily_unavailable');
  });
  logRead({
    request_id,
    consumer,
    purpose,
    organization_id: found?.organization_id ?? target.asked.organization_id,
    subject_id: found?.subject_id ?? target.asked.subject_id,
    credentials_version: found?.credentials_version ?? undefined,
    outcome: result.ok ? 'ok' : result.code,
  });
  if (found && result.ok && consumer !== undefined) {
    const { organization_id } = found;
    const actor = { type: 'service', id: consumer, name: consumer } as const;
    call.afterAnswer(() => recordRead(call.env, { organization_id, actor, request_id }, found));
  }
  return result;
}

async function decide(call: ReaderCall, fresh: boolean, { asked, statement, notFound }: Target): Promise<Outcome> {
  const { env, consumer } = call;
  const grant = consumer === undefined ? undefined : grantOf(env, consumer);
  if (consumer === undefined || !grant) return refused('not_granted');
  if (!(await passes(env.CREDENTIALS_READER_LIMIT, consumer))) return refused('rate_limited');
  if (asked.organization_id !== undefined && !mayReadOf(grant, asked.organization_id)) return refused('not_granted');
  if (!statement) return refused(notFound);

  const read = async (ask: typeof nearest) => {
    const {
      found: [found],
    } = await ask({ env, told: { bookmark: null }, key: {} }, { found: statement });
    return found ? openFound(call, grant, found) : refused(notFound);
  };
  let outcome = await read(fresh ? readOnPrimary : nearest);
  for (let versions = 1; outcome.isMissing; versions += 1) {
    // It may have been replaced or deleted, meanwhile or before: only the primary knows.
    const again = await read(readOnPrimary);
    const isSame = again.found?.credentials_version === outcome.found?.credentials_version;
    if (again.found && again.isMissing && isSame) {
      const { organization_id, subject_id } = again.found;
      logAlert('credentials_lost', { organization_id, subject_id });
      return again;
    }
    if (versions === MAX_VERSIONS) return refused('temporarily_unavailable');
    outcome = again;
  }
  return outcome;
}

/** What was found, with its credentials in plain text if the consumer may have them. */
async function openFound({ env, request_id }: ReaderCall, grant: Grant, found: Found): Promise<Outcome> {
  const { organization_id, provider, credentials_version, ownership } = found;
  const isGranted = mayReadOf(grant, organization_id) && grant.providers.includes(provider);
  if (!isGranted || (ownership === 'unconfirmed' && !grant.unconfirmed)) return refused('not_granted', { found });
  if (found.organization_status !== 'active') return refused('organization_inactive', { found });
  if (found.integration_status === 'credentials_missing') return refused('credentials_missing', { found });

  const read_at = toIso(unixNow());
  const read = await readCredentials({ env, request_id }, found, keptCiphertexts);
  if (!read.credentials) {
    return read.isMissing
      ? refused('credentials_missing', { found, isMissing: true })
      : refused('temporarily_unavailable', { found });
  }
  const { integration_id, phone_number_id } = found;
  const credentials = provider === 'sip' ? { ...trunkOf(found), ...read.credentials } : read.credentials;
  return {
    result: {
      ok: true,
      organization_id,
      integration_id,
      phone_number_id,
      ownership,
      provider,
      credentials,
      credentials_version,
      read_at,
    },
    found,
  };
}

/** The trunk of a SIP number, without what it does not have. */
function trunkOf({ sip_server_address, sip_transport, sip_username, media_encryption }: Found): Record<string, string> {
  const trunk = {
    provider: 'sip',
    sip_server_address,
    sip_transport: sip_transport ?? 'auto',
    sip_username,
    media_encryption,
  };
  return Object.fromEntries(Object.entries(trunk).flatMap(([name, value]) => (value === null ? [] : [[name, value]])));
}
