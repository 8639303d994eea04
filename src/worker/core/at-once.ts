/**
 * Acts on each item, on at most `concurrency` of them at once. It is our own, because p-map would take 1 of the bundle's
 * 100 KiB.
 *
 * @throws the first error; nothing begins after it
 */
export async function atOnce<Item>(
  concurrency: number,
  items: Iterable<Item>,
  act: (item: Item) => Promise<unknown>,
): Promise<void> {
  // A generator that all share: an error closes it.
  const left = (function* () {
    yield* items;
  })();
  const lane = async () => {
    for (const item of left) await act(item);
  };
  await Promise.all(Array.from({ length: concurrency }, lane));
}
