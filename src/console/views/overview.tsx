import type { PropsWithChildren } from 'hono/jsx';
import { verificationStatuses } from '../../worker/core/vocabulary.ts';
import {
  concerns,
  countNumbers,
  countText,
  fullness,
  isNearlyFull,
  quotasOf,
  readIntegrations,
  readKeys,
} from '../inventory.ts';
import type { Concern, FoundIntegrations, FoundKeys, Quota } from '../inventory.ts';
import { roleText } from '../key-state.ts';
import { useLoad } from '../load.ts';
import type { Loaded } from '../load.ts';
import { Empty, Loading, Page } from '../parts/page.tsx';
import { Problem } from '../parts/problem.tsx';
import { Badge, Verification } from '../parts/status.tsx';
import type { Tone } from '../parts/status.tsx';
import { Age, Time } from '../parts/time.tsx';
import { hrefOf } from '../route.ts';
import type { Session } from '../session.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';

/** What an organization has, and what needs attention. */
export function Overview({ session }: ViewProps) {
  const { api, can } = session;
  const [read, setRead] = useState(0);
  const integrations = useLoad((options) => readIntegrations(api, options, setRead), []);
  const numbers = useLoad((options) => countNumbers(api, options), []);
  const keys = useLoad((options) => (can('api_keys:read') ? readKeys(api, options) : Promise.resolve(null)), []);
  const all = [integrations, numbers, keys];
  const quotas = quotasOf(session, integrations.value, numbers.value, keys.value ?? undefined);
  return (
    <Page title="Overview">
      <WhoIAm session={session} />
      {integrations.value?.count === 0 && <FirstSteps session={session} />}
      {all.some(({ isLoading }) => isLoading) && (
        <Loading what={read === 0 ? 'counts' : `counts: ${read.toLocaleString()} integrations so far`} />
      )}
      {all.map(({ error, reload }, index) => (
        <Problem key={String(index)} error={error} retry={reload} />
      ))}
      <div class="cards">
        {quotas.map((quota) => (
          <QuotaCard key={quota.name} quota={quota} />
        ))}
      </div>
      {integrations.value && integrations.value.count > 0 && <Health found={integrations.value} />}
      {isComplete(all) && (
        <Attention lists={listsOf(integrations.value, keys.value)} quotas={quotas.filter(isNearlyFull)} />
      )}
    </Page>
  );
}

const isComplete = (all: readonly Loaded<unknown>[]) => all.every(({ value }) => value !== undefined);

const QuotaCard = ({ quota }: { quota: Quota }) => (
  <section class="panel" aria-label={quota.name}>
    <a href={quota.href}>{quota.name}</a>
    <span class="count">{countText(quota.has)}</span>
    of {quota.limit.toLocaleString()} {isNearlyFull(quota) && <Badge tone="warning" text={fullness(quota)} />}
  </section>
);

function WhoIAm({ session: { who } }: { session: Session }) {
  const { organization, key } = who;
  return (
    <dl class="facts">
      <dt>Organization</dt>
      <dd>
        {organization.name === null ? '' : `${organization.name} · `}
        <code>{organization.client_id}</code>
      </dd>
      <dt>Tier</dt>
      <dd>{organization.tier}</dd>
      <dt>Your key</dt>
      <dd>
        {key.name} · <code>{key.key_id}</code>
      </dd>
      <dt>Its role</dt>
      <dd>{roleText(key.role)}</dd>
      <dt>It expires</dt>
      <dd>{key.expires_at === null ? 'never' : <Time value={key.expires_at} />}</dd>
    </dl>
  );
}

const FirstSteps = ({ session: { can } }: { session: Session }) => (
  <Empty>
    <p>
      There is no integration yet. An integration keeps the credentials of an account at a telephony provider, and
      numbers are imported through it.
    </p>
    {can('integrations:create') ? (
      <p>
        <a href={hrefOf(['integrations', 'new'])}>Create an integration</a>
      </p>
    ) : (
      <p>Somebody with a key of a higher role can create one.</p>
    )}
  </Empty>
);

