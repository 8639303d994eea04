/** The cron's questions about phone numbers: whether the accounts of their integrations hold them. */
import { and, asc, eq, gt, inArray, lte, or, sql } from 'drizzle-orm';
import type { Placeholder } from 'drizzle-orm';
import { logError, logEvent } from '../core/log.ts';
import { unixNow } from '../core/time.ts';
import type { Ownership } from '../core/vocabulary.ts';
import { readCredentials } from '../credentials/read.ts';
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations, organizations, phone_numbers } from '../d1/schema.ts';
import { bySystem, eventParameters } from '../decision/call.ts';
import type { Bindings } from '../env.ts';
import { findAccount, noteRefusal } from '../integrations/account.ts';
import { periodOf, UNKNOWN_AGAIN_SECONDS } from '../integrations/outcome.ts';
import { findHoldings } from '../providers/account-numbers.ts';
import { isWithinBudget } from '../providers/budget.ts';
import { exchange } from '../providers/exchange.ts';
import type { ProviderRequest } from '../providers/providers.ts';
import { answerOf, CONTESTED, ownershipWriter } from './ownership.ts';
import type { OwnershipParameters } from './ownership.ts';

/** A turn that is under way then lasts 20 seconds more at most, and the check of credentials comes after it. */
const MILLISECONDS_PER_RUN = 10_000;
/** A turn takes up to eight statements. D1 allows 1,000 in one invocation of a Worker; the check of credentials has 811. */
const TURNS_PER_RUN = 20;
const NUMBERS_PER_TURN = 100;
/** Among so many that are due, a turn takes those of one integration. */
const LOOKED_AT = 1000;
/** Longer than a turn. */
const LEASE_SECONDS = 300;
const BEFORE_ALL = CONTESTED - 1;

interface ClaimParameters {
  /** Unix seconds. */
  now: number;
  /** What was due after one time, and until the other, is claimed. */
  after: number;
  due: number;
  /** Whether unconfirmed numbers are left out: 0 or 1. */
  confirmed_only: number;
}

/** Predicate: the number's integration has credentials that are not known to be refused, and nothing keeps its organization from having them used. */
const isAskable = (db: Builder, { now }: Placeholders<ClaimParameters>) => {
  const isIts = and(
    eq(integrations.organization_id, phone_numbers.organization_id),
    eq(integrations.integration_id, phone_numbers.integration_id),
    eq(integrations.status, 'active'),
    sql`${integrations.last_verdict} IS NOT 'refused'`,
  );
  const mayBeAsked = and(
    eq(organizations.organization_id, phone_numbers.organization_id),
    eq(organizations.status, 'active'),
    lte(organizations.checks_stopped_until, now),
  );
  return and(existsIn(db, integrations, isIts), existsIn(db, organizations, mayBeAsked));
};

const laterBy = (seconds: number, now: Placeholder) => sql`${now} + ${sql.raw(String(seconds))}`;

/**
 * Claims numbers of the integration whose number has been due for longest. Those that nobody can be asked about now are put
 * off; SIP numbers are never due again. A confirmed number is claimed alone, because it is then looked up by itself: in a
 * list it could be missed, if another number vanishes between two pages.
 */
const claimDue = query((db, parameters: Placeholders<ClaimParameters>) => {
  const { now, after, due, confirmed_only } = parameters;
  const { phone_number_id, organization_id, integration_id, ownership, ownership_due_at } = phone_numbers;
  const lookedAt = db
    .select({ phone_number_id, organization_id, integration_id, ownership, ownership_due_at })
    .from(phone_numbers)
    .where(
      and(
        gt(ownership_due_at, after),
        lte(ownership_due_at, due),
        or(sql`NOT ${confirmed_only}`, eq(ownership, 'confirmed')),
      ),
    )
    .orderBy(asc(ownership_due_at), asc(integration_id))
    .limit(LOOKED_AT);
  const ranked = sql`SELECT phone_number_id, ownership,
      row_number() OVER (PARTITION BY organization_id, integration_id, ownership ORDER BY ownership_due_at) AS place,
      (organization_id, integration_id, ownership) IS
        (first_value(organization_id) OVER due, first_value(integration_id) OVER due, first_value(ownership) OVER due) AS is_of_first
    FROM ${lookedAt} WINDOW due AS (ORDER BY ownership_due_at, integration_id)`;
  const most = sql`iif(ownership = 'confirmed', 1, ${sql.raw(String(NUMBERS_PER_TURN))})`;
  return db
    .update(phone_numbers)
    .set({
      ownership_due_at: sql`CASE WHEN ${integration_id} IS NULL THEN NULL WHEN ${isAskable(db, parameters)}
        THEN ${laterBy(LEASE_SECONDS, now)} ELSE ${laterBy(UNKNOWN_AGAIN_SECONDS, now)} END`,
    })
    .where(
      inArray(phone_number_id, sql`(SELECT phone_number_id FROM (${ranked}) WHERE is_of_first AND place <= ${most})`),
    )
    .returning({
      phone_number_id,
      phone_number: phone_numbers.phone_number,
      organization_id,
      integration_id,
      ownership_due_at,
    });
});

