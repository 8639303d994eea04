const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });

const units = [
  ['year', 31_536_000],
  ['month', 2_592_000],
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
] as const;

/** How long ago, or how long until. */
export function ageOf(time: string): string {
  const seconds = (Date.parse(time) - Date.now()) / 1_000;
  const unit = units.find(([, length]) => Math.abs(seconds) >= length);
  return unit ? relative.format(Math.trunc(seconds / unit[1]), unit[0]) : 'just now';
}

const exactly = (time: string) => `${time.replace('T', ' ').replace('Z', '')} UTC`;

/** A time in the reader's zone; the exact UTC is its tooltip. */
export const Time = ({ value }: { value: string }) => (
  <time datetime={value} title={exactly(value)}>
    {full.format(new Date(value))}
  </time>
);

/** The same as an age: `3 hours ago`. */
export const Age = ({ value }: { value: string }) => (
  <time datetime={value} title={exactly(value)}>
    {ageOf(value)}
  </time>
);
