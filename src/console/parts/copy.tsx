import { useState } from '../state.ts';

/** A button that copies. @param what its name, for `Copy request id` */
export function Copy({ value, what }: { value: string; what: string }) {
  const [said, setSaid] = useState('');
  async function copy() {
    try {
      await navigator.clipboard.writeText(value);
      setSaid('Copied');
    } catch {
      // Without TLS a page has no clipboard.
      setSaid('Select it, and copy it by hand');
    }
  }
  return (
    <span class="copy">
      <button type="button" class="small secondary" aria-label={`Copy ${what}`} onClick={() => void copy()}>
        Copy
      </button>{' '}
      <span role="status">{said}</span>
    </span>
  );
}
