/**
 * The telephony providers: the form of their credentials, and how they are asked whether they accept them. A new provider
 * needs one row here, one in numbers.ts, and its name in core/vocabulary.ts.
 */
import * as z from 'zod/mini';
import { invalid } from '../core/errors.ts';
import { onceTheRestIsRight, optional, withDefault } from '../core/fields.ts';
import { secretText } from '../core/text.ts';
import type { TextRule } from '../core/text.ts';
import type { Category, Provider } from '../core/vocabulary.ts';
import type { Credentials } from '../credentials/envelope.ts';
import { basic, bearer } from './authorization.ts';
import { isRsaKey, privateKey } from './private-key.ts';

/** Ids that providers give in a fixed form. None of them is secret, and none of them is a secret's form. */
const idForms = {
  'an Account SID': { begins: 'AC', rest: '32 hex digits', form: /^AC[0-9a-fA-F]{32}$/ },
  'an API key SID': { begins: 'SK', rest: '32 hex digits', form: /^SK[0-9a-fA-F]{32}$/ },
  'a Plivo Auth ID': { begins: 'MA or SA', rest: '18 of A–Z and 0–9', form: /^(?:MA|SA)[A-Z0-9]{18}$/ },
};

const idNameOf = (value: string) => Object.entries(idForms).find(([, { form }]) => form.test(value))?.[0];

/** An id of this form. */
function id(name: keyof typeof idForms) {
  const { begins, rest, form } = idForms[name];
  return z.string().check(
    z.regex(form, {
      error: ({ input }) => {
        const other = idNameOf(String(input));
        const explanation = other === undefined ? '' : `: this is ${other}; ${name} begins with ${begins}`;
        return `must be ${begins} followed by ${rest}${explanation}`;
      },
    }),
  );
}

const isNoId: TextRule = (value) => {
  const name = idNameOf(value);
  return name === undefined ? undefined : `must be the secret; this is ${name}`;
};

const secret = () => secretText(256, isNoId);

/** The hosts of Twilio's regions. An account's tokens and keys are of one region, and another answers 401. */
const twilioOrigins = {
  us1: 'https://api.twilio.com',
  ie1: 'https://api.dublin.ie1.twilio.com',
  au1: 'https://api.sydney.au1.twilio.com',
} as const;

const twilioRegion = z.enum(['us1', 'ie1', 'au1']);

/** A call to a provider. It is always a GET. */
export interface ProviderRequest {
  /** Scheme and host. */
  origin: string;
  path: string;
  /** The header. */
  authorization: string;
}

interface ProviderRow {
  category: Category;
  credentials: z.ZodMiniType<{ provider: Provider }>;
  /** The account's identifier; undefined if the credentials have none. */
  accountOf: (credentials: Credentials) => string | undefined;
  /** All of them must be accepted. */
  checksOf: (credentials: Credentials) => ProviderRequest[];
  /** The bodies of its answers. */
  answers: {
    accepted: z.ZodMiniType;
    /** Takes the provider's own code out of the body. */
    error: z.ZodMiniType<string | null>;
    /** Whether a 403 says that the credentials are known, and the call is not permitted. */
    hasLimited: boolean;
  };
}

