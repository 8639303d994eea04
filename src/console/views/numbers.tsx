import { ownerships, phoneNumberStatuses, providerNames } from '../../worker/core/vocabulary.ts';
import { codeOf } from '../act.ts';
import { useIntegrations } from '../integrations.ts';
import type { ListedIntegration } from '../integrations.ts';
import { usePages } from '../load.ts';
import { countOf, listNumbers } from '../numbers.ts';
import type { NumberFilters, PhoneNumber } from '../numbers.ts';
import { Bulk, bulkKinds, bulkTitles } from '../parts/bulk.tsx';
import type { BulkKind } from '../parts/bulk.tsx';
import { asOptions, Form, SelectField, textOf, TextField } from '../parts/form.tsx';
import { More, Table } from '../parts/list.tsx';
import { Holder, IntegrationLink, NumberLink, Ownership, supportOf } from '../parts/numbers.tsx';
import { Empty, Page } from '../parts/page.tsx';
import { Problem } from '../parts/problem.tsx';
import { Provider, providerName } from '../parts/status.tsx';
import { goTo, setQuery } from '../route.ts';
import { oneOf, wrongAgent } from '../rules.ts';
import type { Session } from '../session.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';

const filterNames = [
  'phone_number_prefix',
  'status',
  'integration_id',
  'ownership',
  'provider',
  'assigned_agent_id',
] as const;
const labels: Record<(typeof filterNames)[number], string> = {
  phone_number_prefix: 'Number',
  status: 'Status',
  integration_id: 'Integration',
  ownership: 'Ownership',
  provider: 'Provider',
  assigned_agent_id: 'Agent',
};
type Given = Record<(typeof filterNames)[number], string>;

const allProviders = [...providerNames, 'sip'] as const;

/** The most numbers that one call acts on by their ids. */
const MAX_SELECTED = 1_000;

/** All numbers: found by their beginning and by filters, and changed many at once. */
export function Numbers({ session, query }: ViewProps) {
  const given = givenBy(query);
  const integrations = useIntegrations(session);
  const pages = usePages(
    (page, options) => listNumbers(session.api, { ...filtersOf(given), ...page }, options),
    [query.toString()],
  );
  const [ticked, setTicked] = useState<ReadonlySet<string>>(new Set());
  const selected = pages.rows.filter(({ phone_number_id }) => ticked.has(phone_number_id));
  const isWrong = codeOf(pages.error) === 'validation_failed';
  const isFiltered = filterNames.some((name) => given[name] !== '');
  return (
    <Page
      title="Numbers"
      actions={
        session.can('phone_numbers:create') && (
          <button type="button" onClick={() => goTo(['numbers', 'new'])}>
            Add a number
          </button>
        )
      }
    >
      <Filters given={given} integrations={integrations.value} error={isWrong ? pages.error : undefined} />
      <Problem error={integrations.error} retry={integrations.reload} />
      <Selected
        session={session}
        numbers={selected}
        integrations={integrations.value}
        onDone={() => {
          setTicked(new Set());
          pages.reload();
        }}
      />
      {pages.rows.length > 0 && (
        <List
          session={session}
          numbers={pages.rows}
          integrations={integrations.value}
          ticked={ticked}
          onTick={setTicked}
        />
      )}
      {pages.rows.length === 0 && !pages.isLoading && pages.error === undefined && (
        <Empty>
          {isFiltered ? (
            <p>No number meets these filters. Clear some of them.</p>
          ) : (
            <p>
              There are no numbers yet.
              {session.can('phone_numbers:create') &&
                ' Add one, or open an integration to import those of its account.'}
            </p>
          )}
        </Empty>
      )}
      {!isWrong && <More pages={pages} what="numbers" />}
    </Page>
  );
}

function givenBy(query: URLSearchParams): Given {
  const value = (name: string) => query.get(name) ?? '';
  return {
    phone_number_prefix: value('phone_number_prefix'),
    status: value('status'),
    integration_id: value('integration_id'),
    ownership: value('ownership'),
    provider: value('provider'),
    assigned_agent_id: value('assigned_agent_id'),
  };
}

