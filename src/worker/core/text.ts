/**
 * Rules for text that clients send (docs/contract.md, Text). What breaks a rule is refused and never repaired: a secret
 * that we changed would no longer be the secret that was sent.
 */
import * as z from 'zod/mini';

/** What is wrong with a text, as the end of a sentence that begins with the field's name; undefined if nothing is. */
export type TextRule = (text: string) => string | undefined;

/**
 * Text that all rules accept, without control characters, line separators or lone surrogates. Its length counts
 * characters, not UTF-16 units. Only the first rule that is broken is reported.
 */
export function text(minimum: number, maximum: number, ...rules: TextRule[]) {
  const plain = new RegExp(`^[^\\p{Cc}\\p{Cs}\\p{Zl}\\p{Zp}]{${minimum},${maximum}}$`, 'u');
  const isPlain: TextRule = (value) =>
    plain.test(value) ? undefined : `must be ${minimum} to ${maximum} characters long, without control characters`;
  return z
    .string()
    .check(
      z.superRefine((value, context) => {
        for (const rule of [isPlain, ...rules]) {
          const message = rule(value);
          if (message === undefined) continue;
          context.addIssue({ code: 'custom', message });
          return;
        }
      }),
    )
    .register(z.globalRegistry, { minLength: minimum, maxLength: maximum });
}

/** A name that people read. */
export const visibleName = (maximum: number) =>
  text(1, maximum, isVisible, isTrimmed, isInOneDirection, hidesNoPassword);

/** What the document says of a secret: it is never read, and forms hide it. */
export const secretFormat = { format: 'password', writeOnly: true };

/** A password, token or key. */
export const secretText = (maximum: number, ...rules: TextRule[]) =>
  text(1, maximum, isTrimmed, isUnquoted, isWithoutScheme, isUnmasked, ...rules).check(z.meta(secretFormat));

/** The name of a user, which goes with a secret. */
export const userName = (maximum: number, ...rules: TextRule[]) =>
  text(1, maximum, isVisible, isTrimmed, isInOneDirection, isUnquoted, ...rules);

/**
 * A class of characters. U+2800 is a Braille pattern without dots, U+1D159 a note without a head: Unicode calls them
 * symbols, but they cannot be seen.
 */
const invisible = String.raw`\p{White_Space}\p{Default_Ignorable_Code_Point}\p{Cf}\u2800\u{1D159}`;
const visible = new RegExp(String.raw`[^${invisible}\p{M}]`, 'u');
const invisibleAtAnEnd = new RegExp(`^[${invisible}]|[${invisible}]$`, 'u');

/**
 * Invisible characters that are the last part of a visible one: a variation selector after a pictograph or an
 * ideograph, a joiner after a virama (an older spelling of some final letters), and the tags of a flag.
 */
const invisiblePart =
  /(?:\p{Extended_Pictographic}[\uFE0E\uFE0F]|\p{Unified_Ideograph}[\uFE00-\uFE02\u{E0100}-\u{E01EF}]|[\u09CD\u0D4D\u0DCA]\u200D|\u{1F3F4}[\u{E0020}-\u{E007E}]+\u{E007F})$/u;

const isVisible: TextRule = (value) => (visible.test(value) ? undefined : 'must have at least one visible character');

const isTrimmed: TextRule = (value) =>
  invisibleAtAnEnd.test(value.replace(invisiblePart, 'x'))
    ? 'must not begin or end with white space or invisible characters'
    : undefined;

const isInOneDirection: TextRule = (value) =>
  /[\u202A-\u202E\u2066-\u2069]/.test(value)
    ? 'must not contain characters that change the direction of text (U+202A to U+202E, U+2066 to U+2069)'
    : undefined;

/** Names are shown to every role, and kept in audit events. */
const hidesNoPassword: TextRule = (value) =>
  /(?:sips?:|:\/\/)[^\s/@:]+:[^\s/@]+@/i.test(value) ? 'must not contain a password' : undefined;

const isUnquoted: TextRule = (value) =>
  /^[“”„‟‘’‚‛«»‹›]|[“”„‟‘’‚‛«»‹›]$/.test(value) ? 'must not begin or end with typographic quotation marks' : undefined;

const isWithoutScheme: TextRule = (value) =>
  /^(?:authorization\s*[:=]\s*)?bearer(?:[\s:=]|$)/i.test(value) ? 'must be the key alone, without Bearer' : undefined;

/** What a form shows in place of a secret, perhaps with the secret's last characters. */
const isUnmasked: TextRule = (value) =>
  /[•●∙⦁·]{2}|\*{4}|^[*•●∙⦁·]+$/.test(value) ? 'must be the secret itself, not the dots that hide it' : undefined;

/** Text of somebody else, made fit to be shown: what is left of it without characters that control or turn text. */
export function shownText(value: string, maximum: number): string | null {
  const shown = value.replaceAll(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/gu, '').trim();
  return shown === '' ? null : Array.from(shown).slice(0, maximum).join('');
}