export const providers = {
  twilio: {
    category: 'telephony',
    credentials: z.lazy(() =>
      z
        .strictObject({
          provider: z.literal('twilio'),
          account_sid: id('an Account SID'),
          auth_token: optional(secret()),
          api_key_sid: optional(id('an API key SID')),
          api_key_secret: optional(secret()),
          region: withDefault(twilioRegion, 'us1'),
        })
        .check(
          z.superRefine(({ auth_token, api_key_sid, api_key_secret }, context) => {
            const lacks = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message });
            if (api_key_sid !== undefined && api_key_secret === undefined) {
              lacks(['api_key_secret'], 'is required if api_key_sid is given');
            } else if (api_key_secret !== undefined && api_key_sid === undefined) {
              lacks(['api_key_sid'], 'is required if api_key_secret is given');
            } else if (auth_token === undefined && api_key_sid === undefined) {
              lacks([], 'must have auth_token, or api_key_sid and api_key_secret, or all three');
            }
          }, onceTheRestIsRight),
        ),
    ),
    accountOf: ({ account_sid }) => account_sid,
    // A key may not read the account itself, but it may list the account's numbers.
    checksOf: ({ account_sid = '', auth_token, api_key_sid, api_key_secret, region }) => {
      const users = [
        [api_key_sid, api_key_secret],
        [account_sid, auth_token],
      ] as const;
      return users.flatMap(([user, password]) =>
        user === undefined || password === undefined
          ? []
          : {
              origin: twilioOrigins[twilioRegion.parse(region ?? 'us1')],
              path: `/2010-04-01/Accounts/${encodeURIComponent(account_sid)}/IncomingPhoneNumbers.json?PageSize=1`,
              authorization: basic(user, password),
            },
      );
    },
    answers: {
      accepted: z.object({ incoming_phone_numbers: z.array(z.unknown()) }),
      error: z.pipe(
        z.object({ code: z.int() }),
        z.transform(({ code }) => String(code)),
      ),
      hasLimited: true,
    },
  },
  telnyx: {
    category: 'telephony',
    credentials: z.lazy(() =>
      z.strictObject({
        provider: z.literal('telnyx'),
        api_key: secret(),
        public_key: optional(
          z.string().check(z.regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/, 'must be base64 of 32 bytes')),
        ),
      }),
    ),
    accountOf: () => undefined,
    checksOf: ({ api_key = '' }) => [
      { origin: 'https://api.telnyx.com', path: '/v2/balance', authorization: bearer(api_key) },
    ],
    answers: {
      accepted: z.object({ data: z.object({ record_type: z.literal('balance') }) }),
      error: z.pipe(
        z.object({ errors: z.array(z.object({ code: z.string() })).check(z.minLength(1)) }),
        z.transform(({ errors: [first] }) => first?.code ?? null),
      ),
      hasLimited: true,
    },
  },
  vonage: {
    category: 'telephony',
    credentials: z.lazy(() =>
      z
        .strictObject({
          provider: z.literal('vonage'),
          api_key: secret(),
          api_secret: secret(),
          application_id: optional(
            z
              .string()
              .check(
                z.regex(
                  /^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$/,
                  'must be a UUID, as in the application’s settings',
                ),
              ),
          ),
          private_key: optional(privateKey()),
          signature_secret: optional(secret()),
        })
        .check(
          z.superRefine(({ application_id, private_key }, context) => {
            if ((application_id === undefined) === (private_key === undefined)) return;
            const [lacking, given] =
              private_key === undefined ? ['private_key', 'application_id'] : ['application_id', 'private_key'];
            context.addIssue({ code: 'custom', path: [lacking], message: `is required if ${given} is given` });
          }, onceTheRestIsRight),
        ),
    ),
    accountOf: ({ api_key }) => api_key,
    checksOf: ({ api_key = '', api_secret = '' }) => [
      { origin: 'https://rest.nexmo.com', path: '/account/get-balance', authorization: basic(api_key, api_secret) },
    ],
    answers: {
      accepted: z.object({ value: z.number() }),
      error: z.pipe(
        z.object({ 'error-code': z.string() }),
        z.transform((body) => body['error-code']),
      ),
      hasLimited: false,
    },
  },
  plivo: {
    category: 'telephony',
    credentials: z.lazy(() =>
      z.strictObject({
        provider: z.literal('plivo'),
        auth_id: id('a Plivo Auth ID'),
        auth_token: secret(),
      }),
    ),
    accountOf: ({ auth_id }) => auth_id,
    checksOf: ({ auth_id = '', auth_token = '' }) => [
      {
        origin: 'https://api.plivo.com',
        path: `/v1/Account/${encodeURIComponent(auth_id)}/`,
        authorization: basic(auth_id, auth_token),
      },
    ],
    answers: {
      accepted: z.object({ auth_id: z.string() }),
      // A refusal is JSON or plain text, without a code.
      error: z.pipe(
        z.unknown(),
        z.transform(() => null),
      ),
      hasLimited: false,
    },
  },
} as const satisfies Record<Provider, ProviderRow>;

type CredentialsSchema = (typeof providers)[Provider]['credentials'];
const schemas = Object.values(providers).map(({ credentials }) => credentials);

/** The credentials of any provider, as a union on `provider`. */
export const providerCredentials = z.discriminatedUnion(
  'provider',
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the table has a row
  schemas as [CredentialsSchema, ...CredentialsSchema[]],
);

/**
 * Checks what a schema cannot.
 *
 * @throws DomainError `validation_failed` for a private key that is not an RSA key
 */
export async function assertUsable({ private_key }: Credentials): Promise<void> {
  if (private_key !== undefined && !(await isRsaKey(private_key))) {
    throw invalid('credentials.private_key', 'must be an RSA key');
  }
}

export const rowOf = (provider: Provider): ProviderRow => providers[provider];