/** As the API takes them: without those that are empty. */
function filtersOf(given: Given): NumberFilters {
  const status = oneOf(phoneNumberStatuses, given.status);
  const ownership = oneOf(ownerships, given.ownership);
  const provider = oneOf(allProviders, given.provider);
  return {
    ...(given.phone_number_prefix && { phone_number_prefix: given.phone_number_prefix }),
    ...(given.integration_id && { integration_id: given.integration_id }),
    ...(given.assigned_agent_id && { assigned_agent_id: given.assigned_agent_id }),
    ...(status && { status }),
    ...(ownership && { ownership }),
    ...(provider && { provider }),
  };
}

/** What people write between the digits of a number. */
const plainNumber = (text: string) => text.replaceAll(/[\s().-]/g, '');

const noFilters = Object.fromEntries(filterNames.map((name) => [name, undefined]));

/** What keeps a filter from being chosen, as its hint. One that is chosen can always be cleared. */
const barredBy = (isChosen: boolean, others: readonly string[]) =>
  isChosen || others.length === 0 ? {} : { isDisabled: true, hint: `Does not go with ${others.join(' or ')}.` };

interface FiltersProps {
  given: Given;
  integrations: ListedIntegration[] | undefined;
  /** What the API said of them. */
  error: unknown;
}

/** Only what goes together can be chosen: the API refuses any other combination (docs/contract.md, Filters). */
function Filters({ given, integrations = [], error }: FiltersProps) {
  const has = (name: keyof Given) => given[name] !== '';
  const state = (['status', 'integration_id', 'ownership'] as const).filter(has).map((name) => labels[name]);
  const provider = has('provider') ? [labels.provider] : [];
  const agent = has('assigned_agent_id') ? [labels.assigned_agent_id] : [];
  const select = (name: keyof Given, others: readonly string[], options: readonly (readonly [string, string])[]) => (
    <SelectField
      name={name}
      label={labels[name]}
      value={given[name]}
      options={[['', 'All'], ...options]}
      onChoose={(value) => setQuery({ [name]: value })}
      {...barredBy(has(name), others)}
    />
  );
  return (
    <div>
      <Form
        act={{ isBusy: false, error }}
        submit="Search"
        onSubmit={(values) =>
          setQuery({
            phone_number_prefix: plainNumber(textOf(values, 'phone_number_prefix')),
            assigned_agent_id: textOf(values, 'assigned_agent_id').trim(),
          })
        }
      >
        <div class="filters hinted">
          <TextField
            name="phone_number_prefix"
            type="search"
            label={labels.phone_number_prefix}
            value={given.phone_number_prefix}
            placeholder="+1415"
            hint="Its beginning, or all of it, with + and the country code."
          />
          {select('status', [...provider, ...agent], asOptions(phoneNumberStatuses))}
          {select(
            'integration_id',
            [...provider, ...agent],
            integrations.map(({ integration_id, name }) => [integration_id, name]),
          )}
          {select('ownership', [...provider, ...agent], asOptions(ownerships))}
          {select(
            'provider',
            [...state, ...agent],
            allProviders.map((name) => [name, providerName(name)]),
          )}
          <TextField
            name="assigned_agent_id"
            type="search"
            label={labels.assigned_agent_id}
            value={given.assigned_agent_id}
            placeholder="agent_…"
            check={wrongAgent}
            {...barredBy(has('assigned_agent_id'), [...state, ...provider])}
          />
        </div>
      </Form>
      {filterNames.some(has) && (
        <div class="actions">
          <button type="button" class="secondary" onClick={() => setQuery(noFilters)}>
            Clear the filters
          </button>
        </div>
      )}
    </div>
  );
}

interface SelectedProps {
  session: Session;
  numbers: PhoneNumber[];
  integrations: ListedIntegration[] | undefined;
  onDone: () => void;
}

