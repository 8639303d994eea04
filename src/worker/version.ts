/** The version in package.json, which would bring all of that file into the bundle. `test/http/health.test.ts` holds the two equal. */
export const VERSION = '0.2.0';
