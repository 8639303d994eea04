/** Tables of the documents that tests and benchmarks write, in the form that `npm run format` gives them. */

/**
 * @param rows by column name; every row has the columns of the first
 * @returns the table, with columns of numbers to the right
 */
export function markdownTable(rows: readonly Readonly<Record<string, string | number>>[]): string {
  const names = Object.keys(rows[0] ?? {});
  const columns = names.map((name) => {
    const cells = rows.map((row) => String(row[name] ?? ''));
    const isNumber = cells.every((cell) => /^\d+(\.\d+)?$/.test(cell));
    const width = Math.max(3, name.length, ...cells.map(({ length }) => length));
    const pad = (text: string) => (isNumber ? text.padStart(width) : text.padEnd(width));
    return { head: pad(name), rule: isNumber ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width), cells: cells.map(pad) };
  });
  const line = (cells: string[]) => `| ${cells.join(' | ')} |`;
  return [
    line(columns.map(({ head }) => head)),
    line(columns.map(({ rule }) => rule)),
    ...rows.map((_, index) => line(columns.map(({ cells }) => cells[index] ?? ''))),
  ].join('\n');
}
