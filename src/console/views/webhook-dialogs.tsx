/** What is done with webhook endpoints. */
import { unwrap } from 'patchbay-client';
import { visibleName } from '../../worker/core/text.ts';
import { webhookEventPatterns, webhookSubjects } from '../../worker/core/vocabulary.ts';
import { useAct } from '../act.ts';
import { toUtc } from '../local-time.ts';
import { ActButton } from '../parts/act-button.tsx';
import { Dialog } from '../parts/dialog.tsx';
import { CheckField, Form, textOf, TextField } from '../parts/form.tsx';
import { showNewSecret } from '../parts/new-secret.tsx';
import { notify } from '../parts/notice.tsx';
import { OverlapField, overlapOf } from '../parts/overlap.tsx';
import { Problem } from '../parts/problem.tsx';
import { goTo } from '../route.ts';
import { faultBy } from '../rules.ts';
import type { Session } from '../session.ts';
import type { Endpoint } from '../webhooks.ts';

interface DialogProps {
  session: Session;
  onClose: () => void;
}

interface EndpointDialogProps extends DialogProps {
  endpoint: Endpoint;
  onDone: (notice: string) => void;
}

const Fields = ({ endpoint }: { endpoint?: Endpoint }) => (
  <>
    <TextField
      name="url"
      label="URL"
      isRequired
      value={endpoint?.url ?? ''}
      placeholder="https://"
      hint="A new URL gets events once it has answered a test."
    />
    <TextField
      name="description"
      label="Description"
      value={endpoint?.description ?? ''}
      check={faultBy(visibleName(200))}
    />
    <fieldset>
      <legend>Events</legend>
      <Pattern pattern="*" endpoint={endpoint} />
      <div class="filters hinted">
        {webhookSubjects.map((subject) => (
          <div key={subject}>
            {webhookEventPatterns
              .filter((pattern) => pattern.startsWith(`${subject}.`))
              .map((pattern) => (
                <Pattern key={pattern} pattern={pattern} endpoint={endpoint} />
              ))}
          </div>
        ))}
      </div>
    </fieldset>
    <CheckField
      name="enabled"
      label="Enabled"
      hint="While it is not, its events wait."
      checked={endpoint?.enabled ?? true}
    />
  </>
);

const Pattern = ({ pattern, endpoint }: { pattern: string; endpoint: Endpoint | undefined }) => (
  <CheckField name={pattern} label={pattern} checked={endpoint?.events.includes(pattern) ?? pattern === '*'} />
);

const givenBy = (values: FormData) => ({
  url: textOf(values, 'url').trim(),
  description: textOf(values, 'description') || null,
  events: webhookEventPatterns.filter((pattern) => values.has(pattern)),
  enabled: values.has('enabled'),
});

type Given = ReturnType<typeof givenBy>;

function showSecret({ secret, endpoint: { url } }: { secret?: string | undefined; endpoint: Endpoint }) {
  showNewSecret({
    what: `the secret of ${url}`,
    secret,
    withoutSecret: 'Rotate the secret again: the one that the receiver has still signs, until its overlap ends.',
    about: 'The receiver checks with it that what comes is from here.',
  });
}

export function CreateEndpoint({ session: { api }, onClose }: DialogProps) {
  const act = useAct(
    async (json: Given, headers) => (await unwrap(api['webhook-endpoints'].$post({ json }, { headers }))).data,
  );
  async function create(values: FormData) {
    const made = await act.run(givenBy(values));
    if (!made) return;
    showSecret(made);
    if (act.isShown()) goTo(['webhooks', made.endpoint.endpoint_id]);
  }
  return (
    <Dialog title="Create an endpoint" onClose={onClose} isBusy={act.isBusy}>
      <Form act={act} submit="Create endpoint" onSubmit={(values) => void create(values)} onCancel={onClose}>
        <Fields />
      </Form>
    </Dialog>
  );
}

