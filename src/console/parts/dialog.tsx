import type { PropsWithChildren } from 'hono/jsx';
import { useEffect, useId, useRef } from 'hono/jsx/dom';

interface DialogProps {
  title: string;
  /** The user leaves it, by its button or by Escape. */
  onClose: () => void;
  /** Whether what it does is under way: it cannot be taken back, so the dialog stays. */
  isBusy?: boolean;
  /** Text of the button that leaves it, which has the focus at first; without one there is none. */
  closeText?: string;
}

/** A modal dialog. The focus goes back to where it was. */
export function Dialog({ title, onClose, isBusy = false, closeText, children }: PropsWithChildren<DialogProps>) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  const close = () => isBusy || onClose();
  useEffect(() => {
    const dialog = element.current;
    if (dialog?.isConnected === true) dialog.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={element}
      aria-labelledby={id}
      onKeyDown={(event: KeyboardEvent) => {
        if (event.key !== 'Escape') return;
        // Chromium cancels only once: the second Escape would close it under our feet.
        event.preventDefault();
        close();
      }}
      onCancel={(event: Event) => {
        event.preventDefault();
        close();
      }}
    >
      <article>
        <h2 id={id}>{title}</h2>
        {children}
        {closeText !== undefined && (
          <div class="actions">
            <button type="button" class="secondary" autofocus disabled={isBusy} onClick={onClose}>
              {closeText}
            </button>
          </div>
        )}
      </article>
    </dialog>
  );
}
