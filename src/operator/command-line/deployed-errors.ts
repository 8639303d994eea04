/** What wrangler's errors mean to an operator whose command cannot open the deployed database. */

/** The first whose words are found is told. Numbers are codes of Cloudflare's API. */
const meanings: readonly (readonly [words: RegExp, meaning: string])[] = [
  [
    /CLOUDFLARE_API_TOKEN environment variable|not log(?:ged )?in/i,
    'You are not signed in to Cloudflare. Run npx wrangler login, or set CLOUDFLARE_API_TOKEN.',
  ],
  [
    /\[code: (?:6003|6111|9103|9106|9109|10000|10001|10405)\]|could not be authenticated/,
    'Cloudflare refuses the sign-in. Run npx wrangler login again, or set CLOUDFLARE_API_TOKEN to a token that may edit Workers, D1 and KV.',
  ],
  [
    /account IDs?\b|More than one account/,
    'It is not clear which Cloudflare account to use. Set CLOUDFLARE_ACCOUNT_ID to the one that has the database.',
  ],
  [
    /must have an? "?(?:database_)?id"? field/,
    'wrangler.toml has no id of a deployed database. Deploy first, as docs/operations.md says.',
  ],
  [
    /\[code: 10181\]|of type d1 must have/,
    'The account has no database with the id that wrangler.toml has. Correct database_id there, or set CLOUDFLARE_ACCOUNT_ID to another account.',
  ],
  [
    /\[code: 10063\]/,
    'The account has no workers.dev subdomain, and commands reach the database through one. Open Workers in the dashboard once.',
  ],
  [
    /\[code: 1004[12]\]/,
    'The account has no KV namespace with the id that wrangler.toml has. Correct the id there, or set CLOUDFLARE_ACCOUNT_ID to another account.',
  ],
  [/fetch failed|could not be reached|timeout/, 'Cloudflare cannot be reached. Is this machine online?'],
];

/** A sentence that says what to do. An error that is not known is told in wrangler's words. */
export function whyNotOpened(error: unknown): string {
  const texts = [...textsOf(error)];
  const words = inWords(texts);
  const known = meanings.find(([pattern]) => pattern.test(words));
  // The first text only introduces the others.
  return known?.[1] ?? `The deployed database cannot be opened: ${inWords(texts.slice(1)) || words}`;
}

const inWords = (texts: string[]) => texts.join(' ').replaceAll(/\s+/g, ' ');

/** The messages of the error and its causes. Wrangler keeps the API's own words in `notes`. */
function* textsOf(error: unknown): Generator<string, void> {
  if (typeof error !== 'object' || error === null) return;
  if ('message' in error && typeof error.message === 'string') yield error.message;
  else if ('text' in error && typeof error.text === 'string') yield error.text;
  if ('notes' in error && Array.isArray(error.notes)) for (const note of error.notes) yield* textsOf(note);
  if ('cause' in error) yield* textsOf(error.cause);
}
