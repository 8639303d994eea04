import { PatchbayError, unwrap } from 'patchbay-client';
import { useAct } from '../act.ts';
import { nameIn } from '../integrations.ts';
import type { ListedIntegration } from '../integrations.ts';
import { useLoad } from '../load.ts';
import type { ReadOptions } from '../load.ts';
import { countOf, holderOf } from '../numbers.ts';
import type { PhoneNumber } from '../numbers.ts';
import { wrongAgent } from '../rules.ts';
import type { Api, Session } from '../session.ts';
import { useState } from '../state.ts';
import { ActButton } from './act-button.tsx';
import { Dialog } from './dialog.tsx';
import { CheckField, Form, SelectField, textOf, TextField } from './form.tsx';
import { notify } from './notice.tsx';
import { Results } from './numbers.tsx';
import { Loading } from './page.tsx';
import { Problem } from './problem.tsx';

export const bulkKinds = ['assign', 'free', 'move', 'delete'] as const;
export type BulkKind = (typeof bulkKinds)[number];

export const bulkTitles: Record<BulkKind, string> = {
  assign: 'Assign to an agent',
  free: 'Free',
  move: 'Move to an integration',
  delete: 'Delete',
};

/** What is to become of all the numbers, or of none. */
interface Wanted {
  /** Absent: they are deleted. */
  set?: { assigned_agent_id: string | null } | { integration_id: string };
  verify: boolean;
  /** What they then are, as the end of a sentence. */
  outcome: string;
}

/** What needs no more to be said. */
const wantedAtOnce: Partial<Record<BulkKind, Wanted>> = {
  free: { set: { assigned_agent_id: null }, verify: true, outcome: 'free' },
  delete: { verify: true, outcome: 'deleted' },
};

function preview(api: Api, phone_number_ids: string[], { set, verify }: Wanted, options: ReadOptions) {
  const paths = api['phone-numbers'];
  return set
    ? unwrap(paths['bulk-update'].$post({ json: { phone_number_ids, set }, query: { dry_run: true, verify } }, options))
    : unwrap(paths['bulk-delete'].$post({ json: { phone_number_ids }, query: { dry_run: true } }, options));
}

function carryOut(api: Api, phone_number_ids: string[], { set, verify }: Wanted, headers: Record<string, string>) {
  const paths = api['phone-numbers'];
  return set
    ? unwrap(paths['bulk-update'].$post({ json: { phone_number_ids, set }, query: { verify } }, { headers }))
    : unwrap(paths['bulk-delete'].$post({ json: { phone_number_ids }, query: {} }, { headers }));
}

interface BulkProps {
  session: Session;
  kind: BulkKind;
  numbers: readonly PhoneNumber[];
  integrations: ListedIntegration[] | undefined;
  onClose: () => void;
  onDone: () => void;
}

/** A dialog that acts on all the numbers or on none, and shows before what it would do. */
export function Bulk({ session, kind, numbers, integrations, onClose, onDone }: BulkProps) {
  const [wanted, setWanted] = useState(wantedAtOnce[kind]);
  const [isBusy, setBusy] = useState(false);
  const before = new Map(
    numbers.map((number) => [
      number.phone_number_id,
      kind === 'move' ? nameIn(integrations, number.integration_id ?? 'SIP') : holderOf(number),
    ]),
  );
  return (
    <Dialog
      title={`${bulkTitles[kind]}: ${countOf(numbers.length)}`}
      onClose={onClose}
      isBusy={isBusy}
      {...(wantedAtOnce[kind] ? { closeText: 'Cancel' } : {})}
    >
      {/* What is entered anew needs a preview of its own. */}
      <fieldset disabled={isBusy} onInput={() => setWanted(wantedAtOnce[kind])}>
        {kind === 'assign' && <ChooseAgent onChoose={setWanted} onCancel={onClose} />}
        {kind === 'move' && (
          <ChooseIntegration numbers={numbers} integrations={integrations} onChoose={setWanted} onCancel={onClose} />
        )}
      </fieldset>
      {wanted && (
        <Confirm
          key={JSON.stringify(wanted)}
          api={session.api}
          title={bulkTitles[kind]}
          numbers={numbers}
          wanted={wanted}
          before={before}
          onBusy={setBusy}
          onDone={onDone}
        />
      )}
    </Dialog>
  );
}

