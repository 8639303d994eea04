/** The cron's checks of stored credentials with their providers. */
import { and, asc, eq, getTableColumns, gt, lte, not, sql } from 'drizzle-orm';
import { atOnce } from '../core/at-once.ts';
import { logError, logEvent } from '../core/log.ts';
import { unixNow } from '../core/time.ts';
import type { Tier } from '../core/vocabulary.ts';
import { readCredentials } from '../credentials/read.ts';
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations, organizations } from '../d1/schema.ts';
import { bySystem, eventParameters } from '../decision/call.ts';
import type { Bindings } from '../env.ts';
import { accountOf } from '../providers/account.ts';
import { isWithinBudget } from '../providers/budget.ts';
import { checkCredentials } from '../providers/check.ts';
import { rowOf } from '../providers/providers.ts';
import { isIntegration } from './integration.ts';
import { DOUBTED_AGAIN_SECONDS, outcomeWriter, periodOf, unaskedOutcome, UNKNOWN_AGAIN_SECONDS } from './outcome.ts';
import type { OutcomeParameters } from './outcome.ts';
import { logRefusal } from './refusals.ts';

/** The second expression in wrangler.toml. */
export const RECHECK_CRON = '*/2 * * * *';
const RUN_SECONDS = 120;
/** The questions about phone numbers come before it, for 30 seconds at most. A check that is under way then takes 10. */
const MILLISECONDS_PER_RUN = 75_000;
/** An invocation has six connections (core/connections.ts): these, and two to spare. */
const CHECKS_AT_ONCE = 4;
/** A check takes four statements, and D1 allows 1,000 in one invocation of a Worker. */
const CHECKS_PER_RUN = 200;
const CHECKS_PER_TURN = 20;
/** Longer than a run. */
const LEASE_SECONDS = 300;

interface ClaimParameters {
  /** Unix seconds. */
  now: number;
  /** What was checked until then is due. */
  due: number;
  limit: number;
}

/** Predicate: the integration has credentials, and nothing keeps its organization from having them checked. */
const isCheckable = (db: Builder, { now }: Placeholders<ClaimParameters>) =>
  and(
    eq(integrations.status, 'active'),
    existsIn(
      db,
      organizations,
      and(
        eq(organizations.organization_id, integrations.organization_id),
        eq(organizations.status, 'active'),
        lte(organizations.checks_stopped_until, now),
      ),
    ),
  );

const ofItsOrganization = <Column extends 'tier' | 'account_salt'>(db: Builder, column: Column) =>
  db
    .select({ value: organizations[column] })
    .from(organizations)
    .where(eq(organizations.organization_id, integrations.organization_id));

/**
 * Claims those that were checked longest ago, unless another run has claimed some. Those that cannot be checked now are put
 * off, so that they do not hold up the others.
 */
const claimDue = query((db, parameters: Placeholders<ClaimParameters>) => {
  const { now, due, limit } = parameters;
  const checkable = isCheckable(db, parameters);
  return db
    .update(integrations)
    .set({
      checking_until: sql`iif(${checkable}, ${now} + ${sql.raw(String(LEASE_SECONDS))}, NULL)`,
      recheck_from: sql`iif(${checkable}, ${integrations.recheck_from}, ${now})`,
    })
    .where(
      and(
        sql`(${integrations.organization_id}, ${integrations.integration_id}) IN ${db
          .select({ organization_id: integrations.organization_id, integration_id: integrations.integration_id })
          .from(integrations)
          .where(lte(integrations.recheck_from, due))
          .orderBy(asc(integrations.recheck_from))
          .limit(limit)}`,
        not(existsIn(db, integrations, gt(integrations.checking_until, now))),
      ),
    )
    .returning({
      ...getTableColumns(integrations),
      tier: sql<Tier>`${ofItsOrganization(db, 'tier')}`.as('tier'),
      account_salt: sql<string>`coalesce(${ofItsOrganization(db, 'account_salt')}, '')`.as('account_salt'),
    });
});

interface EndParameters {
  organization_id: string;
  integration_id: string;
  checking_until: number | null;
}

const isClaimed = (parameters: Placeholders<EndParameters>) =>
  and(isIntegration(parameters), eq(integrations.checking_until, parameters.checking_until));

/** After an outcome, whether it was written or not. Nothing else ends a claim: the check was still under way. */
const endClaim = query((db, parameters: Placeholders<EndParameters>) =>
  db
    .update(integrations)
    .set({ checking_until: sql`NULL` })
    .where(isClaimed(parameters)),
);

/** Without an outcome. */
const endClaimUnchecked = query((db, parameters: Placeholders<EndParameters & { recheck_from: number }>) =>
  db
    .update(integrations)
    .set({ checking_until: sql`NULL`, recheck_from: sql`${parameters.recheck_from}` })
    .where(isClaimed(parameters)),
);

