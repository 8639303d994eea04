/**
 * Imported before each script of package.json that is TypeScript: a Node that is too old to run it says so, in place of
 * a syntax error. Hence this is JavaScript.
 */
const NEEDED = 24;

if (Number.parseInt(process.versions.node, 10) < NEEDED) {
  console.error(
    `This needs Node ${NEEDED} or newer, and runs on ${process.versions.node}. npm ci brings a Node along, but only for ` +
      'Linux with glibc and macOS (x64, arm64) and Windows (x64). Elsewhere, install one from https://nodejs.org',
  );
  process.exit(1);
}
