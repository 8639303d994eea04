import { codeOf, useAct } from '../act.ts';
import { nameIn } from '../integrations.ts';
import { withTag } from '../load.ts';
import { changesOf, comparable, differences, labels, secrets } from '../number-fields.ts';
import type { Changes } from '../number-fields.ts';
import { readNumber } from '../numbers.ts';
import type { NumberProps, PhoneNumber } from '../numbers.ts';
import { Changed } from '../parts/changed.tsx';
import { CheckField, Form, SelectField, TextField } from '../parts/form.tsx';
import { notify } from '../parts/notice.tsx';
import { SipFields } from '../parts/sip.tsx';
import { wrongAgent } from '../rules.ts';
import { useState } from '../state.ts';

interface Request {
  changes: Changes;
  verify: boolean;
  /** Of the number that the changes were meant for. */
  tag: string;
}

interface Conflict extends Request {
  theirs: PhoneNumber;
}

type Seen = Pick<NumberProps, 'number' | 'etag'>;

/** Changes a number; what somebody else has changed meanwhile is not overwritten unseen. */
export function EditNumber({ number, etag, ...props }: NumberProps) {
  // What is entered is meant for the number as it was then, whatever is loaded meanwhile.
  const [seen, setSeen] = useState<Seen>({ number, etag });
  return <Edit key={seen.etag} {...props} {...seen} onSeen={setSeen} />;
}

function Edit({ session, number, etag, reload, integrations, onSeen }: NumberProps & { onSeen: (seen: Seen) => void }) {
  const { api } = session;
  const { phone_number_id, integration_id } = number;
  const [isMoved, setMoved] = useState(false);
  const [conflict, setConflict] = useState<Conflict | undefined>(undefined);
  const act = useAct(async ({ changes, verify, tag }: Request, headers) => {
    const given = { param: { phone_number_id }, json: changes, query: { verify } };
    try {
      return await withTag(
        api['phone-numbers'][':phone_number_id'].$put(given, { headers: { ...headers, 'If-Match': tag } }),
      );
    } catch (error) {
      if (codeOf(error) === 'precondition_failed') {
        const theirs = await readNumber(api, phone_number_id);
        setConflict({ changes, verify, tag: theirs.etag, theirs: theirs.body.data });
      }
      throw error;
    }
  });

  async function save(request: Request) {
    if (Object.keys(request.changes).length === 0) return notify('Nothing differs, so nothing was sent.');
    const saved = await act.run(request);
    if (!saved) return;
    const { body, etag: tag } = saved;
    onSeen({ number: body.data, etag: tag });
    notify(`${body.data.phone_number} is changed.`);
    reload();
  }

  const isConflict = codeOf(act.error) === 'precondition_failed';
  return (
    <div>
      <Form
        act={isConflict ? { ...act, error: undefined } : act}
        submit="Save"
        onSubmit={(values) =>
          void save({ changes: changesOf(values, number), verify: !values.has('unasked'), tag: etag })
        }
      >
        <TextField
          name="assigned_agent_id"
          label="Agent"
          value={number.assigned_agent_id ?? ''}
          placeholder="agent_…"
          hint="Without an agent the number is free."
          check={wrongAgent}
        />
        {integration_id !== null && (
          <div>
            <SelectField
              name="integration_id"
              label="Integration"
              value={integration_id}
              options={[
                [integration_id, nameIn(integrations.value, integration_id)],
                ...(integrations.value ?? [])
                  .filter((integration) => integration.integration_id !== integration_id)
                  .map((integration) => [integration.integration_id, integration.name] as const),
              ]}
              onChoose={(chosen) => setMoved(chosen !== integration_id)}
            />
            {isMoved && (
              <CheckField
                name="unasked"
                label="Do not ask the new account whether it holds the number"
                hint="The number is then unconfirmed, until it is asked about."
              />
            )}
          </div>
        )}
        <CheckField name="supports_inbound" label="Supports inbound calls" checked={number.supports_inbound} />
        <CheckField name="supports_outbound" label="Supports outbound calls" checked={number.supports_outbound} />
        {number.provider === 'sip' && <SipFields number={number} />}
      </Form>
      {isConflict && conflict && (
        <Changed
          fields={[
            ...differences(
              comparable.filter((name) => name in conflict.changes),
              conflict.changes,
              conflict.theirs,
              integrations.value,
            ),
            ...secrets
              .filter((name) => name in conflict.changes)
              .map((name) => ({
                name: labels[name],
                mine: conflict.changes[name] === null ? 'removed' : 'a new one',
                theirs: 'not shown',
              })),
          ]}
          isBusy={act.isBusy}
          onKeepMine={() => void save(conflict)}
          onTakeTheirs={() => {
            onSeen({ number: conflict.theirs, etag: conflict.tag });
            reload();
          }}
        />
      )}
    </div>
  );
}
