import type { Endpoint } from '../webhooks.ts';
import { Badge } from './status.tsx';
import { Age, Time } from './time.tsx';

/** Whether events are sent to an endpoint, and whether they arrive. */
export const EndpointState = ({ enabled, verified_at, failing_since, last_error }: Endpoint) => (
  <>
    {!enabled && <Badge tone="neutral" text="disabled" />}
    {enabled && verified_at === null && <Badge tone="warning" text="waiting for a test" />}
    {enabled && verified_at !== null && failing_since === null && <Badge tone="good" text="sends" />}{' '}
    {failing_since !== null && (
      <>
        <Badge tone="bad" text="failing" /> since <Time value={failing_since} />. {last_error}
      </>
    )}
  </>
);

export const EventPatterns = ({ events }: Endpoint) => (
  <>{events.flatMap((pattern) => [<code key={pattern}>{pattern}</code>, ' '])}</>
);

interface OutcomeProps {
  /** Null: there was no answer. */
  status: number | null;
  milliseconds: number | null;
  error: string | null;
  time: string;
}

/** What came of a message that was sent. */
export const Outcome = ({ status, milliseconds, error, time }: OutcomeProps) => (
  <>
    {error ?? `The answer had status ${status}.`} It took {milliseconds?.toLocaleString()} ms, <Age value={time} />.
  </>
);

export const TestOutcome = ({ test }: { test: NonNullable<Endpoint['last_test']> }) => (
  <>
    {test.succeeded ? <Badge tone="good" text="answered" /> : <Badge tone="bad" text="failed" />}{' '}
    <Outcome status={test.response_status} milliseconds={test.duration_ms} error={test.error} time={test.tested_at} />
  </>
);
