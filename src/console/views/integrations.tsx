import { useId, useRef } from 'hono/jsx/dom';
import { unwrap } from 'patchbay-client';
import { integrationStatuses, providerNames, verificationStatuses } from '../../worker/core/vocabulary.ts';
import type { ListedIntegration } from '../integrations.ts';
import { usePages } from '../load.ts';
import type { PageQuery, ReadOptions } from '../load.ts';
import { anyOr, SelectField } from '../parts/form.tsx';
import { More, Table } from '../parts/list.tsx';
import { Empty, Page } from '../parts/page.tsx';
import { Badge, Provider, providerName, Verification } from '../parts/status.tsx';
import { Age } from '../parts/time.tsx';
import { goTo, hrefOf, setQuery } from '../route.ts';
import { oneOf } from '../rules.ts';
import type { Api, Session } from '../session.ts';
import { useEffectAtOnce } from '../state.ts';
import type { ViewProps } from '../view.ts';

const listIntegrations = (api: Api, query: Filters & PageQuery, options: ReadOptions) =>
  unwrap(api.integrations.$get({ query }, options));

type Filters = Omit<NonNullable<NonNullable<Parameters<Api['integrations']['$get']>[0]>['query']>, keyof PageQuery>;

/** All integrations: found by name, or by filters. */
export function Integrations({ session, query }: ViewProps) {
  const filters = filtersOf(query);
  const { order: _, ...narrowing } = filters;
  const isNarrowed = Object.keys(narrowing).length > 0;
  const pages = usePages(
    (page, options) => listIntegrations(session.api, { ...filters, ...page }, options),
    [query.toString()],
  );
  const isEmpty = pages.rows.length === 0 && !pages.isLoading && pages.error === undefined;
  return (
    <Page
      title="Integrations"
      actions={
        session.can('integrations:create') && (
          <button type="button" onClick={() => goTo(['integrations', 'new'])}>
            Create integration
          </button>
        )
      }
    >
      <FilterFields filters={filters} />
      {pages.rows.length > 0 && <List integrations={pages.rows} />}
      {isEmpty && (isNarrowed ? <NoneFound /> : <NoneYet session={session} />)}
      <More pages={pages} what="integrations" />
    </Page>
  );
}

/** A search by name excludes the filters, and has an order of its own (docs/contract.md, By name). */
function filtersOf(query: URLSearchParams): Filters {
  const name_prefix = query.get('name_prefix');
  if (name_prefix) return { name_prefix, order: 'asc' };
  const provider = oneOf(providerNames, query.get('provider'));
  const verification = oneOf(verificationStatuses, query.get('verification'));
  const status = oneOf(integrationStatuses, query.get('status'));
  return {
    ...(provider && { provider }),
    ...(verification && { verification }),
    ...(status && { status }),
    order: oneOf(['asc'], query.get('order')) ?? 'desc',
  };
}

const noFilters = { name_prefix: undefined, provider: undefined, verification: undefined, status: undefined };

function FilterFields({ filters }: { filters: Filters }) {
  const { name_prefix = '', provider = '', verification = '', status = '', order = 'desc' } = filters;
  const isDisabled = name_prefix !== '';
  return (
    <div class="filters">
      <NameSearch text={name_prefix} />
      <SelectField
        name="provider"
        label="Provider"
        options={anyOr(providerNames, providerName)}
        value={provider}
        isDisabled={isDisabled}
        onChoose={(value) => setQuery({ provider: value })}
      />
      <SelectField
        name="verification"
        label="Verification"
        options={anyOr(verificationStatuses)}
        value={verification}
        isDisabled={isDisabled}
        onChoose={(value) => setQuery({ verification: value })}
      />
      <SelectField
        name="status"
        label="Status"
        options={anyOr(integrationStatuses)}
        value={status}
        isDisabled={isDisabled}
        onChoose={(value) => setQuery({ status: value })}
      />
      <SelectField
        name="order"
        label="Order"
        options={
          isDisabled
            ? [['asc', 'by name']]
            : [
                ['desc', 'newest first'],
                ['asc', 'oldest first'],
              ]
        }
        value={order}
        isDisabled={isDisabled}
        onChoose={(value) => setQuery({ order: value === 'asc' ? value : undefined })}
      />
    </div>
  );
}

const TYPING_PAUSE_MS = 300;

/** Searches when the typing pauses. */
function NameSearch({ text }: { text: string }) {
  const id = useId();
  const pause = useRef<number | undefined>(undefined);
  useEffectAtOnce(() => () => clearTimeout(pause.current), []);
  function searchSoon({ target }: Event) {
    if (!(target instanceof HTMLInputElement)) return;
    clearTimeout(pause.current);
    pause.current = setTimeout(() => {
      setQuery(
        target.value === ''
          ? { name_prefix: undefined }
          : { ...noFilters, order: undefined, name_prefix: target.value },
      );
    }, TYPING_PAUSE_MS);
  }
  return (
    <div class="field">
      <label for={id}>Name begins with</label>
      <input
        type="search"
        id={id}
        value={text}
        maxLength={100}
        autocomplete="off"
        spellcheck={false}
        aria-describedby={`${id}-said`}
        onInput={searchSoon}
      />
      <small id={`${id}-said`}>{text === '' ? '' : 'Clear it to use the filters.'}</small>
    </div>
  );
}

const List = ({ integrations }: { integrations: readonly ListedIntegration[] }) => (
  <Table label="Integrations">
    <thead>
      <tr>
        <th scope="col">Name</th>
        <th scope="col">Provider</th>
        <th scope="col">Account</th>
        <th scope="col">Verification</th>
        <th scope="col">Numbers</th>
      </tr>
    </thead>
    <tbody>
      {integrations.map((integration) => (
        <Row key={integration.integration_id} integration={integration} />
      ))}
    </tbody>
  </Table>
);

function Row({ integration }: { integration: ListedIntegration }) {
  const { integration_id, name, provider, account_hint, verification, status, phone_number_count } = integration;
  return (
    <tr>
      <th scope="row">
        <a href={hrefOf(['integrations', integration_id])}>{name}</a>{' '}
        {status === 'credentials_missing' && <Badge tone="bad" text="credentials missing" />}
      </th>
      <td>
        <Provider provider={provider} />
      </td>
      <td>{account_hint === null ? '' : <code>{account_hint}</code>}</td>
      <td>
        <Verification status={verification.status} />{' '}
        {verification.checked_at !== null && (
          <small>
            <Age value={verification.checked_at} />
          </small>
        )}
      </td>
      <td>
        <a href={hrefOf(['numbers'], { integration_id })} aria-label={`${phone_number_count} numbers of ${name}`}>
          {phone_number_count.toLocaleString()}
        </a>
      </td>
    </tr>
  );
}

const NoneFound = () => (
  <Empty>
    <p>No integration is found.</p>
    <button type="button" class="secondary" onClick={() => setQuery(noFilters)}>
      Clear the search and the filters
    </button>
  </Empty>
);

const NoneYet = ({ session }: { session: Session }) => (
  <Empty>
    <p>
      There are no integrations yet. An integration is an account at a telephony provider: numbers are imported through
      it.
    </p>
    {session.can('integrations:create') ? (
      <p>
        <a href={hrefOf(['integrations', 'new'])}>Create the first one</a>
      </p>
    ) : (
      <p>Somebody with a key of a higher role can create one.</p>
    )}
  </Empty>
);
