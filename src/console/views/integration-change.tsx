import { unwrap } from 'patchbay-client';
import { codeOf, useAct } from '../act.ts';
import { readIntegration } from '../integrations.ts';
import type { Integration, TaggedIntegration } from '../integrations.ts';
import { Changed } from '../parts/changed.tsx';
import { CredentialFields, credentialsOf, VerifyField } from '../parts/credentials.tsx';
import { Dialog } from '../parts/dialog.tsx';
import { Form, TextField, textOf } from '../parts/form.tsx';
import { Problem } from '../parts/problem.tsx';
import { wrongName } from '../rules.ts';
import type { Api, Session } from '../session.ts';
/** Changes of one integration. None of them overwrites somebody else's change unseen. */
import { useState } from '../state.ts';

type Put = Api['integrations'][':integration_id']['$put'];
type Change = Required<Pick<Parameters<Put>[0], 'json' | 'query'>>;

interface ChangeProps {
  session: Session;
  /** What the change is based on. */
  seen: TaggedIntegration;
  onDone: (integration: Integration) => void;
  /** It is left without a change. */
  onLeave: () => void;
}

function useChange({ session: { api }, seen, onDone }: ChangeProps) {
  const { integration_id } = seen.body.data;
  const [conflict, setConflict] = useState<{ change: Change; now: TaggedIntegration } | undefined>(undefined);
  const act = useAct(async ({ etag, ...change }: Change & { etag: string }, headers) => {
    const input = { param: { integration_id }, ...change };
    const path = api.integrations[':integration_id'];
    try {
      return { done: await unwrap(path.$put(input, { headers: { ...headers, 'If-Match': etag } })) };
    } catch (error) {
      if (codeOf(error) !== 'precondition_failed') throw error;
      return { now: await readIntegration(api, integration_id) };
    }
  });

  async function send(change: Change, { etag }: TaggedIntegration = seen) {
    const answer = await act.run({ ...change, etag });
    if (answer?.now) setConflict({ change, now: answer.now });
    if (answer?.done) onDone(answer.done.data);
  }
  return { act, conflict, send };
}

const NO_ACCOUNT = 'not known';

export function Rename(props: ChangeProps) {
  const { act, conflict, send } = useChange(props);
  const { name } = props.seen.body.data;
  return (
    <Dialog title="Rename the integration" onClose={props.onLeave} isBusy={act.isBusy}>
      {conflict ? (
        <>
          <Changed
            fields={[
              { name: 'Name', mine: conflict.change.json.name ?? name, theirs: conflict.now.body.data.name },
              ...accountsOf(props.seen, conflict.now),
            ]}
            isBusy={act.isBusy}
            onKeepMine={() => void send(conflict.change, conflict.now)}
            onTakeTheirs={props.onLeave}
          />
          <Problem error={act.error} />
        </>
      ) : (
        <Form
          act={act}
          submit="Rename"
          onCancel={props.onLeave}
          onSubmit={(values) => void send({ json: { name: textOf(values, 'name') }, query: {} })}
        >
          <TextField name="name" label="Name" value={name} isRequired check={wrongName} />
        </Form>
      )}
    </Dialog>
  );
}

/** The accounts, if new credentials were of another one. */
const accountsOf = ({ body: { data: then } }: TaggedIntegration, { body: { data: now } }: TaggedIntegration) =>
  then.account_hint === now.account_hint
    ? []
    : [{ name: 'Account', mine: then.account_hint ?? NO_ACCOUNT, theirs: now.account_hint ?? NO_ACCOUNT }];

export function ReplaceCredentials(props: ChangeProps) {
  const { act, conflict, send } = useChange(props);
  const { provider, name } = props.seen.body.data;
  const now = conflict?.now.body.data;
  return (
    <Dialog title={`Replace the credentials of ${name}`} onClose={props.onLeave} isBusy={act.isBusy}>
      {conflict && now ? (
        <>
          <Changed
            fields={[
              {
                name: 'Credentials',
                mine: 'those you entered',
                theirs: `stored, account ${now.account_hint ?? NO_ACCOUNT}`,
              },
              ...(now.name === name ? [] : [{ name: 'Name', mine: name, theirs: now.name }]),
            ]}
            isBusy={act.isBusy}
            onKeepMine={() => void send(conflict.change, conflict.now)}
            onTakeTheirs={props.onLeave}
          />
          <Problem error={act.error} />
        </>
      ) : (
        <Form
          act={act}
          submit="Replace credentials"
          onCancel={props.onLeave}
          onSubmit={(values) =>
            void send({
              json: { credentials: credentialsOf(provider, values) },
              query: { verify: values.has('verify') },
            })
          }
        >
          <p>
            They replace the stored ones as a whole, the region too. From then on the old ones cannot be read any more.
          </p>
          <CredentialFields provider={provider} />
          <VerifyField />
        </Form>
      )}
    </Dialog>
  );
}
