import { roleText } from '../key-state.ts';
import type { ApiKey } from '../key-state.ts';
import { sessionState } from '../session.ts';
import { useEffectAtOnce } from '../state.ts';
import { store, useStore } from '../store.ts';
import { Copy } from './copy.tsx';
import { Dialog } from './dialog.tsx';
import { Time } from './time.tsx';

interface NewKey {
  key: ApiKey;
  /** Undefined if the first answer was lost: nobody has seen it. */
  rawKey: string | undefined;
  /** What to do then. */
  withoutRawKey: string;
}

/** It belongs to no view: going back must not lose it. */
const newKey = store<NewKey | undefined>(undefined);
sessionState.subscribe(() => newKey.set(undefined));

export const showNewKey = (made: NewKey) => newKey.set(made);

export function NewKeyDialog() {
  const made = useStore(newKey);
  if (!made) return null;
  return made.rawKey === undefined ? <Unseen made={made} /> : <Shown apiKey={made.key} rawKey={made.rawKey} />;
}

const close = () => newKey.set(undefined);

const Unseen = ({ made: { key, withoutRawKey } }: { made: NewKey }) => (
  <Dialog title={`Nobody has seen key ${key.name}`} onClose={close} closeText="Close">
    <p>
      The key was made, but the answer that showed it was lost, and it is never shown again. {withoutRawKey} Its prefix
      is <code>{key.prefix}</code>.
    </p>
  </Dialog>
);

const stay = () => undefined;

/** Shows a raw key for the only time. */
function Shown({ apiKey: { name, role, expires_at }, rawKey }: { apiKey: ApiKey; rawKey: string }) {
  useEffectAtOnce(() => {
    const left = new AbortController();
    window.addEventListener('beforeunload', (event) => event.preventDefault(), { signal: left.signal });
    return () => left.abort();
  }, []);
  return (
    <Dialog title={`Store key ${name}`} onClose={stay}>
      <p>It is shown only now. Store it where you keep secrets.</p>
      <pre class="raw-key">{rawKey}</pre>
      <p>
        <Copy value={rawKey} what="key" />
      </p>
      <p>
        Role: {roleText(role)}. {expires_at === null ? 'It does not expire.' : 'It expires: '}
        {expires_at !== null && <Time value={expires_at} />}
      </p>
      <div class="actions">
        <button type="button" onClick={close}>
          I have stored it
        </button>
      </div>
    </Dialog>
  );
}
