/** `docs/performance.md`: what a whole run measured, and the explanations that do not change from run to run. */
import { markdownTable } from '../markdown.ts';
import { BEFORE } from './before.ts';
import { shown } from './report.ts';
import type { Findings, Table, Verdict } from './report.ts';
import { ONE_REGION_MS } from './world.ts';

export interface Report {
  /** ISO 8601. */
  date: string;
  machine: { cpu: string; cores: number; system: string };
  /** Of what the figures depend on, by name. */
  versions: Record<string, string>;
  suites: Record<string, Findings>;
}

/** What each suite measures, and how to read its tables. */
const sections: Record<string, { title: string; text: string }> = {
  'own-cpu': {
    title: 'Own CPU',
    text: `The Worker's own CPU time. The bindings answer from memory, so nothing else is left of a call. \`hello\` is a Hono app with one fixed answer. \`by hand\` is the same call in straight code and raw SQL, written for three calls alone. It keeps what every call promises: the deadlines and the retries, the log line, the rate limits, the checks, the headers, and the purge after a delete. The suite checks that both answer with the same bytes. The ratio to it is what Patchbay's layers cost: Hono's router and middleware, Zod, statements bound by name.

A hello hashes no key, asks no binding and has almost no headers, so ratios to it say what a call does, and nothing is demanded of them. A read of credentials is what another Worker has done by RPC, without the RPC: one statement, and two decryptions of a ciphertext that the isolate keeps.`,
  },
  edge: {
    title: 'Modelled edge',
    text: 'D1 and KV are as far away as in production: each call takes a fixed time. A rate limit takes none. The Worker `trip` makes one D1 call and nothing else, so no Worker that asks D1 can be faster. `naive` is the serial version, as such a call is usually written: one call after the other, built by Drizzle for each request, all of it before the answer. Timers of the machine are late by milliseconds for all of them; that is why the comparison is with `trip` and not with the fixed time.',
  },
  world: {
    title: 'The world',
    text: `Clients in ten cities, each served by the location of Cloudflare in its city. D1 has replicas in five places, and its primary in one of two. Every call of D1 or KV takes as long as its way there. \`test/bench/world.ts\` has the times, and says which are published and which are stated. A way's time varies: its 99th percentile is 1.39 × its median. The p99 of so few requests is the slowest one.

\`cold\`: neither the isolate nor KV knows the API key. \`warm\`: the isolate has just served it. \`before\`: commit \`${BEFORE.slice(0, 7)}\`, run on the same bindings. \`one D1 trip alone\`: a Worker that makes one D1 call and nothing else, to the nearest replica for a read and to the primary for a mutation. These all run, so their figures have in them what this machine adds: late timers, and requests that wait for each other. It weighs most where the way is short. \`one region\` is a service that a user would host at the primary's place instead. It is not run but reckoned: one trip, and ${ONE_REGION_MS} ms for everything there.

What the model leaves out: replicas answer from the primary's current state, so they do not lag; half of the calls or more are mutations, so the last write is never long ago; D1 is never busy; and the isolate has started.`,
  },
  overload: {
    title: 'Overload',
    text: `One D1 that does one batch at a time, and clients that come by the clock, however slowly others are answered (Poisson). Each reads an integration. One that is answered 503 waits as long as \`Retry-After\` says and tries once more; after 10 seconds it gives up. Goodput is how many get what they want in a second. The first 10 seconds are not counted: until then the queue becomes as long as it will be.

\`before\` is the code without a budget for retries and without a bound on what an isolate has at D1. Its queue grows longer than the 5 seconds for which a call waits, and D1 works for calls that have given up. \`after\` refuses at once what would have to wait for more than about two seconds (\`src/worker/core/admission.ts\`). How long D1's own queue may be is not documented; here it refuses what would wait for 10 seconds.`,
  },
  growth: {
    title: 'Growth',
    text: 'What calls cost D1 as an organization grows: rows read and written before the answer.',
  },
  start: {
    title: 'Start',
    text: 'The bundle as it is deployed, and the first answer of a fresh isolate, measured from the start of workerd. Patchbay answers with a 401: the whole app has started by then.',
  },
  memory: {
    title: 'Memory',
    text: "workerd's memory while 2,000 API keys call in turn. An isolate's cache holds 1,000. Garbage is collected before each reading in the last two columns: how much garbage lies about is V8's decision.",
  },
};

export function performancePage({ date, machine, versions, suites }: Report): string {
  const all = Object.entries(suites);
  return `# Performance

\`npm run bench\` writes this page. A run takes about fifteen minutes. A run of single suites (\`npm run bench -- --suite edge,growth\`) only prints, and leaves this page as it is. Every answer is checked, and what the calls did is counted afterwards. Compare figures within one run, not with those of another machine: most are ratios of medians of interleaved rounds.

- Measured on ${date.slice(0, 10)}
- Machine: ${machine.cpu}, ${machine.cores} cores, ${machine.system}
- Versions: ${Object.entries(versions)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ')}

A call costs its round trips, one after the other. In a warm isolate each call makes one, to D1, except those that store credentials: they record an intent in D1, put the ciphertext into KV, and then decide in D1.

## Measured and wanted

${markdownTable(all.flatMap(([, { verdicts }]) => verdicts.map(verdictRow)))}

A missed target does not fail the run, because noise of the machine must not. A wrong answer does.

${all.map(([name, findings]) => sectionOf(name, findings)).join('\n\n')}
`;
}

const verdictRow = ({ what, measured, bound, target, met }: Verdict) => ({
  what,
  measured: shown(measured),
  wanted: `${bound} ${target}`,
  '': met ? 'met' : 'missed',
});

function sectionOf(name: string, { tables }: Findings): string {
  const { title, text } = sections[name] ?? { title: name, text: '' };
  return [`## ${title}`, text, ...tables.map(formatTable)].join('\n\n');
}

function formatTable({ title, rows }: Table): string {
  const cells = rows.map((row) => Object.fromEntries(Object.entries(row).map(([name, cell]) => [name, shown(cell)])));
  return `${title}:\n\n${markdownTable(cells)}`;
}
