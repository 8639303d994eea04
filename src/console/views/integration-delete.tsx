import { PatchbayError, unwrap } from 'patchbay-client';
import { codeOf, useAct } from '../act.ts';
import { useIntegrations } from '../integrations.ts';
import type { ListedIntegration } from '../integrations.ts';
import { useLoad, withTag } from '../load.ts';
import type { ReadOptions } from '../load.ts';
import { countOf, holderOf } from '../numbers.ts';
import { ChangedSince } from '../parts/changed.tsx';
import { CheckField, SelectField, TextField } from '../parts/form.tsx';
import { Table } from '../parts/list.tsx';
import { notify } from '../parts/notice.tsx';
import { NumberLink } from '../parts/numbers.tsx';
import { Empty, Loading, Page } from '../parts/page.tsx';
import { Problem } from '../parts/problem.tsx';
import { providerName } from '../parts/status.tsx';
import { goTo, hrefOf } from '../route.ts';
import type { Api, Session } from '../session.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';

/** What is to become of the numbers. */
interface Choice {
  reassign_to?: string;
  verify?: false;
  remove_phone_numbers?: true;
}

/** The integration, and what its delete would do now. */
async function readPlan(api: Api, integration_id: string, choice: Choice, options: ReadOptions) {
  const path = api.integrations[':integration_id'];
  const param = { integration_id };
  const { body, etag } = await withTag(path.$get({ param }, options));
  const preview = await unwrap(path.$delete({ param, query: { ...choice, dry_run: true } }, options));
  return { ...preview.data, integration: body.data, etag, choice };
}

type Plan = Awaited<ReturnType<typeof readPlan>>;

const list = { href: hrefOf(['integrations']), name: 'Integrations' };

/** Deletes an integration, once its preview has been seen and its name typed. */
export function DeleteIntegration({ session, id }: ViewProps & { id: string }) {
  const parent = { href: hrefOf(['integrations', id]), name: 'The integration' };
  return session.can('integrations:delete') ? (
    <Deletion session={session} id={id} />
  ) : (
    <Page title="Delete an integration" parent={parent}>
      <Empty>
        <p>The role of this key may not delete integrations. Ask somebody with a key of a higher role.</p>
      </Empty>
    </Page>
  );
}

type Way = 'move' | 'remove';

function Deletion({ session, id }: { session: Session; id: string }) {
  const { api } = session;
  const [way, setWay] = useState<Way | undefined>(undefined);
  const [target, setTarget] = useState<ListedIntegration | undefined>(undefined);
  const [isUnasked, setUnasked] = useState(false);
  const choice = choiceOf(way, target, isUnasked);
  const plan = useLoad((options) => readPlan(api, id, choice, options), [JSON.stringify(choice)]);
  const known = plan.value;
  /** What was shown when the delete was refused. */
  const [seen, setSeen] = useState<Plan | undefined>(undefined);

  const act = useAct(async ({ etag, ...query }: Choice & { expect_references?: string; etag: string }, headers) => {
    try {
      const response = await api.integrations[':integration_id'].$delete(
        { param: { integration_id: id }, query },
        { headers: { ...headers, 'If-Match': etag } },
      );
      const { data } = await unwrap(response);
      return {
        name: data.name,
        moved: countIn(response, 'X-Reassigned-Count'),
        removed: countIn(response, 'X-Removed-Count'),
      };
    } catch (error) {
      if (error instanceof PatchbayError && [409, 412, 422].includes(error.status)) {
        setSeen(plan.value);
        plan.reload();
      }
      throw error;
    }
  });

  async function confirm({ choice: previewed, etag, reference_count, reference_count_exact }: Plan) {
    const expected = reference_count_exact ? { expect_references: String(reference_count) } : {};
    const deleted = await act.run({ ...previewed, ...expected, etag });
    if (!deleted) return;
    const { name, moved, removed } = deleted;
    notify(
      [
        `Integration ${name} and its credentials are deleted`,
        ...(moved === undefined ? [] : [`${countOf(moved)} moved to ${target?.name}`]),
        ...(removed === undefined ? [] : [`${countOf(removed)} removed`]),
      ].join('; ') + '.',
    );
    if (act.isShown()) goTo(['integrations']);
  }

  function choose(change: () => void) {
    act.reset();
    change();
  }

  if ([plan.error, act.error].some((error) => codeOf(error) === 'integration_not_found')) {
    return (
      <Page title={`Delete ${known?.integration.name ?? 'an integration'}`} parent={list}>
        <Empty>
          <p>
            This integration is gone already, with its credentials: somebody else has deleted it.{' '}
            <a href={list.href}>Go to the integrations</a>
          </p>
        </Empty>
      </Page>
    );
  }
  const wasChanged = codeOf(act.error) === 'precondition_failed';
  return (
    <Page
      title={`Delete ${known?.integration.name ?? 'an integration'}`}
      parent={{ href: hrefOf(['integrations', id]), name: known?.integration.name ?? 'The integration' }}
    >
      {wasChanged && seen && plan.value && !plan.isLoading && <ChangedSince fields={differences(seen, plan.value)} />}
      {!wasChanged && <Refusal error={act.error} />}
      {known && (known.reference_count > 0 || way !== undefined) && (
        <fieldset disabled={act.isBusy}>
          <legend>What is to become of its {numbersOf(known)}?</legend>
          {session.can('phone_numbers:update') && (
            <WayOption
              text="Move the numbers to another integration"
              isChosen={way === 'move'}
              onChoose={() => choose(() => setWay('move'))}
            />
          )}
          {session.can('phone_numbers:delete') && (
            <WayOption
              text="Remove the numbers"
              isChosen={way === 'remove'}
              onChoose={() => choose(() => setWay('remove'))}
            />
          )}
          {way === 'move' && (
            <Targets
              session={session}
              source={known.integration}
              target={target}
              onChoose={(chosen) => choose(() => setTarget(chosen))}
              isUnasked={isUnasked}
              onUnasked={(unasked) => choose(() => setUnasked(unasked))}
            />
          )}
        </fieldset>
      )}
      <Problem error={plan.error} retry={plan.reload} />
      {plan.isLoading ? (
        <Loading what="preview" />
      ) : (
        plan.error === undefined && plan.value && <Preview id={id} plan={plan.value} targetName={target?.name} />
      )}
      {!plan.isLoading && plan.error === undefined && plan.value?.would_delete === true && (
        <Confirm plan={plan.value} isBusy={act.isBusy} onConfirm={(given) => void confirm(given)} />
      )}
    </Page>
  );
}

