/** Integrations, as several views read and judge them. */
import { PatchbayError } from 'patchbay-client';
import * as z from 'zod/mini';
import { visibleName } from '../worker/core/text.ts';
import { withTag } from './load.ts';
import type { ReadOptions } from './load.ts';
import type { Api } from './session.ts';

export const readIntegration = (api: Api, integration_id: string, options?: ReadOptions) =>
  withTag(api.integrations[':integration_id'].$get({ param: { integration_id } }, options));

export type TaggedIntegration = Awaited<ReturnType<typeof readIntegration>>;
export type Integration = TaggedIntegration['body']['data'];

/** Whether the API refused a call with this code. */
export const isRefusal = (error: unknown, code: PatchbayError['code']) =>
  error instanceof PatchbayError && error.code === code;

/** What a schema of the API finds wrong with a text, in the API's own words. */
export const faultBy = (schema: z.core.$ZodType) => (text: string) =>
  z.safeParse(schema, text).error?.issues[0]?.message;

const MAX_NAME_LENGTH = 100;
export const wrongName = faultBy(visibleName(MAX_NAME_LENGTH));

/** The one of these words that a text of an address or a form is. */
export const oneOf = <Word extends string>(words: readonly Word[], text: string | null): Word | undefined =>
  words.find((word) => word === text);
