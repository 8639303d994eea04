interface Entry<Value> {
  value: Value;
  /** In milliseconds, as `Date.now()` tells it. */
  until: number;
}

/**
 * A map of bounded size: what has not been used for the longest time is forgotten first, and everything after `maxAge`.
 *
 * @param maxAge in milliseconds
 */
export class RecentMap<Key, Value> {
  readonly #entries = new Map<Key, Entry<Value>>();
  readonly #maxSize: number;
  readonly #maxAge: number;

  constructor(maxSize: number, maxAge = Infinity) {
    this.#maxSize = maxSize;
    this.#maxAge = maxAge;
  }

  get(key: Key): Value | undefined {
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    if (!entry || entry.until <= Date.now()) return undefined;
    // A map keeps the order of insertion.
    this.#entries.set(key, entry);
    return entry.value;
  }

  set(key: Key, value: Value): void {
    this.#entries.delete(key);
    this.#entries.set(key, { value, until: Date.now() + this.#maxAge });
    if (this.#entries.size <= this.#maxSize) return;
    for (const oldest of this.#entries.keys()) {
      this.#entries.delete(oldest);
      return;
    }
  }

  delete(key: Key): void {
    this.#entries.delete(key);
  }
}