interface Claimed {
  phone_number_id: string;
  phone_number: string;
  organization_id: string;
  integration_id: string | null;
  ownership_due_at: number | null;
}

interface SettleParameters extends OwnershipParameters {
  claimed_until: number;
  /** JSON array of the ids of all claimed numbers. */
  claimed: string;
  /** When to ask again about those that stay open. */
  again_at: number;
}

const { record, write } = ownershipWriter<SettleParameters>(
  (_, { claimed_until }) => and(eq(phone_numbers.ownership_due_at, claimed_until), eq(organizations.status, 'active')),
  true,
);

/** Ends the claims of numbers whose ownership did not change. */
const settle = query((db, parameters: Placeholders<SettleParameters>) => {
  const next = sql`iif(${phone_numbers.ownership} = 'confirmed', NULL, ${parameters.due_at})`;
  return db
    .update(phone_numbers)
    .set({
      ownership_due_at: sql`iif(${answerOf(parameters)} = ${phone_numbers.ownership}, ${next}, ${parameters.again_at})`,
    })
    .where(
      and(
        sql`${phone_numbers.phone_number_id} IN (SELECT value FROM json_each(${parameters.claimed}))`,
        sql`+${phone_numbers.organization_id} = ${parameters.organization_id}`,
        eq(phone_numbers.ownership_due_at, parameters.claimed_until),
      ),
    );
});

/**
 * A task of the cron: asks accounts about the numbers that are due, in turns of one integration each. Contested numbers come
 * first. What an account holds is confirmed from then on, what it does not hold is unconfirmed. Unconfirmed numbers are due
 * again after `REVERIFY_HOURS`; if that is 0, only contested numbers are asked about.
 *
 * If anything was due, it logs `phone_numbers_rechecked`: how many numbers the accounts `held`, how many were `absent`, and
 * how many stayed `open`.
 *
 * @throws DomainError `temporarily_unavailable`; Error if `REVERIFY_HOURS` cannot be used
 */
export async function recheckOwnership(env: Bindings): Promise<void> {
  const period = periodOf(env);
  const end = Date.now() + MILLISECONDS_PER_RUN;
  const done = { held: 0, absent: 0, open: 0 };
  let isIdle = false;
  for (let turn = 0; turn < TURNS_PER_RUN && Date.now() < end; turn += 1) {
    const now = unixNow();
    // Every other turn is for those that are not contested, so that many contested ones hold up nobody.
    const after = turn % 2 === 0 ? BEFORE_ALL : CONTESTED;
    const [due] = await batch(env.DB, [claimDue.bind({ now, after, due: now, confirmed_only: Number(period === 0) })]);
    if (due.length === 0 && isIdle) break;
    isIdle = due.length === 0;
    const claimed = due.filter(({ ownership_due_at }) => ownership_due_at === now + LEASE_SECONDS);
    try {
      const { held, absent } = await askAbout(env, claimed, now + LEASE_SECONDS, period);
      done.held += held;
      done.absent += absent;
      done.open += claimed.length - held - absent;
    } catch (error) {
      // The claims end by themselves.
      logError('phone_numbers_check_failed', error);
      done.open += claimed.length;
    }
  }
  if (done.held + done.absent + done.open > 0) logEvent('phone_numbers_rechecked', done);
}

/** @param claimed numbers of one integration */
async function askAbout(env: Bindings, claimed: Claimed[], claimed_until: number, period: number) {
  const [first] = claimed;
  if (!first || first.integration_id === null) return { held: 0, absent: 0 };
  const { organization_id, integration_id } = first;
  const call = bySystem(organization_id);
  const event = eventParameters(call);
  const [[account]] = await batch(env.DB, [findAccount.bind({ organization_id, integration_id })]);
  if (!account) return { held: 0, absent: 0 };
  const { provider, credentials_version } = account;
  const { credentials } = await readCredentials({ ...event, env }, { ...account, subject_id: integration_id });
  const ask = async (request: ProviderRequest) =>
    (await isWithinBudget(env, account, 1)) ? exchange(env, provider, request) : undefined;
  const numbers = claimed.map(({ phone_number }) => phone_number);
  const { held, absent, outcome } = credentials
    ? await findHoldings({ provider, credentials, ask }, numbers)
    : { held: new Set<string>(), absent: new Set<string>(), outcome: undefined };
  if (credentials && outcome) await noteRefusal({ ...call, env }, account, credentials, outcome);

  const answers = claimed.flatMap(({ phone_number_id, phone_number }): [string, Ownership][] => {
    if (held.has(phone_number)) return [[phone_number_id, 'confirmed']];
    return absent.has(phone_number) ? [[phone_number_id, 'unconfirmed']] : [];
  });
  const now = unixNow();
  const parameters: SettleParameters = {
    ...event,
    integration_id,
    asked_version: credentials_version,
    asked_at: now,
    answers: JSON.stringify(Object.fromEntries(answers)),
    due_at: now + period,
    claimed_until,
    claimed: JSON.stringify(claimed.map(({ phone_number_id }) => phone_number_id)),
    again_at: now + UNKNOWN_AGAIN_SECONDS,
  };
  await batch(env.DB, [record.bind(parameters), write.bind(parameters), settle.bind(parameters)]);
  return { held: held.size, absent: absent.size };
}
