/** What the API demands of texts. */
import * as z from 'zod/mini';
import { agentIdPattern } from '../worker/core/ids.ts';
import { visibleName } from '../worker/core/text.ts';

/** What a schema of the API finds wrong with a text, in the API's own words. */
export const faultBy = (schema: z.core.$ZodType) => (text: string) =>
  z.safeParse(schema, text).error?.issues[0]?.message;

const MAX_NAME_LENGTH = 100;
export const wrongName = faultBy(visibleName(MAX_NAME_LENGTH));

export const wrongAgent = (text: string) =>
  agentIdPattern.test(text) ? undefined : 'must be agent_ followed by 1 to 64 of A–Z, a–z, 0–9, _ and -';

/** The one of these words that a text of an address or a form is. */
export const oneOf = <Word extends string>(words: readonly Word[], text: string | null): Word | undefined =>
  words.find((word) => word === text);
