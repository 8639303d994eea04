/**
 * State of components. Hono's own has two traps: an effect waits for the next frame, and runs twice if its component renders
 * again before; and a component that is gone is shown again when its state is set twice.
 */
import { useLayoutEffect, useRef, useState as useHonoState } from 'hono/jsx/dom';

/** Runs at once when a dependency changes, and cleans up when it changes again or the component goes. */
export const useEffectAtOnce = useLayoutEffect;

/** Whether the component is still there. */
export function useIsShown(): () => boolean {
  const isShown = useRef(true);
  useEffectAtOnce(
    () => () => {
      isShown.current = false;
    },
    [],
  );
  return () => isShown.current;
}

/** A value of a component; what is gone keeps its last one. */
export function useState<Value>(
  initial: Value | (() => Value),
): [value: Value, set: (next: Value | ((present: Value) => Value)) => void] {
  const [value, set] = useHonoState(initial);
  const isShown = useIsShown();
  return [value, (next) => isShown() && set(next)];
}
