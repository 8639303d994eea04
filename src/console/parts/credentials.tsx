/** The fields of a provider's credentials, made from the schemas by which the API judges them. */
import { useMemo } from 'hono/jsx/dom';
import * as z from 'zod/mini';
import type { Provider } from '../../worker/core/vocabulary.ts';
import { providers } from '../../worker/providers/providers.ts';
import { faultBy } from '../rules.ts';
import type { Api } from '../session.ts';
import { CheckField, SelectField, TextField, textOf } from './form.tsx';

/** By the names of fields. A field that is not here gets its label from its name. */
const texts: Record<string, { label: string; hint?: string }> = {
  account_sid: { label: 'Account SID', hint: 'Begins with AC.' },
  auth_token: { label: 'Auth Token', hint: 'The token of the account.' },
  auth_id: { label: 'Auth ID', hint: 'Begins with MA, or with SA for a subaccount.' },
  api_key_sid: {
    label: 'API key SID',
    hint: 'Begins with SK. Give either the Auth Token, or an API key SID and its secret, or all three.',
  },
  api_key_secret: { label: 'API key secret' },
  region: { label: 'Region', hint: 'The region that the credentials are of. Most accounts have only us1.' },
  api_key: { label: 'API key' },
  api_secret: { label: 'API secret' },
  public_key: { label: 'Public key', hint: 'For checking webhooks: base64, 44 characters.' },
  application_id: { label: 'Application ID', hint: 'It goes with the private key of the application.' },
  private_key: { label: 'Private key', hint: 'The whole PEM file, with its first and last line.' },
  signature_secret: { label: 'Signature secret', hint: 'For checking webhooks.' },
};

function textsOf(name: string) {
  const words = name.replaceAll('_', ' ');
  return texts[name] ?? { label: words.charAt(0).toUpperCase() + words.slice(1) };
}

/** Texts that may be longer are of several lines. */
const LONGEST_LINE = 256;

interface CredentialField {
  name: string;
  /** What it may be in the end: without null, absence and default. */
  schema: z.core.$ZodType;
  isRequired: boolean;
  /** What it is if it is absent. */
  standard: unknown;
}

function fieldsOf(provider: Provider): CredentialField[] {
  const { shape }: { shape: z.core.$ZodShape } = providers[provider].credentials.def.getter();
  return Object.entries(shape).flatMap(([name, schema]) => {
    if (name === 'provider') return [];
    const absent = z.safeParse(schema, undefined);
    return [{ name, schema: innermost(schema), isRequired: !absent.success, standard: absent.data }];
  });
}

function innermost(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodMiniPipe) return innermost(schema.def.in);
  if (schema instanceof z.ZodMiniOptional || schema instanceof z.ZodMiniNullable)
    return innermost(schema.def.innerType);
  return schema;
}

const inputName = (name: string) => `credentials.${name}`;

/** What is wrong with a text is told while it is entered. */
export function CredentialFields({ provider }: { provider: Provider }) {
  const fields = useMemo(() => fieldsOf(provider), [provider]);
  return (
    <>
      {fields.map((field) => (
        <Field key={`${provider} ${field.name}`} field={field} />
      ))}
    </>
  );
}

function Field({ field: { name, schema, isRequired, standard } }: { field: CredentialField }) {
  const props = { ...textsOf(name), name: inputName(name), isRequired };
  if (schema instanceof z.ZodMiniEnum) {
    const options = schema.options.map((option) => [String(option), String(option)] as const);
    return <SelectField {...props} options={options} value={String(standard)} />;
  }
  const { format, maxLength } = z.globalRegistry.get(schema) ?? {};
  const isLong = typeof maxLength === 'number' && maxLength > LONGEST_LINE;
  return (
    <TextField {...props} type={format === 'password' ? 'password' : 'text'} isLong={isLong} check={faultBy(schema)} />
  );
}

/** Whether the provider is asked before anything is stored. */
export const VerifyField = () => (
  <CheckField
    name="verify"
    label="Check with the provider before storing"
    hint="What the provider refuses is then not stored."
    checked
  />
);

export type Credentials = Parameters<Api['integrations']['$post']>[0]['json']['credentials'];

/** What was entered. Fields that were left empty are not sent. */
export function credentialsOf(provider: Provider, values: FormData): Credentials {
  const given = fieldsOf(provider).flatMap(({ name }) => {
    const text = textOf(values, inputName(name));
    return text === '' ? [] : [[name, text] as const];
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the API judges it by the schema that made the form
  return { provider, ...Object.fromEntries(given) } as Credentials;
}
