import { PatchbayError, unwrap } from 'patchbay-client';
import type { NumberResult } from '../../worker/core/errors.ts';
import type { Integration } from '../integrations.ts';
import { startJob } from '../jobs.ts';
import { usePages } from '../load.ts';
import type { PageQuery, ReadOptions } from '../load.ts';
import { CheckField, Form } from '../parts/form.tsx';
import { More, Table } from '../parts/list.tsx';
import { NumberLink } from '../parts/numbers.tsx';
import { Empty } from '../parts/page.tsx';
import { Badge } from '../parts/status.tsx';
import type { Tone } from '../parts/status.tsx';
import { sessionState } from '../session.ts';
import type { Api, Session } from '../session.ts';
/** Imports numbers that the account of an integration has. */
import { useState } from '../state.ts';
import { store, useStore } from '../store.ts';

const CHUNK_SIZE = 25;

interface Import {
  isRunning: boolean;
  /** How many have ended: lists of numbers are loaded again. */
  endings: number;
  /** Of the last one, as far as it is. */
  results: readonly NumberResult[];
}

const noImport: Import = { isRunning: false, endings: 0, results: [] };

/** By integration. An import goes on when the view is left, and what came of it is there when the view is opened again. */
const imports = store<Record<string, Import>>({});
sessionState.subscribe(() => imports.set({}));

export const useImport = (integration_id: string): Import => useStore(imports)[integration_id] ?? noImport;

interface Supports {
  supports_inbound: boolean;
  supports_outbound: boolean;
}

async function importNumbers(
  { api }: Session,
  { integration_id, name }: Integration,
  phone_numbers: readonly string[],
  supports: Supports,
): Promise<void> {
  const { session } = sessionState.get();
  const results: NumberResult[] = [];
  function note(changes: Partial<Import>) {
    if (sessionState.get().session !== session) return;
    const present = imports.get()[integration_id] ?? noImport;
    imports.set({ ...imports.get(), [integration_id]: { ...present, ...changes, results: [...results] } });
  }

  note({ isRunning: true });
  await startJob(`Import into ${name}`, phone_numbers.length, async ({ signal, advance }) => {
    for (let start = 0; start < phone_numbers.length; start += CHUNK_SIZE) {
      const chunk = phone_numbers.slice(start, start + CHUNK_SIZE);
      results.push(...(await importChunk(api, { integration_id, phone_numbers: chunk, ...supports }, signal)));
      note({});
      advance(chunk.length);
    }
    const imported = results.filter(({ status }) => status === 'imported').length;
    return `${imported.toLocaleString()} of ${phone_numbers.length.toLocaleString()} numbers were imported.`;
  });
  note({ isRunning: false, endings: (imports.get()[integration_id] ?? noImport).endings + 1 });
}

type ImportBody = Parameters<Api['phone-numbers']['bulk']['$post']>[0]['json'];

/** What came of each number, also if none was imported. */
async function importChunk(api: Api, json: ImportBody, signal: AbortSignal): Promise<NumberResult[]> {
  try {
    const { data } = await unwrap(api['phone-numbers'].bulk.$post({ query: {}, json }, { init: { signal } }));
    return data.results;
  } catch (error) {
    if (error instanceof PatchbayError && error.problem?.code === 'phone_numbers_not_imported') {
      return error.problem.data.results;
    }
    throw error;
  }
}

interface ImportSectionProps {
  session: Session;
  integration: Integration;
}

/** The provider is asked only when somebody wants to see its numbers. */
export function ImportSection({ session, integration }: ImportSectionProps) {
  const { results } = useImport(integration.integration_id);
  const [isOpen, setOpen] = useState(false);
  return (
    <section aria-label="Import from the account">
      <h2>Import from the account</h2>
      {results.length > 0 && <Results results={results} />}
      {isOpen ? (
        <AccountNumbers session={session} integration={integration} />
      ) : (
        <button type="button" class="secondary" onClick={() => setOpen(true)}>
          Show the account’s numbers
        </button>
      )}
    </section>
  );
}

const listAccountNumbers = (api: Api, integration_id: string, query: PageQuery, options: ReadOptions) =>
  unwrap(api.integrations[':integration_id']['provider-numbers'].$get({ param: { integration_id }, query }, options));

type AccountNumber = Awaited<ReturnType<typeof listAccountNumbers>>['data'][number];

