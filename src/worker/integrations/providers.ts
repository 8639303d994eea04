/**
 * The telephony providers and their credentials. A new provider needs one row here, and its name in core/vocabulary.ts.
 */
import * as z from 'zod';
import { onceTheRestIsRight, optional } from '../core/fields.ts';
import { secretText } from '../core/text.ts';
import type { TextRule } from '../core/text.ts';
import type { Category, Provider } from '../core/vocabulary.ts';

/** Ids that providers give in a fixed form. None of them is secret, and none of them is a secret's form. */
const idForms = {
  'Twilio Account SID': /^AC[0-9a-fA-F]{32}$/,
  'Twilio API key SID': /^SK[0-9a-fA-F]{32}$/,
  'Plivo Auth ID': /^(?:MA|SA)[A-Z0-9]{18}$/,
};

type IdName = keyof typeof idForms;

const idNameOf = (value: string) => Object.entries(idForms).find(([, form]) => form.test(value))?.[0];

/** An id of this form. */
const id = (name: IdName, description: string) =>
  z.string().regex(idForms[name], {
    error: ({ input }) => {
      const other = typeof input === 'string' ? idNameOf(input) : undefined;
      return `must be ${description}${other === undefined ? '' : `, and this is a ${other}`}`;
    },
  });

const isNoId: TextRule = (value) => {
  const name = idNameOf(value);
  return name === undefined ? undefined : `must be the secret, and this is a ${name}`;
};

const secret = () => secretText(256, isNoId);

export const providers = {
  twilio: {
    category: 'telephony',
    credentials: z.lazy(() =>
      z
        .strictObject({
          provider: z.literal('twilio'),
          account_sid: id('Twilio Account SID', 'AC followed by 32 hex digits'),
          auth_token: optional(secret()),
          api_key_sid: optional(id('Twilio API key SID', 'SK followed by 32 hex digits')),
          api_key_secret: optional(secret()),
        })
        .refine(
          ({ auth_token, api_key_sid, api_key_secret }) =>
            auth_token === undefined
              ? api_key_sid !== undefined && api_key_secret !== undefined
              : api_key_sid === undefined && api_key_secret === undefined,
          { error: 'must have either auth_token, or api_key_sid and api_key_secret', ...onceTheRestIsRight },
        )
        .meta({
          alternatives: [
            { id: 'TwilioAuthTokenCredentials', title: 'Twilio, by Auth Token', required: ['auth_token'] },
            { id: 'TwilioApiKeyCredentials', title: 'Twilio, by API key', required: ['api_key_sid', 'api_key_secret'] },
          ],
        }),
    ),
  },
  telnyx: {
    category: 'telephony',
    credentials: z.lazy(() => z.strictObject({ provider: z.literal('telnyx'), api_key: secret() })),
  },
  vonage: {
    category: 'telephony',
    credentials: z.lazy(() =>
      z.strictObject({ provider: z.literal('vonage'), api_key: secret(), api_secret: secret() }),
    ),
  },
  plivo: {
    category: 'telephony',
    credentials: z.lazy(() =>
      z.strictObject({
        provider: z.literal('plivo'),
        auth_id: id('Plivo Auth ID', 'MA or SA followed by 18 of A–Z and 0–9'),
        auth_token: secret(),
      }),
    ),
  },
} as const satisfies Record<Provider, { category: Category; credentials: z.ZodType }>;

type CredentialsSchema = (typeof providers)[Provider]['credentials'];
const schemas = Object.values(providers).map(({ credentials }) => credentials);

/** The credentials of any provider, as a union on `provider`. */
export const providerCredentials = z.discriminatedUnion(
  'provider',
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the table has a row
  schemas as [CredentialsSchema, ...CredentialsSchema[]],
);