/** Without a target there is nothing to move to, so that is the delete alone. */
function choiceOf(way: Way | undefined, target: ListedIntegration | undefined, isUnasked: boolean): Choice {
  if (way === 'remove') return { remove_phone_numbers: true };
  if (way !== 'move' || !target) return {};
  return { reassign_to: target.integration_id, ...(isUnasked ? { verify: false } : {}) };
}

/** How many numbers an answer's header tells. */
function countIn({ headers }: { headers: Headers }, name: string): number | undefined {
  const count = headers.get(name);
  return count === null ? undefined : Number(count);
}

/** `3 numbers`. */
const numbersOf = ({ reference_count, reference_count_exact }: Plan) =>
  `${reference_count_exact ? '' : 'more than '}${countOf(reference_count)}`;

function differences(seen: Plan, now: Plan) {
  return [
    { name: 'Name', mine: seen.integration.name, theirs: now.integration.name },
    { name: 'Numbers', mine: numbersOf(seen), theirs: numbersOf(now) },
    { name: 'Last change', mine: seen.integration.updated_at, theirs: now.integration.updated_at },
  ].filter(({ mine, theirs }) => mine !== theirs);
}

const WayOption = ({ text, isChosen, onChoose }: { text: string; isChosen: boolean; onChoose: () => void }) => (
  <label class="option">
    <input type="radio" name="way" checked={isChosen} onInput={onChoose} /> {text}
  </label>
);

interface TargetsProps {
  session: Session;
  source: Plan['integration'];
  target: ListedIntegration | undefined;
  onChoose: (target: ListedIntegration | undefined) => void;
  isUnasked: boolean;
  onUnasked: (isUnasked: boolean) => void;
}

/** The other integrations of the same provider. */
function Targets({ session, source, target, onChoose, isUnasked, onUnasked }: TargetsProps) {
  const all = useIntegrations(session, source.provider);
  const others = all.value?.filter(({ integration_id }) => integration_id !== source.integration_id);
  return (
    <div>
      {all.isLoading && <Loading what="integrations" />}
      <Problem error={all.error} retry={all.reload} />
      {others?.length === 0 && (
        <Empty>
          <p>
            There is no other {providerName(source.provider)} integration that they could move to.{' '}
            <a href={hrefOf(['integrations', 'new'])}>Create one</a>
          </p>
        </Empty>
      )}
      {others && others.length > 0 && (
        <div>
          <SelectField
            name="reassign_to"
            label="Move them to"
            value={target?.integration_id ?? ''}
            options={[['', 'Choose one'], ...others.map(({ integration_id, name }) => [integration_id, name] as const)]}
            onChoose={(id) => onChoose(others.find(({ integration_id }) => integration_id === id))}
          />
          <CheckField
            name="unasked"
            label="Do not ask the account whether it holds the numbers"
            hint="They are then unconfirmed, until it is asked about them."
            checked={isUnasked}
            onChoose={onUnasked}
          />
        </div>
      )}
    </div>
  );
}

