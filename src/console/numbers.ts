/** Phone numbers and their integrations, as several views read and name them. */
import { entries, PatchbayError, unwrap } from 'patchbay-client';
import type * as z from 'zod/mini';
import { agentIdPattern } from '../worker/core/ids.ts';
import { useLoad, withTag } from './load.ts';
import type { Loaded, PageQuery, ReadOptions } from './load.ts';
import type { Api, Session } from './session.ts';

const MAX_PAGE_SIZE = 100;

export const readNumber = (api: Api, phone_number_id: string, options?: ReadOptions) =>
  withTag(api['phone-numbers'][':phone_number_id'].$get({ param: { phone_number_id } }, options));

export type PhoneNumber = Awaited<ReturnType<typeof readNumber>>['body']['data'];

type List = Api['phone-numbers']['$get'];
export type NumberFilters = Omit<NonNullable<NonNullable<Parameters<List>[0]>['query']>, keyof PageQuery | 'order'>;

export const listNumbers = (api: Api, query: NumberFilters & PageQuery, options: ReadOptions) =>
  unwrap(api['phone-numbers'].$get({ query }, options));

async function listIntegrations(api: Api, provider: PhoneNumber['provider'] | undefined, options: ReadOptions) {
  if (provider === 'sip') return [];
  const query = { page_size: MAX_PAGE_SIZE, ...(provider === undefined ? {} : { provider }) };
  const all = [];
  for await (const integration of entries(api.integrations.$get, query, options)) all.push(integration);
  return all;
}

export type Integration = Awaited<ReturnType<typeof listIntegrations>>[number];

/** All integrations, or those of a provider, to choose one of them and to name them. */
export const useIntegrations = ({ api }: Session, provider?: PhoneNumber['provider']) =>
  useLoad((options) => listIntegrations(api, provider, options), [provider]);

/** What the parts of the view of one number get. */
export interface NumberProps {
  session: Session;
  number: PhoneNumber;
  /** Of the number as it is shown. */
  etag: string;
  reload: () => void;
  /** Those of its provider. */
  integrations: Loaded<Integration[]>;
}

/** `1 number`, `1,200 numbers`. */
export const countOf = (count: number) => `${count.toLocaleString()} number${count === 1 ? '' : 's'}`;

/** `Twilio Production`; the id of one that is not known. */
export const nameIn = (integrations: readonly Integration[] = [], id: string) =>
  integrations.find(({ integration_id }) => integration_id === id)?.name ?? id;

export const holderOf = ({ assigned_agent_id }: { assigned_agent_id: string | null }) => assigned_agent_id ?? 'free';

/** What the error's code is, if the API refused the call. */
export const codeOf = (error: unknown) => (error instanceof PatchbayError ? error.code : undefined);

/** What a schema of the API finds wrong with a text. */
export const faultBy = (schema: z.ZodMiniType) => (text: string) => schema.safeParse(text).error?.issues[0]?.message;

export const wrongAgent = (text: string) =>
  agentIdPattern.test(text) ? undefined : 'must be agent_ followed by 1 to 64 of A–Z, a–z, 0–9, _ and -';

/** The one of these words that a text of an address or a form is. */
export const oneOf = <Word extends string>(words: readonly Word[], text: string | null): Word | undefined =>
  words.find((word) => word === text);
