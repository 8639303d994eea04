import type { Endpoint } from '../webhooks.ts';
import { Badge } from './status.tsx';
import { Age } from './time.tsx';

/** Whether events are sent to an endpoint, and if not, why. */
export function EndpointState({ enabled, verified_at, failing_since, last_error }: Endpoint) {
  if (!enabled) return <Badge tone="neutral" text="disabled" />;
  if (verified_at === null) return <Badge tone="warning" text="waiting for a test" />;
  if (failing_since === null) return <Badge tone="good" text="sends" />;
  return (
    <>
      <Badge tone="bad" text="failing" /> since <Age value={failing_since} />. {last_error}
    </>
  );
}

export const EventPatterns = ({ events }: Endpoint) => (
  <>{events.flatMap((pattern) => [<code key={pattern}>{pattern}</code>, ' '])}</>
);
