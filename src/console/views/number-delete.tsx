import { unwrap } from 'patchbay-client';
import { codeOf, useAct } from '../act.ts';
import { comparable, differences } from '../number-fields.ts';
import type { NumberProps, PhoneNumber } from '../numbers.ts';
import { ActButton } from '../parts/act-button.tsx';
import { ChangedSince } from '../parts/changed.tsx';
import { Dialog } from '../parts/dialog.tsx';
import { notify } from '../parts/notice.tsx';
import { Problem } from '../parts/problem.tsx';
import { goTo } from '../route.ts';
import { useState } from '../state.ts';

/** A button, and the dialog that it opens. */
export function DeleteNumber({ session, number, etag, reload, integrations }: NumberProps) {
  const { phone_number_id, phone_number, assigned_agent_id } = number;
  const [isOpen, setOpen] = useState(false);
  // What was shown when a delete was refused because of a change.
  const [seen, setSeen] = useState<PhoneNumber | undefined>(undefined);
  const act = useAct(async (tag: string, headers) => {
    const path = session.api['phone-numbers'][':phone_number_id'];
    try {
      return await unwrap(path.$delete({ param: { phone_number_id } }, { headers: { ...headers, 'If-Match': tag } }));
    } catch (error) {
      if (codeOf(error) === 'precondition_failed') {
        setSeen(number);
        reload();
      }
      throw error;
    }
  });

  async function remove() {
    const deleted = await act.run(etag);
    if (!deleted) return;
    notify(`${phone_number} is deleted.`);
    if (act.isShown()) goTo(['numbers']);
  }
  function close() {
    setOpen(false);
    setSeen(undefined);
    act.reset();
  }

  const wasChanged = codeOf(act.error) === 'precondition_failed';
  return (
    <div>
      <button type="button" class="danger" onClick={() => setOpen(true)}>
        Delete
      </button>
      {isOpen && (
        <Dialog title={`Delete ${phone_number}`} closeText="Keep it" onClose={close} isBusy={act.isBusy}>
          {wasChanged && seen && <ChangedSince fields={differences(comparable, seen, number, integrations.value)} />}
          {!wasChanged && <Problem error={act.error} />}
          {assigned_agent_id === null ? (
            <>
              <p>
                No calls reach it through this service any more, and another organization may import it. At its provider
                nothing changes.
              </p>
              <ActButton act={act} kind="danger" onAct={remove}>
                Delete the number
              </ActButton>
            </>
          ) : (
            <p>
              <code>{assigned_agent_id}</code> holds it, so it cannot be deleted. Free it first: empty its agent, and
              save.
            </p>
          )}
        </Dialog>
      )}
    </div>
  );
}
