import { sessionState } from '../session.ts';
import { store, useStore } from '../store.ts';

const notice = store('');

/** Tells what was done, to the eye and to a screen reader. It stays until the next one, or until it is dismissed. */
export const notify = (text: string) => notice.set(text);

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
