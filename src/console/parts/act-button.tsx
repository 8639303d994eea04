import type { PropsWithChildren } from 'hono/jsx';

interface ActButtonProps {
  act: { isBusy: boolean };
  /** Its classes. */
  kind?: 'secondary' | 'small secondary' | 'danger' | '';
  /** Its name, where its text says too little. */
  label?: string;
  onAct: () => Promise<unknown>;
}

/** A button that acts, once at a time. It stays enabled meanwhile, so that it keeps the focus. */
export const ActButton = ({ act, kind = 'secondary', label, onAct, children }: PropsWithChildren<ActButtonProps>) => (
  <button
    type="button"
    class={kind}
    {...(label === undefined ? {} : { 'aria-label': label })}
    aria-busy={act.isBusy ? 'true' : 'false'}
    onClick={() => void (act.isBusy || onAct())}
  >
    {children}
  </button>
);
