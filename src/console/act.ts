/** What views do. */
import { useRef } from 'hono/jsx/dom';
import { PatchbayError } from 'patchbay-client';
import { useIsShown, useState } from './state.ts';

/** A new random Idempotency-Key. */
const newIdempotencyKey = () => crypto.getRandomValues(new Uint32Array(4)).join('-');

export interface Act<Input, Output> {
  isBusy: boolean;
  /** What refused the last try. */
  error: unknown;
  /** What it came to, or undefined if it failed. The same input after a failure is sent under the same Idempotency-Key. */
  run: (input: Input) => Promise<Output | undefined>;
  /** Forgets the error. */
  reset: () => void;
  /** Whether the component that acts is still there: who has left is not led elsewhere. */
  isShown: () => boolean;
}

/** A mutation: it acts once, however often it has to be sent. */
export function useAct<Input, Output>(
  send: (input: Input, headers: { 'Idempotency-Key': string }) => Promise<Output>,
): Act<Input, Output> {
  const [{ isBusy, error }, setState] = useState<{ isBusy: boolean; error?: unknown }>({ isBusy: false });
  const isShown = useIsShown();
  /** The Idempotency-Keys of what failed, by the input. */
  const failed = useRef<Map<string, string>>(new Map());
  return {
    isBusy,
    error,
    isShown,
    reset: () => isBusy || setState({ isBusy: false }),
    async run(input) {
      const text = JSON.stringify(input) ?? '';
      const keys = failed.current ?? new Map<string, string>();
      const key = keys.get(text) ?? newIdempotencyKey();
      keys.set(text, key);
      setState({ isBusy: true });
      try {
        const output = await send(input, { 'Idempotency-Key': key });
        keys.clear();
        setState({ isBusy: false });
        return output;
      } catch (reason) {
        setState({ isBusy: false, error: reason });
        return undefined;
      }
    },
  };
}

/** The code of the error, if the API refused a call. */
export const codeOf = (error: unknown) => (error instanceof PatchbayError ? error.code : undefined);
