/** The cursors of lists: JSON in base64url. A client may send anything in place of one. */
import { decodeBase64Url } from 'hono/utils/encode';
import * as z from 'zod/mini';
import { invalid } from './errors.ts';
import { parseJson } from './json.ts';

export function writeCursor(content: object): string {
  const bytes = new TextEncoder().encode(JSON.stringify(content));
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '');
}

/**
 * @param isOfList whether the cursor is of the list that is asked for
 * @throws DomainError `validation_failed`
 */
export function readCursor<Content>(
  cursor: string,
  schema: z.core.$ZodType<Content>,
  isOfList: (content: Content) => boolean,
): Content {
  const { success, data } = z.safeParse(schema, parseJson(textOf(cursor)));
  if (success && isOfList(data)) return data;
  throw invalid('cursor', 'must be a next_cursor of this list, sent with the same filters and order');
}

function textOf(cursor: string): string {
  try {
    return new TextDecoder().decode(decodeBase64Url(cursor));
  } catch {
    return '';
  }
}
