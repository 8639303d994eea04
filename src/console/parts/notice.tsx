import { sessionState } from '../session.ts';
import { store, useStore } from '../store.ts';

const notice = store('');
/** Whether a view was left since: many acts lead to another view, where the notice is to be read. */
let isOld = false;

/** Tells what was done, to the eye and to a screen reader. It stays in this view and the next one, or until it is dismissed. */
export function notify(text: string): void {
  isOld = false;
  notice.set(text);
}

window.addEventListener('hashchange', () => {
  if (isOld) notify('');
  isOld = true;
});

// It may name what the next user must not see.
sessionState.subscribe(() => notify(''));

export function Notice() {
  const text = useStore(notice);
  return (
    <div role="status" class="notice">
      {text !== '' && (
        <p>
          <span aria-hidden="true">✓</span> {text}{' '}
          <button type="button" class="small secondary" aria-label="Dismiss the message" onClick={() => notify('')}>
            ✕
          </button>
        </p>
      )}
    </div>
  );
}
