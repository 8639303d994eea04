/**
 * The version of package.json. Importing it from there would put all of that file into the bundle.
 * `test/http/health.test.ts` checks that the two are equal.
 */
export const VERSION = '0.2.0';