export function EditEndpoint({ session: { api }, endpoint, onClose, onDone }: EndpointDialogProps) {
  const { endpoint_id } = endpoint;
  const act = useAct((json: Partial<Given>, headers) =>
    unwrap(api['webhook-endpoints'][':endpoint_id'].$put({ param: { endpoint_id }, json }, { headers })),
  );
  async function save(values: FormData) {
    const { url, description, events, enabled } = givenBy(values);
    const changes = {
      ...(url !== endpoint.url && { url }),
      ...(description !== endpoint.description && { description }),
      ...(events.join() !== endpoint.events.join() && { events }),
      ...(enabled !== endpoint.enabled && { enabled }),
    };
    if (Object.keys(changes).length === 0) onDone('Nothing differs, so nothing was sent.');
    else if (await act.run(changes)) onDone('The endpoint is changed.');
  }
  return (
    <Dialog title="Edit the endpoint" onClose={onClose} isBusy={act.isBusy}>
      <Form act={act} submit="Save" onSubmit={(values) => void save(values)} onCancel={onClose}>
        <Fields endpoint={endpoint} />
      </Form>
    </Dialog>
  );
}

export function RotateSecret({ session: { api }, endpoint, onClose, onDone }: EndpointDialogProps) {
  const { endpoint_id } = endpoint;
  const act = useAct(
    async (json: { overlap_seconds: number }, headers) =>
      (
        await unwrap(
          api['webhook-endpoints'][':endpoint_id']['rotate-secret'].$post(
            { param: { endpoint_id }, json },
            { headers },
          ),
        )
      ).data,
  );
  async function rotate(values: FormData) {
    const made = await act.run(overlapOf(values));
    if (!made) return;
    showSecret(made);
    onDone('The secret is rotated.');
  }
  return (
    <Dialog title="Rotate the secret" onClose={onClose} isBusy={act.isBusy}>
      <p>Until the overlap is over, all is signed with the old secret and the new one.</p>
      <Form act={act} submit="Rotate secret" onSubmit={(values) => void rotate(values)} onCancel={onClose}>
        <OverlapField hint="Long enough to bring the new secret to the receiver." />
      </Form>
    </Dialog>
  );
}

export function Replay({ session: { api }, endpoint, onClose, onDone }: EndpointDialogProps) {
  const { endpoint_id } = endpoint;
  const act = useAct((query: { since: string }, headers) =>
    unwrap(api['webhook-endpoints'][':endpoint_id'].replay.$post({ param: { endpoint_id }, query }, { headers })),
  );
  async function replay(values: FormData) {
    if (await act.run({ since: toUtc(textOf(values, 'since')) })) onDone('The events are sent again.');
  }
  return (
    <Dialog title="Send events again" onClose={onClose} isBusy={act.isBusy}>
      <Form act={act} submit="Send again" onSubmit={(values) => void replay(values)} onCancel={onClose}>
        <TextField
          name="since"
          type="datetime-local"
          label="Since"
          isRequired
          hint="In your time zone. All events since then are sent, with the ids that they had."
        />
      </Form>
    </Dialog>
  );
}

export function DeleteEndpoint({ session: { api }, endpoint, onClose }: Omit<EndpointDialogProps, 'onDone'>) {
  const act = useAct((endpoint_id: string, headers) =>
    unwrap(api['webhook-endpoints'][':endpoint_id'].$delete({ param: { endpoint_id } }, { headers })),
  );
  async function remove() {
    if (!(await act.run(endpoint.endpoint_id))) return;
    notify(`${endpoint.url} is deleted.`);
    if (act.isShown()) goTo(['webhooks']);
  }
  return (
    <Dialog title={`Delete ${endpoint.url}`} closeText="Keep it" onClose={onClose} isBusy={act.isBusy}>
      <p>Nothing is sent to it any more. Its secret and its deliveries are deleted too.</p>
      <Problem error={act.error} />
      <ActButton act={act} kind="danger" onAct={remove}>
        Delete the endpoint
      </ActButton>
    </Dialog>
  );
}
