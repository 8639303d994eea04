import type { PropsWithChildren } from 'hono/jsx';
import { useEffect, useRef } from 'hono/jsx/dom';
import { useId } from 'hono/jsx/dom';

interface DialogProps {
  title: string;
  /** The user leaves it, by its button or by Escape. */
  onClose: () => void;
  /** Text of the button that leaves it, which has the focus at first; without one there is none. */
  closeText?: string;
}

/** A modal dialog. The focus goes back to where it was. */
export function Dialog({ title, onClose, closeText, children }: PropsWithChildren<DialogProps>) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = element.current;
    dialog?.showModal();
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
        onClose();
      }}
      onCancel={(event: Event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <article>
        <h2 id={id}>{title}</h2>
        {children}
        {closeText !== undefined && (
          <div class="actions">
            <button type="button" class="secondary" autofocus onClick={onClose}>
              {closeText}
            </button>
          </div>
        )}
      </article>
    </dialog>
  );
}