/** What can be done with the numbers that are selected. */
function Selected({ session, numbers, integrations, onDone }: SelectedProps) {
  const [open, setOpen] = useState<{ kind: BulkKind; numbers: PhoneNumber[] } | undefined>(undefined);
  const isTooMany = numbers.length > MAX_SELECTED;
  const kinds = bulkKinds.filter((kind) =>
    session.can(kind === 'delete' ? 'phone_numbers:delete' : 'phone_numbers:update'),
  );
  return (
    <div>
      <div role="status">
        {numbers.length > 0 && (
          <p>
            {countOf(numbers.length)} selected.
            {isTooMany &&
              ` One step takes at most ${MAX_SELECTED.toLocaleString()}: all of them, or none. Select fewer.`}
          </p>
        )}
      </div>
      {numbers.length > 0 && !isTooMany && (
        <section class="actions" aria-label="With the selected numbers">
          {kinds.map((kind) => (
            <button
              key={kind}
              type="button"
              class={kind === 'delete' ? 'danger' : 'secondary'}
              onClick={() => setOpen({ kind, numbers })}
            >
              {bulkTitles[kind]}
            </button>
          ))}
        </section>
      )}
      {open && (
        <Bulk
          session={session}
          kind={open.kind}
          numbers={open.numbers}
          integrations={integrations}
          onClose={() => setOpen(undefined)}
          onDone={() => {
            setOpen(undefined);
            onDone();
          }}
        />
      )}
    </div>
  );
}

interface ListProps {
  session: Session;
  numbers: PhoneNumber[];
  integrations: ListedIntegration[] | undefined;
  ticked: ReadonlySet<string>;
  onTick: (ticked: ReadonlySet<string>) => void;
}

function List({ session, numbers, integrations, ticked, onTick }: ListProps) {
  const canSelect = session.can('phone_numbers:update') || session.can('phone_numbers:delete');
  const tick = (ids: readonly string[], isTicked: boolean) =>
    onTick(new Set(isTicked ? [...ticked, ...ids] : [...ticked].filter((id) => !ids.includes(id))));
  return (
    <Table label="Numbers">
      <thead>
        <tr>
          {canSelect && (
            <th scope="col">
              <Tick
                label="Select all shown"
                isTicked={numbers.every(({ phone_number_id }) => ticked.has(phone_number_id))}
                onTick={(isTicked) =>
                  tick(
                    numbers.map(({ phone_number_id }) => phone_number_id),
                    isTicked,
                  )
                }
              />
            </th>
          )}
          <th scope="col">Number</th>
          <th scope="col">Provider</th>
          <th scope="col">Integration</th>
          <th scope="col">Agent</th>
          <th scope="col">Calls</th>
          <th scope="col">Ownership</th>
        </tr>
      </thead>
      <tbody>
        {numbers.map((number) => (
          <tr key={number.phone_number_id}>
            {canSelect && (
              <td>
                <Tick
                  label={`Select ${number.phone_number}`}
                  isTicked={ticked.has(number.phone_number_id)}
                  onTick={(isTicked) => tick([number.phone_number_id], isTicked)}
                />
              </td>
            )}
            <th scope="row">
              <NumberLink {...number} />
            </th>
            <td>
              <Provider provider={number.provider} />
            </td>
            <td>
              <IntegrationLink id={number.integration_id} integrations={integrations} />
            </td>
            <td>
              <Holder {...number} />
            </td>
            <td>{supportOf(number)}</td>
            <td>
              <Ownership {...number} />
            </td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

interface TickProps {
  label: string;
  isTicked: boolean;
  onTick: (isTicked: boolean) => void;
}

const Tick = ({ label, isTicked, onTick }: TickProps) => (
  <input
    type="checkbox"
    aria-label={label}
    checked={isTicked}
    onInput={({ target }: Event) => target instanceof HTMLInputElement && onTick(target.checked)}
  />
);
