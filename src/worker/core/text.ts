import * as z from 'zod';

/** Text without control characters or lone surrogates. Its length counts characters, not UTF-16 units. */
export function printableText(minimum: number, maximum: number) {
  const plain = new RegExp(`^[^\\p{Cc}\\p{Cs}]{${minimum},${maximum}}$`, 'u');
  return z
    .string()
    .refine((text) => plain.test(text), `must be ${minimum} to ${maximum} characters long, without control characters`)
    .meta({ minLength: minimum, maxLength: maximum });
}
