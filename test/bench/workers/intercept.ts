/** Bindings whose calls can be delayed and counted. */

/** Makes a call of a method, or does something about it. */
export type Around = (method: string, call: () => Promise<unknown>, parameters: unknown[]) => Promise<unknown>;

/** What only makes a statement or a session, and asks nothing of the network. */
const makers = new Set(['prepare', 'bind', 'withSession']);
const getters = new Set(['getBookmark']);

/** @param binding a KV namespace, or a D1 database, its sessions and statements with it */
export function intercept<Binding extends object>(binding: Binding, around: Around): Binding {
  return new Proxy(binding, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== 'function' || typeof name === 'symbol') return member;
      return (...parameters: unknown[]) => {
        if (makers.has(name)) return intercept(Reflect.apply(member, target, parameters), around);
        if (getters.has(name)) return Reflect.apply(member, target, parameters);
        return around(name, () => Reflect.apply(member, target, parameters), parameters);
      };
    },
  });
}
