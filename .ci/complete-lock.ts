/**
 * Adds to the lock files the builds for other platforms that npm left out of them, because the registry that they
 * were made against does not carry them. `npm ci` fails on a lock file that lacks them. The builds of Node itself, which
 * package.json names, must all be there with their integrity.
 *
 * `npm run lock` after a change of dependencies; with `--check` it only tells whether something is missing.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as z from 'zod';

const object = z.record(z.string(), z.unknown());
const dependencies = z.record(z.string(), z.string()).default({});

const operatingSystems = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'openharmony', 'win32', 'windows'];
const processors = ['arm64', 'arm', 'ia32', 'loong64', 'ppc64', 'riscv64', 's390x', 'x64', '64'];

/** What the name of a platform's build says: `@oxlint/binding-linux-arm64-musl`, `@cloudflare/workerd-windows-64`. */
function platform(name: string) {
  const words = name.split(/[/-]/);
  const os = operatingSystems.find((word) => words.includes(word));
  const cpu = processors.find((word) => words.includes(word));
  if (os === undefined || cpu === undefined) throw new Error(`${name} names no platform`);
  const libc = words.includes('musl') ? ['musl'] : words.includes('gnu') ? ['glibc'] : undefined;
  return {
    os: [os === 'windows' ? 'win32' : os],
    cpu: [cpu === '64' ? 'x64' : cpu],
    ...(libc && { libc }),
  };
}

function complete(name: string): void {
  const lockPath = resolve(import.meta.dirname, '..', name);
  const lock = object.parse(JSON.parse(readFileSync(lockPath, 'utf8')));
  const packages = z.record(z.string(), object).parse(lock['packages']);
  const paths = Object.keys(packages);
  const missing = Object.values(packages)
    .flatMap(({ optionalDependencies }) => Object.entries(dependencies.parse(optionalDependencies)))
    .filter(([dependency]) => !paths.some((path) => path.endsWith(`node_modules/${dependency}`)));

  const unverified = Object.keys(dependencies.parse(packages['']?.['optionalDependencies'])).filter(
    (dependency) => packages[`node_modules/${dependency}`]?.['integrity'] === undefined,
  );
  if (unverified.length > 0) {
    console.error(`${name} has no integrity of ${unverified.join(', ')}: choose versions that the registry has.`);
    process.exit(1);
  }

  if (process.argv.includes('--check')) {
    for (const [dependency, version] of missing) console.error(`${name} lacks ${dependency}@${version}: npm run lock`);
    if (missing.length > 0) process.exitCode = 1;
    return;
  }
  const added = missing.map(
    ([dependency, version]) =>
      [`node_modules/${dependency}`, { version, ...platform(dependency), dev: true, optional: true }] as const,
  );
  const sorted = [...Object.entries(packages), ...added].toSorted(([a], [b]) => a.localeCompare(b, 'en'));
  const completed = { ...lock, packages: Object.fromEntries(sorted) };
  writeFileSync(lockPath, `${JSON.stringify(completed, null, 2)}\n`);
  console.log(`Added ${missing.length} builds for other platforms to ${name}.`);
}

for (const name of ['package-lock.json', 'test/consumers/package-lock.json']) complete(name);