const countAll = query((db) =>
  db
    .select({ count: sql<number>`coalesce(sum(${organizations.integration_count}), 0)`.as('count') })
    .from(organizations),
);

const { countRefusal, record, write } = outcomeWriter<OutcomeParameters>(() => eq(organizations.status, 'active'));

type Claimed = typeof integrations.$inferSelect & { tier: Tier; account_salt: string };

/**
 * A task of the cron, in an invocation of its own: checks credentials with their providers, those first that were checked
 * longest ago. Each is due `REVERIFY_HOURS` after its last check. A run checks twice as many as it must on average, so that
 * integrations which were created together are checked at many times of the day.
 *
 * A refusal of credentials that had been accepted may be a mistake of the provider. They are checked again after 10
 * minutes, and only a second refusal is believed.
 *
 * If anything was due, it logs `credentials_rechecked`: how many were `checked`, how many the provider `refused`, and how
 * many `failed`, because they could not be read or written.
 *
 * @throws DomainError `temporarily_unavailable`; Error if `REVERIFY_HOURS` cannot be used
 */
export async function recheckCredentials(env: Bindings): Promise<void> {
  const period = periodOf(env);
  if (period === 0) return;
  const end = Date.now() + MILLISECONDS_PER_RUN;
  const [[total]] = await batch(env.DB, [countAll.bind({})]);
  const share = Math.ceil((2 * (total?.count ?? 0) * RUN_SECONDS) / period);
  let left = Math.min(Math.max(share, CHECKS_PER_TURN), CHECKS_PER_RUN);
  const done = { checked: 0, refused: 0, failed: 0 };
  /** Organizations whose checks this run has ended. */
  const stopped = new Set<string>();

  while (left > 0 && Date.now() < end) {
    const now = unixNow();
    const due = now - period;
    const [claimed] = await batch(env.DB, [claimDue.bind({ now, due, limit: Math.min(left, CHECKS_PER_TURN) })]);
    if (claimed.length === 0) break;
    left -= claimed.length;
    await atOnce(
      CHECKS_AT_ONCE,
      claimed.filter(({ checking_until }) => checking_until !== null),
      async (row) => {
        const isInTime = Date.now() < end && !stopped.has(row.organization_id);
        const outcome = isInTime
          ? await recheck(env, row, period, stopped)
          : await giveBack(env, row, row.recheck_from);
        if (outcome !== undefined) done[outcome] += 1;
      },
    );
  }
  if (done.checked + done.refused + done.failed > 0) logEvent('credentials_rechecked', done);
}

/** @returns what {@link recheckCredentials} counts it as */
async function recheck(
  env: Bindings,
  row: Claimed,
  period: number,
  stopped: Set<string>,
): Promise<'checked' | 'refused' | 'failed' | undefined> {
  const { organization_id, integration_id, provider } = row;
  const event = eventOf(row);
  try {
    const { credentials } = await readCredentials({ ...event, env }, { ...row, subject_id: integration_id });
    if (!credentials) {
      await giveBack(env, row, unixNow() - period + UNKNOWN_AGAIN_SECONDS);
      return 'failed';
    }
    if (!(await isWithinBudget(env, row, rowOf(provider).checksOf(credentials).length))) {
      return await giveBack(env, row, unixNow() - period + DOUBTED_AGAIN_SECONDS);
    }
    const outcome = await checkCredentials(env, provider, credentials);
    const account = await accountOf(provider, credentials, row.account_salt);
    const parameters = { ...event, ...row, ...account, ...unaskedOutcome(row, outcome, period) };
    const [counted] = await batch(env.DB, [
      countRefusal.bind(parameters),
      record.bind(parameters),
      write.bind(parameters),
      endClaim.bind(row),
    ]);
    if (logRefusal(organization_id, provider, counted)) stopped.add(organization_id);
    return outcome.status === 'refused' ? 'refused' : 'checked';
  } catch (error) {
    logError('credentials_check_failed', error);
    await giveBack(env, row, unixNow() - period + UNKNOWN_AGAIN_SECONDS);
    return 'failed';
  }
}

const eventOf = ({ organization_id }: Claimed) => eventParameters(bySystem(organization_id));

/** Without an outcome. If it fails, the claim ends by itself. */
async function giveBack(env: Bindings, row: Claimed, recheck_from: number): Promise<undefined> {
  const { organization_id, integration_id, checking_until } = row;
  await batch(env.DB, [
    endClaimUnchecked.bind({ organization_id, integration_id, checking_until, recheck_from }),
  ]).catch((error: unknown) => logError('credentials_check_failed', error));
}
