import { useEffectAtOnce, useState } from './state.ts';

/** A value that components follow. */
export interface Store<Value> {
  get: () => Value;
  set: (next: Value) => void;
  subscribe: (listener: () => void) => () => void;
}

export function store<Value>(initial: Value): Store<Value> {
  let value = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of listeners) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export function useStore<Value>(followed: Store<Value>): Value {
  const [value, setValue] = useState(followed.get);
  useEffectAtOnce(() => {
    const follow = () => setValue(() => followed.get());
    follow();
    return followed.subscribe(follow);
  }, [followed]);
  return value;
}
