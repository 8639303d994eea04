/** What views do. */
import { useRef, useState } from 'hono/jsx/dom';
import { PatchbayError } from 'patchbay-client';

/** A new random Idempotency-Key. */
export const newIdempotencyKey = () => crypto.getRandomValues(new Uint32Array(4)).join('-');

export interface Act<Input, Output> {
  isBusy: boolean;
  /** What refused the last try. */
  error: unknown;
  /** What it came to, or undefined if it failed. The same input after a failure is sent under the same Idempotency-Key. */
  run: (input: Input) => Promise<Output | undefined>;
  /** Forgets the error. */
  reset: () => void;
}

/** A mutation: it acts once, however often it has to be sent. */
export function useAct<Input, Output>(
  send: (input: Input, headers: { 'Idempotency-Key': string }) => Promise<Output>,
): Act<Input, Output> {
  const [{ isBusy, error }, setState] = useState<{ isBusy: boolean; error?: unknown }>({ isBusy: false });
  const failed = useRef<{ input: string; key: string } | null>(null);
  return {
    isBusy,
    error,
    reset: () => setState({ isBusy: false }),
    async run(input) {
      const text = JSON.stringify(input) ?? '';
      const key = failed.current?.input === text ? failed.current.key : newIdempotencyKey();
      failed.current = { input: text, key };
      setState({ isBusy: true });
      try {
        const output = await send(input, { 'Idempotency-Key': key });
        failed.current = null;
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
