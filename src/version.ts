/** The version in package.json, which would bring all of that file into the bundle. `test/health.test.ts` holds the two equal. */
export const VERSION = '0.1.0';
