/**
 * The telephony providers and their credentials. A new provider needs one row here, and its name in core/vocabulary.ts.
 */
import * as z from 'zod';
import { printableText } from '../core/text.ts';
import { providerNames } from '../core/vocabulary.ts';
import type { Category, Provider } from '../core/vocabulary.ts';

const secret = () => printableText(1, 256);

export const providers = {
  twilio: {
    category: 'telephony',
    credentials: z.lazy(() =>
      z
        .strictObject({
          provider: z.literal('twilio'),
          account_sid: z.string().regex(/^AC[0-9a-fA-F]{32}$/, 'must be AC followed by 32 hex digits'),
          auth_token: secret().exactOptional(),
          api_key_sid: secret().exactOptional(),
          api_key_secret: secret().exactOptional(),
        })
        .refine(
          ({ auth_token, api_key_sid, api_key_secret }) =>
            auth_token === undefined
              ? api_key_sid !== undefined && api_key_secret !== undefined
              : api_key_sid === undefined && api_key_secret === undefined,
          'must have either auth_token, or api_key_sid and api_key_secret',
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
      z.strictObject({ provider: z.literal('plivo'), auth_id: secret(), auth_token: secret() }),
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
  { error: ({ code }) => (code === 'invalid_union' ? `must be one of ${providerNames.join(', ')}` : undefined) },
);