interface ChooseProps {
  onChoose: (wanted: Wanted) => void;
  onCancel: () => void;
}

/** Choosing asks the API only for the preview. */
const choosing = { isBusy: false, error: undefined };

const ChooseAgent = ({ onChoose, onCancel }: ChooseProps) => (
  <Form
    act={choosing}
    submit="Preview"
    onCancel={onCancel}
    onSubmit={(values) => {
      const agent = textOf(values, 'assigned_agent_id').trim();
      if (wrongAgent(agent) !== undefined) return;
      onChoose({ set: { assigned_agent_id: agent }, verify: true, outcome: `assigned to ${agent}` });
    }}
  >
    <TextField name="assigned_agent_id" label="Agent" isRequired placeholder="agent_…" check={wrongAgent} />
  </Form>
);

function ChooseIntegration({
  numbers,
  integrations = [],
  onChoose,
  onCancel,
}: ChooseProps & Pick<BulkProps, 'numbers' | 'integrations'>) {
  const suitable = integrations.filter(({ provider }) => numbers.some((number) => number.provider === provider));
  return (
    <Form
      act={choosing}
      submit="Preview"
      onCancel={onCancel}
      onSubmit={(values) => {
        const integration_id = textOf(values, 'integration_id');
        const outcome = `moved to ${nameIn(integrations, integration_id)}`;
        onChoose({ set: { integration_id }, verify: !values.has('unasked'), outcome });
      }}
    >
      <SelectField
        name="integration_id"
        label="Integration"
        isRequired
        hint="Of the provider of the numbers. They keep their agents and settings."
        options={[['', 'Choose one'], ...suitable.map(({ integration_id, name }) => [integration_id, name] as const)]}
      />
      <CheckField
        name="unasked"
        label="Do not ask the account whether it holds the numbers"
        hint="They are then unconfirmed, until it is asked about them."
      />
    </Form>
  );
}

interface ConfirmProps {
  api: Api;
  title: string;
  numbers: readonly PhoneNumber[];
  wanted: Wanted;
  before: ReadonlyMap<string, string>;
  onBusy: (isBusy: boolean) => void;
  onDone: () => void;
}

/** What it would do, and then the button that does it. */
function Confirm({ api, title, numbers, wanted, before, onBusy, onDone }: ConfirmProps) {
  const ids = numbers.map(({ phone_number_id }) => phone_number_id);
  const tried = useLoad(async (options) => (await preview(api, ids, wanted, options)).data.results, []);
  const act = useAct((given: Wanted, headers) => carryOut(api, ids, given, headers));
  const results = refusedResults(act.error) ?? tried.value;
  const blocking = results?.filter(({ status }) => status === 'failed').length;

  async function confirm() {
    onBusy(true);
    const done = await act.run(wanted);
    onBusy(false);
    if (!done) return;
    const count = done.data.results.length;
    notify(`${countOf(count)} ${count === 1 ? 'is' : 'are'} ${wanted.outcome}.`);
    onDone();
  }

  return (
    <section>
      {tried.isLoading && <Loading what="preview" />}
      <Problem error={tried.error} retry={tried.reload} />
      <Problem error={act.error} />
      {results && (
        <div>
          <p role="status">
            {blocking === 0
              ? `${countOf(results.length)} would be ${wanted.outcome}.`
              : `Nothing would be done: ${blocking} of ${countOf(results.length)} cannot be ${wanted.outcome}. It is all of them, or none.`}
          </p>
          <Results results={results} before={before} />
        </div>
      )}
      {tried.value && blocking === 0 && (
        <div class="actions">
          <ActButton act={act} kind={wanted.set ? '' : 'danger'} onAct={confirm}>
            {title}: {countOf(numbers.length)}
          </ActButton>
        </div>
      )}
    </section>
  );
}

/** Why none of the numbers was acted on, number by number. */
function refusedResults(error: unknown) {
  const problem = error instanceof PatchbayError ? error.problem : undefined;
  return problem?.code === 'phone_numbers_not_updated' || problem?.code === 'phone_numbers_not_deleted'
    ? problem.data.results
    : undefined;
}
