import * as z from 'zod';

/** Text without control characters and lone surrogates; its length counts characters. */
export function printableText(minimum: number, maximum: number) {
  return z.string().regex(new RegExp(`^[^\\p{Cc}\\p{Cs}]{${minimum},${maximum}}$`, 'u'), {
    error: `must have ${minimum} to ${maximum} characters, and no control characters`,
  });
}