function AccountNumbers({ session, integration }: ImportSectionProps) {
  const { integration_id } = integration;
  const { isRunning, endings } = useImport(integration_id);
  const pages = usePages(
    (page, options) => listAccountNumbers(session.api, integration_id, page, options),
    [integration_id, endings],
  );
  const [ticked, setTicked] = useState<ReadonlySet<string>>(new Set());
  const available = pages.rows.filter(isAvailable).map(({ phone_number }) => phone_number);
  const selected = new Set(available.filter((phone_number) => ticked.has(phone_number)));
  return (
    <>
      <h3>Numbers of the account</h3>
      {pages.rows.length > 0 && (
        <AccountTable numbers={pages.rows} available={available} selected={selected} onSelect={setTicked} />
      )}
      {pages.rows.length === 0 && !pages.isLoading && !pages.hasMore && pages.error === undefined && (
        <Empty>
          <p>The account has no numbers. Buy or rent them at the provider first.</p>
        </Empty>
      )}
      <More pages={pages} what="numbers of the account" />
      {available.length > 0 && (
        <Form
          act={{ isBusy: isRunning, error: undefined }}
          submit={`Import ${selected.size.toLocaleString()} of these numbers`}
          isDisabled={selected.size === 0}
          onSubmit={(values) =>
            void importNumbers(session, integration, [...selected], {
              supports_inbound: values.has('supports_inbound'),
              supports_outbound: values.has('supports_outbound'),
            })
          }
        >
          <CheckField name="supports_inbound" label="They take inbound calls" checked />
          <CheckField name="supports_outbound" label="They make outbound calls" checked />
        </Form>
      )}
    </>
  );
}

const isAvailable = ({ import_status }: AccountNumber) => import_status === 'available';

interface AccountTableProps {
  numbers: readonly AccountNumber[];
  available: readonly string[];
  selected: ReadonlySet<string>;
  onSelect: (phone_numbers: ReadonlySet<string>) => void;
}

function AccountTable({ numbers, available, selected, onSelect }: AccountTableProps) {
  const isAll = available.length > 0 && selected.size === available.length;
  return (
    <Table label="Numbers of the account">
      <thead>
        <tr>
          <th scope="col">
            <input
              type="checkbox"
              aria-label="Select all that are shown and available"
              checked={isAll}
              disabled={available.length === 0}
              onInput={() => onSelect(new Set(isAll ? [] : available))}
            />
          </th>
          <th scope="col">Number</th>
          <th scope="col">Name</th>
          <th scope="col">Capabilities</th>
          <th scope="col">Import</th>
        </tr>
      </thead>
      <tbody>
        {numbers.map((number) => (
          <AccountRow
            key={number.phone_number}
            number={number}
            isSelected={selected.has(number.phone_number)}
            onToggle={() => onSelect(toggled(selected, number.phone_number))}
          />
        ))}
      </tbody>
    </Table>
  );
}

function toggled(selected: ReadonlySet<string>, phone_number: string): ReadonlySet<string> {
  const next = new Set(selected);
  if (!next.delete(phone_number)) next.add(phone_number);
  return next;
}

const importTones: Record<AccountNumber['import_status'], Tone> = {
  available: 'good',
  imported: 'neutral',
  taken: 'warning',
};

interface AccountRowProps {
  number: AccountNumber;
  isSelected: boolean;
  onToggle: () => void;
}

function AccountRow({ number, isSelected, onToggle }: AccountRowProps) {
  const { phone_number, friendly_name, capabilities, import_status, phone_number_id } = number;
  return (
    <tr>
      <td>
        {isAvailable(number) && (
          <input type="checkbox" aria-label={`Select ${phone_number}`} checked={isSelected} onInput={onToggle} />
        )}
      </td>
      <th scope="row">
        <NumberName phone_number={phone_number} phone_number_id={phone_number_id} />
      </th>
      <td>{friendly_name ?? ''}</td>
      <td>{[capabilities.voice && 'voice', capabilities.sms && 'SMS'].filter(Boolean).join(', ')}</td>
      <td>
        <Badge tone={importTones[import_status]} text={import_status} />
        {import_status === 'taken' && <small> Another organization has it.</small>}
      </td>
    </tr>
  );
}

/** A link, if this organization has the number. */
function NumberName({ phone_number, phone_number_id }: { phone_number: string; phone_number_id: string | null }) {
  return phone_number_id === null ? (
    <>{phone_number}</>
  ) : (
    <NumberLink phone_number_id={phone_number_id} phone_number={phone_number} />
  );
}

const Results = ({ results }: { results: readonly NumberResult[] }) => (
  <>
    <h3>What came of the import</h3>
    <Table label="What came of the import">
      <thead>
        <tr>
          <th scope="col">Number</th>
          <th scope="col">Result</th>
        </tr>
      </thead>
      <tbody>
        {results.map(({ phone_number, phone_number_id, status, detail }) => (
          <tr key={phone_number}>
            <th scope="row">
              <NumberName phone_number={phone_number} phone_number_id={phone_number_id} />
            </th>
            <td>
              <Badge tone={status === 'imported' ? 'good' : 'bad'} text={status} /> {detail ?? ''}
            </td>
          </tr>
        ))}
      </tbody>
    </Table>
  </>
);
