/** The API's calls: Hono's `hc` with the types of the app. */
import type { Hono } from 'hono';
import { hc } from 'hono/client';
import type { BlankEnv, ExtractSchema } from 'hono/types';
import type { app } from '../worker/app.ts';
import { encodingParameters } from './path-parameters.ts';
import type { Problem } from './problem.ts';
import { assertVisible, transport } from './transport.ts';
import type { TransportOptions } from './transport.ts';

/** Hono writes parameters as strings, and their types are those of what it writes. */
type Parameters<Query> = {
  [Name in keyof Query]:
    | Query[Name]
    | (Name extends 'page_size' ? number : never)
    | (string extends Query[Name] ? never : 'true' | 'false' extends Query[Name] ? boolean : never);
};

interface TwilioAuthToken {
  auth_token: string;
  api_key_sid?: null;
  api_key_secret?: null;
}

interface TwilioApiKey {
  auth_token?: string | null;
  api_key_sid: string;
  api_key_secret: string;
}

interface VonageAccount {
  application_id?: null;
  private_key?: null;
}

interface VonageApplication {
  application_id: string;
  private_key: string;
}

/** Fields that go together: the schema's type lets each of them be absent, and its `superRefine` refuses that. */
type Complete<Credentials> = Credentials extends { provider: 'twilio' }
  ? Omit<Credentials, keyof TwilioApiKey> & (TwilioAuthToken | TwilioApiKey)
  : Credentials extends { provider: 'vonage' }
    ? Omit<Credentials, keyof VonageApplication> & (VonageAccount | VonageApplication)
    : Credentials;

type Body<Json> = {
  [Field in keyof Json]: Field extends 'credentials' ? Complete<Json[Field]> : Json[Field];
};

type Given<Input> = {
  [Kind in keyof Input]: Kind extends 'query'
    ? Parameters<Input[Kind]>
    : Kind extends 'json'
      ? Body<Input[Kind]>
      : Input[Kind];
};

type ProblemStatus = 400 | 401 | 403 | 404 | 405 | 409 | 412 | 413 | 415 | 422 | 429 | 500 | 502 | 503;

/** Hono derives a route's answers from its handler only. Any route may answer with a problem too. */
type OrProblem<Endpoint> = Endpoint extends {
  input: infer Input;
  output: infer Output;
  outputFormat: infer Format;
  status: infer Status;
}
  ? | { input: Given<Input>; output: Output; outputFormat: Format; status: Status }
    | { input: Given<Input>; output: Problem; outputFormat: 'json'; status: ProblemStatus }
  : never;

/** What a dry run answers: whether the call would act. */
type Preview = { output: { data: { would_delete: boolean } | { would_update: boolean } } };

/** An endpoint with another type of the parameter `dry_run`, if it has that. */
type WithDryRun<Endpoint, Flag> = Endpoint extends { input: { query?: infer Query } }
  ? 'dry_run' extends keyof NonNullable<Query>
    ? Omit<Endpoint, 'input'> & { input: Omit<Endpoint['input'], 'query'> & QueryWith<NonNullable<Query>, Flag> }
    : Endpoint
  : Endpoint;

type QueryWith<Query, Flag> = undefined extends Flag
  ? { query?: Omit<Query, 'dry_run'> & { dry_run?: Exclude<Flag, undefined> } }
  : { query: Omit<Query, 'dry_run'> & { dry_run: Flag } };

type Routes = ExtractSchema<typeof app>;

/** The calls that act. */
type Acting<Paths extends keyof Routes> = {
  [Path in Paths]: {
    [Method in keyof Routes[Path]]: OrProblem<
      WithDryRun<Exclude<Routes[Path][Method], Preview>, 'false' | false | undefined>
    >;
  };
};

/** The same calls as dry runs, which have other answers. */
type DryRuns<Paths extends keyof Routes> = {
  [Path in Paths]: {
    [Method in keyof Routes[Path] as Extract<Routes[Path][Method], Preview> extends never ? never : Method]: OrProblem<
      WithDryRun<Extract<Routes[Path][Method], Preview>, 'true' | true>
    >;
  };
};

/** Hono's client of a union has the calls of both, as overloads. */
type AppOf<Paths extends keyof Routes> = Hono<BlankEnv, Acting<Paths>> | Hono<BlankEnv, DryRuns<Paths>>;

type OperatorPath = Extract<keyof Routes, `/operator/${string}`>;

interface ClientOptions extends TransportOptions {
  apiKey: string;
  organizationId: string;
}

interface OperatorOptions extends TransportOptions {
  operatorKey: string;
}

/**
 * A client of the API at this address, with one method for each call of an organization:
 *
 * ```ts
 * const patchbay = patchbayClient('https://patchbay.example.com', { apiKey, organizationId });
 * const { data } = await unwrap(patchbay.api.integrations[':integration_id'].$delete({ param: { integration_id } }));
 * ```
 *
 * @throws TypeError if one of the arguments cannot be used
 */
export function patchbayClient(url: string, { apiKey, organizationId, ...options }: ClientOptions) {
  assertAddress(url);
  assertVisible({ apiKey, organizationId });
  const credentials = { 'X-API-Key': apiKey, 'X-Organization-Id': organizationId };
  return encodingParameters(
    hc<AppOf<Exclude<keyof Routes, OperatorPath>>>(url, { fetch: transport(credentials, options) }),
  );
}

/**
 * A client of the operator API at this address, for the calls under `/operator`:
 *
 * ```ts
 * const { operator } = patchbayOperator('https://patchbay.example.com', { operatorKey });
 * const { data } = await unwrap(operator.organizations.$post({ json: { name: 'Acme' } }));
 * ```
 *
 * @throws TypeError if one of the arguments cannot be used
 */
export function patchbayOperator(url: string, { operatorKey, ...options }: OperatorOptions) {
  assertAddress(url);
  assertVisible({ operatorKey });
  const credentials = { Authorization: `Bearer ${operatorKey}` };
  return encodingParameters(hc<AppOf<OperatorPath>>(url, { fetch: transport(credentials, options) }));
}

/** @throws TypeError */
function assertAddress(url: string): void {
  const { protocol, username, password, search, hash } = new URL(url);
  if (!/^https?:$/.test(protocol) || [username, password, search, hash].join('') !== '') {
    throw new TypeError('The address must be an http or https URL without a user, a query or a fragment');
  }
}
