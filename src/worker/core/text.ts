import * as z from 'zod';

/** Text without control characters or lone surrogates. Its length counts characters, not UTF-16 units. */
export function printableText(minimum: number, maximum: number) {
  return z.string().regex(new RegExp(`^[^\\p{Cc}\\p{Cs}]{${minimum},${maximum}}$`, 'u'), {
    error: `must be ${minimum} to ${maximum} characters long, without control characters`,
  });
}
