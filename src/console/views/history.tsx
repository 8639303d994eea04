import { entries, unwrap } from 'patchbay-client';
import { auditActions } from '../../worker/core/vocabulary.ts';
import { alternatives, csv, filterOf, jsonLines } from '../events.ts';
import type { EventFilter, FileFormat } from '../events.ts';
import { startJob } from '../jobs.ts';
import { usePages } from '../load.ts';
import { toLocal, toUtc } from '../local-time.ts';
import { EventList } from '../parts/events.tsx';
import { Form, SelectField, textOf, TextField } from '../parts/form.tsx';
import { More } from '../parts/list.tsx';
import { Empty, Page } from '../parts/page.tsx';
import { hrefOf, setQuery } from '../route.ts';
import type { Api } from '../session.ts';
import { useEffectAtOnce, useState } from '../state.ts';
import type { ViewProps } from '../view.ts';

/** What happened, newest first. */
export function HistoryView({ session: { api }, query }: ViewProps) {
  const filter = filterOf(query);
  const pages = usePages(
    (page, options) => unwrap(api['audit-events'].$get({ query: { ...page, ...filter, order: 'desc' } }, options)),
    [JSON.stringify(filter)],
  );
  const isEmpty = pages.rows.length === 0 && !pages.isLoading && pages.error === undefined;
  return (
    <Page
      title="History"
      actions={[csv, jsonLines].map((format) => (
        <button
          key={format.name}
          type="button"
          class="secondary"
          onClick={() => void exportEvents(api, filter, format)}
        >
          Export as {format.name}
        </button>
      ))}
    >
      <Filters filter={filter} />
      <EventList events={pages.rows} />
      {isEmpty && (
        <Empty>
          <p>
            No event is like that. <a href={hrefOf(['history'])}>Show all events</a>
          </p>
        </Empty>
      )}
      <More pages={pages} what="events" />
    </Page>
  );
}

type Alternative = (typeof alternatives)[number] | '';

const isAlternative = (text: string): text is Alternative => ['', ...alternatives].includes(text);

const kinds = [
  ['', 'Everything'],
  ['action', 'One action'],
  ['target_id', 'One target'],
  ['actor_key_id', 'One key'],
] as const satisfies readonly (readonly [Alternative, string])[];

function Filters({ filter }: { filter: EventFilter }) {
  const given = alternatives.find((name) => filter[name] !== undefined) ?? '';
  const [kind, setKind] = useState<Alternative>(given);
  useEffectAtOnce(() => setKind(given), [given]);
  return (
    <Form
      act={{ isBusy: false, error: undefined }}
      submit="Show"
      onSubmit={(values) =>
        setQuery({
          ...Object.fromEntries(alternatives.map((name) => [name, textOf(values, name).trim()])),
          ...Object.fromEntries(
            ['since', 'until'].map((name) => [name, textOf(values, name) && toUtc(textOf(values, name))]),
          ),
        })
      }
    >
      <div class="filters">
        <TextField
          name="since"
          type="datetime-local"
          label="From"
          value={toLocal(filter.since ?? '')}
          hint="In your time zone."
        />
        <TextField
          name="until"
          type="datetime-local"
          label="Until before"
          value={toLocal(filter.until ?? '')}
          hint="In your time zone."
        />
        <SelectField
          name="kind"
          label="Only"
          value={kind}
          options={kinds}
          hint="Events can be filtered by one of these at a time."
          onChoose={(chosen) => isAlternative(chosen) && setKind(chosen)}
        />
        {kind === 'action' && (
          <SelectField
            name="action"
            label="Action"
            value={filter.action ?? ''}
            options={auditActions.map((action) => [action, action] as const)}
          />
        )}
        {kind === 'target_id' && (
          <TextField
            name="target_id"
            label="Target id"
            value={filter.target_id ?? ''}
            placeholder="intg_…"
            hint="Of an integration, a number, a key, a webhook endpoint, a delivery or the organization."
            isRequired
          />
        )}
        {kind === 'actor_key_id' && (
          <TextField
            name="actor_key_id"
            label="Key id"
            value={filter.actor_key_id ?? ''}
            placeholder="apikey_…"
            hint="What this key did."
            isRequired
          />
        )}
      </div>
    </Form>
  );
}

/** Many small strings would take much more memory than their text. */
const EVENTS_IN_A_PART = 1_000;

/** Reads all events of a filter, and gives them to the browser as a file. */
function exportEvents(api: Api, filter: EventFilter, { name, extension, type, header, line }: FileFormat) {
  return startJob(`Export of events as ${name}`, undefined, async ({ signal, advance }) => {
    const parts = [new Blob([header])];
    let lines: string[] = [];
    let count = 0;
    const query = { ...filter, order: 'desc', page_size: 100 } as const;
    for await (const event of entries(api['audit-events'].$get, query, { init: { signal } })) {
      lines.push(line(event));
      count += 1;
      if (count % query.page_size === 0) advance(query.page_size);
      if (lines.length < EVENTS_IN_A_PART) continue;
      parts.push(new Blob(lines));
      lines = [];
    }
    const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
    download(new Blob([...parts, ...lines], { type }), `audit-events-${time}.${extension}`);
    return `Events in the file: ${count.toLocaleString()}.`;
  });
}

function download(file: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  // The browser has taken the file by the next turn, but some read it a little later.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