interface PreviewProps {
  id: string;
  plan: Plan;
  targetName: string | undefined;
}

/** What the delete would do now, or what stands against it. */
function Preview({ id, plan, targetName }: PreviewProps) {
  const { would_delete, would_reassign, would_remove, reference_count, references, integration } = plan;
  return (
    <section>
      <h2>Preview</h2>
      {would_delete ? (
        <ul>
          {would_reassign > 0 && (
            <li>
              {numbersOf(plan)} would move to {targetName}, and keep their agents and settings.
            </li>
          )}
          {would_remove > 0 && <li>{numbersOf(plan)} would be removed.</li>}
          {!plan.reference_count_exact && (
            <li>That includes numbers that are imported from now on: beyond 1,000 they are not counted exactly.</li>
          )}
          <li>The integration {integration.name} would be deleted. Nothing could read its credentials any more.</li>
        </ul>
      ) : (
        <p>
          It cannot be deleted now, because of this.
          {plan.reference_count > 0 && ' Choose above what is to become of its numbers.'}
        </p>
      )}
      {would_delete ? <Numbers numbers={references} /> : <Blockers plan={plan} />}
      {reference_count > references.length && (
        <p>
          Only the first {references.length} are named here.{' '}
          <a href={hrefOf(['numbers'], { integration_id: id })}>Show all its numbers</a>
        </p>
      )}
    </section>
  );
}

const Numbers = ({ numbers }: { numbers: Plan['references'] }) =>
  numbers.length === 0 ? null : (
    <Table label="Its numbers">
      <thead>
        <tr>
          <th scope="col">Number</th>
          <th scope="col">Agent</th>
        </tr>
      </thead>
      <tbody>
        {numbers.map((number) => (
          <tr key={number.phone_number_id}>
            <th scope="row">
              <NumberLink {...number} />
            </th>
            <td>{holderOf(number)}</td>
          </tr>
        ))}
      </tbody>
    </Table>
  );

function Blockers({ plan: { blocked_by, references } }: { plan: Plan }) {
  const known = new Map(references.map((number) => [number.phone_number_id, holderOf(number)]));
  return (
    <Table label="What stands against it">
      <thead>
        <tr>
          <th scope="col">Number</th>
          <th scope="col">Agent</th>
          <th scope="col">Why</th>
        </tr>
      </thead>
      <tbody>
        {blocked_by.map(({ code, phone_number_id, phone_number, assigned_agent_id, title, reason }) => (
          <tr key={phone_number_id ?? title}>
            <th scope="row">
              {phone_number_id === null || phone_number === null ? (
                'All numbers'
              ) : (
                <NumberLink phone_number_id={phone_number_id} phone_number={phone_number} />
              )}
            </th>
            <td>{assigned_agent_id ?? known.get(phone_number_id ?? '') ?? ''}</td>
            <td>
              {code === 'integration_in_use' ? 'It uses this integration' : title}
              {reason === null ? '' : `: ${reason.replaceAll('_', ' ')}`}
            </td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

interface ConfirmProps {
  plan: Plan;
  isBusy: boolean;
  onConfirm: (plan: Plan) => void;
}

/** The name must be typed, and only a click deletes. */
function Confirm({ plan, isBusy, onConfirm }: ConfirmProps) {
  const { name } = plan.integration;
  const [typed, setTyped] = useState('');
  return (
    <section>
      <h2>Confirm</h2>
      <p>
        This cannot be undone. To confirm it, type the name: <code class="exact">{name}</code>
      </p>
      <TextField name="name" label="Name of the integration" isRequired onType={setTyped} />
      <button
        type="button"
        class="danger"
        aria-busy={isBusy ? 'true' : 'false'}
        disabled={isBusy || typed !== name}
        onClick={() => onConfirm(plan)}
      >
        Delete the integration
      </button>
    </section>
  );
}

/** Why nothing was deleted, with the numbers that the error names. */
function Refusal({ error }: { error: unknown }) {
  const numbers = numbersIn(error);
  return (
    <div>
      <Problem error={error} />
      {numbers.length > 0 && (
        <ul aria-label="Numbers of the error">
          {numbers.map((number) => (
            <li key={number.phone_number_id}>
              <NumberLink {...number} />
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function numbersIn(error: unknown) {
  const problem = error instanceof PatchbayError ? error.problem : undefined;
  if (problem?.code === 'integration_in_use') return problem.references;
  if (problem?.code === 'phone_number_assigned') return problem.phone_numbers ?? [];
  return problem?.code === 'invalid_reassign_target' ? problem.phone_numbers : [];
}