const Health = ({ found }: { found: FoundIntegrations }) => (
  <section>
    <h2>Verification</h2>
    <ul class="health">
      {verificationStatuses
        .filter((status) => found.by_verification[status] > 0)
        .map((status) => (
          <li key={status}>
            <a href={hrefOf(['integrations'], { verification: status })}>
              {found.by_verification[status].toLocaleString()} <Verification status={status} />
            </a>
          </li>
        ))}
      {found.credentials_missing > 0 && (
        <li>
          <a href={hrefOf(['integrations'], { status: 'credentials_missing' })}>
            {found.credentials_missing.toLocaleString()} <Badge tone="bad" text="credentials missing" />
          </a>
        </li>
      )}
    </ul>
  </section>
);

interface ConcernList {
  title: string;
  tone: Tone;
  /** All of them, in a view of their own. */
  href: string;
  /** What was, or will be, at the times of its rows. */
  verb: string;
  rows: { id: string; name: string; href: string; time: string | null }[];
}

/** What is said of the integrations of a concern, and by which filter all of them are found. */
const saidOf: Record<Concern, { title: string; tone: Tone; filter: Record<string, string> }> = {
  missing: { title: 'Credentials missing', tone: 'bad', filter: { status: 'credentials_missing' } },
  refused: { title: 'Credentials refused', tone: 'bad', filter: { verification: 'refused' } },
  limited: { title: 'Credentials limited', tone: 'warning', filter: { verification: 'limited' } },
  overdue: { title: 'Not checked for 48 hours', tone: 'warning', filter: {} },
  never_checked: { title: 'Never checked', tone: 'warning', filter: { verification: 'unverified' } },
};

function listsOf(integrations: FoundIntegrations | undefined, keys: FoundKeys | null | undefined): ConcernList[] {
  const lists = concerns.map((name) => {
    const { title, tone, filter } = saidOf[name];
    const rows = (integrations?.by_concern[name] ?? []).map(({ integration_id, name: text, verification }) => ({
      id: integration_id,
      name: text,
      href: hrefOf(['integrations', integration_id]),
      time: verification.checked_at,
    }));
    return { title, tone, href: hrefOf(['integrations'], filter), verb: 'checked', rows };
  });
  const ending = (keys?.ending ?? []).map(({ key_id, name, prefix, expires_at }) => ({
    id: key_id,
    name: `${name} (${prefix}…)`,
    href: hrefOf(['keys']),
    time: expires_at,
  }));
  const all = [
    ...lists,
    {
      title: 'Keys that expire soon',
      tone: 'warning' as const,
      href: hrefOf(['keys']),
      verb: 'expires',
      rows: ending,
    },
  ];
  return all.filter(({ rows }) => rows.length > 0);
}

const Attention = ({ lists, quotas }: { lists: readonly ConcernList[]; quotas: readonly Quota[] }) => (
  <section>
    <h2>What needs attention</h2>
    {lists.length + quotas.length === 0 && <p>Nothing needs attention.</p>}
    <div class="cards">
      {lists.map((list) => (
        <ConcernPanel key={list.title} list={list} />
      ))}
      {quotas.length > 0 && (
        <AttentionPanel title="Quotas" tone="warning">
          {quotas.map(({ name, href, has, limit }) => (
            <li key={name}>
              <a href={href}>{name}</a>: {countText(has)} of {limit.toLocaleString()}
            </li>
          ))}
        </AttentionPanel>
      )}
    </div>
  </section>
);

const AttentionPanel = ({ title, tone, children }: PropsWithChildren<{ title: string; tone: Tone }>) => (
  <section class="panel" aria-label={title}>
    <h3>
      <Badge tone={tone} text={title} />
    </h3>
    <ul>{children}</ul>
  </section>
);

/** More than these are a list of their own. */
const SHOWN_ROWS = 10;

function ConcernPanel({ list: { title, tone, href, verb, rows } }: { list: ConcernList }) {
  const hidden = rows.length - SHOWN_ROWS;
  return (
    <AttentionPanel title={title} tone={tone}>
      {rows.slice(0, SHOWN_ROWS).map(({ id, name, href: place, time }) => (
        <li key={id}>
          <a href={place}>{name}</a>
          {time !== null && (
            <span>
              {` · ${verb} `}
              <Age value={time} />
            </span>
          )}
        </li>
      ))}
      {hidden > 0 && (
        <li>
          <a href={href}>And {hidden.toLocaleString()} more</a>
        </li>
      )}
    </AttentionPanel>
  );
}
