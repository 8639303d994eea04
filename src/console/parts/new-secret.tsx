import type { Child } from 'hono/jsx';
import { sessionState } from '../session.ts';
import { useEffectAtOnce } from '../state.ts';
import { store, useStore } from '../store.ts';
import { Copy } from './copy.tsx';
import { Dialog } from './dialog.tsx';

interface NewSecret {
  /** What it is called: `key Billing`. */
  what: string;
  /** Undefined if the first answer was lost: nobody has seen it. */
  secret: string | undefined;
  /** What to do then. */
  withoutSecret: string;
  /** What is said of it when it is shown. */
  about?: Child;
}

/** It belongs to no view: going back must not lose it. */
const newSecret = store<NewSecret | undefined>(undefined);
sessionState.subscribe(() => newSecret.set(undefined));

export const showNewSecret = (made: NewSecret) => newSecret.set(made);

export function NewSecretDialog() {
  const made = useStore(newSecret);
  if (!made) return null;
  return made.secret === undefined ? <Unseen {...made} /> : <Shown {...made} secret={made.secret} />;
}

const close = () => newSecret.set(undefined);

const Unseen = ({ what, withoutSecret }: NewSecret) => (
  <Dialog title={`Nobody has seen ${what}`} onClose={close} closeText="Close">
    <p>It was made, but the answer that showed it was lost, and it is never shown again. {withoutSecret}</p>
  </Dialog>
);

const stay = () => undefined;

/** Shows a secret for the only time. */
function Shown({ what, secret, about }: NewSecret & { secret: string }) {
  useEffectAtOnce(() => {
    const left = new AbortController();
    window.addEventListener('beforeunload', (event) => event.preventDefault(), { signal: left.signal });
    return () => left.abort();
  }, []);
  return (
    <Dialog title={`Store ${what}`} onClose={stay}>
      <p>It is shown only now. Store it where you keep secrets.</p>
      <pre class="raw-key">{secret}</pre>
      <p>
        <Copy value={secret} what={what} />
      </p>
      <p>{about}</p>
      <div class="actions">
        <button type="button" onClick={close}>
          I have stored it
        </button>
      </div>
    </Dialog>
  );
}
