/** What the suites found, as tables for people and as JSON for machines. */

export type Row = Readonly<Record<string, string | number>>;

export interface Table {
  title: string;
  rows: Row[];
}

/** One demand, and what was measured. */
export interface Verdict {
  what: string;
  measured: number;
  bound: 'at least' | 'at most';
  target: number;
  met: boolean;
}

/** What a suite found. */
export interface Findings {
  tables: Table[];
  verdicts: Verdict[];
}

/** What the suites are told. */
export interface Settings {
  /** Instead of a suite's own number. */
  rounds: number | undefined;
  kvMs: number;
  kvWriteMs: number;
  d1Ms: number;
  d1BusyMs: number;
}

export const atLeast = (what: string, measured: number, target: number): Verdict => ({
  what,
  measured,
  bound: 'at least',
  target,
  met: measured >= target,
});

export const atMost = (what: string, measured: number, target: number): Verdict => ({
  what,
  measured,
  bound: 'at most',
  target,
  met: measured <= target,
});

/** Fewer digits are easier to read, and more would be noise. */
export function round(value: number): number {
  return Number(value.toPrecision(3));
}

/** With no more digits than a figure is worth. */
export const shown = (value: string | number) => (typeof value === 'number' ? String(roundLarge(value)) : value);
const roundLarge = (value: number) => (Math.abs(value) >= 100 ? Math.round(value) : round(value));

/** The table as text, its numbers to the right. */
export function formatTable({ title, rows }: Table): string {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = rows.map((row) => names.map((name) => row[name] ?? ''));
  const widths = names.map((name, column) =>
    Math.max(name.length, ...cells.map((line) => shown(line[column] ?? '').length)),
  );
  const line = (values: (string | number)[], isNumber: (column: number) => boolean) =>
    values
      .map((value, column) => {
        const width = widths[column] ?? 0;
        return isNumber(column) ? shown(value).padStart(width) : shown(value).padEnd(width);
      })
      .join('  ')
      .trimEnd();
  const isNumber = (column: number) => cells.some((values) => typeof values[column] === 'number');
  return [title, line(names, isNumber), ...cells.map((values) => line(values, isNumber))].join('\n');
}

export const formatVerdicts = (verdicts: Verdict[]) =>
  formatTable({
    title: 'What must show',
    rows: verdicts.map(({ what, measured, bound, target, met }) => ({
      what,
      measured,
      target: `${bound} ${target}`,
      '': met ? 'met' : 'MISSED',
    })),
  });
