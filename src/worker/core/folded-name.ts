/** Names as lists by names compare them (docs/contract.md, Lists). SQLite can fold ASCII only, so it is a column. */

/**
 * Each character by itself, so that the folded beginning of a name is the beginning of the folded name. Decomposed, an é
 * begins with an e. By way of upper case, ß is ss, and the two small sigmas are one.
 */
export const foldName = (name: string) =>
  Array.from(name.normalize('NFKD'), (character) => character.toLowerCase().toUpperCase().toLowerCase()).join('');

/**
 * The folded names that begin with a prefix: from the first of these, to before the second.
 *
 * @param longest how many characters a name has at most
 */
export function foldedRange(name_prefix: string, longest: number): [from: string, to: string] {
  const prefix = foldName(name_prefix);
  // After all names that begin with it: none has so many more characters, and none is greater than this one.
  return [prefix, prefix + '\u{10FFFF}'.repeat(longest + 1)];
}
