/** Integrations, as several views read and name them. */
import { entries } from 'patchbay-client';
import type { ReadableProvider } from '../worker/core/vocabulary.ts';
import { useLoad, withTag } from './load.ts';
import type { ReadOptions } from './load.ts';
import type { Api, Session } from './session.ts';

const MAX_PAGE_SIZE = 100;

export const readIntegration = (api: Api, integration_id: string, options?: ReadOptions) =>
  withTag(api.integrations[':integration_id'].$get({ param: { integration_id } }, options));

export type TaggedIntegration = Awaited<ReturnType<typeof readIntegration>>;
export type Integration = TaggedIntegration['body']['data'];

async function listIntegrations(api: Api, provider: ReadableProvider | undefined, options: ReadOptions) {
  if (provider === 'sip') return [];
  const query = { page_size: MAX_PAGE_SIZE, ...(provider === undefined ? {} : { provider }) };
  const all = [];
  for await (const integration of entries(api.integrations.$get, query, options)) all.push(integration);
  return all;
}

export type ListedIntegration = Awaited<ReturnType<typeof listIntegrations>>[number];

/** All integrations, or those of a provider, to choose one of them and to name them. */
export const useIntegrations = ({ api }: Session, provider?: ReadableProvider) =>
  useLoad((options) => listIntegrations(api, provider, options), [provider]);

/** `Twilio Production`; the id of one that is not known. */
export const nameIn = (integrations: readonly ListedIntegration[] = [], id: string) =>
  integrations.find(({ integration_id }) => integration_id === id)?.name ?? id;
