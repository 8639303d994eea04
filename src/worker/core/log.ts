/** Structured logs: one JSON object a line. Nothing that a client sent in a body or a header goes in. */

interface RequestLine {
  request_id: string;
  method: string;
  /** The route's pattern, so that no id or stray path of a client's reaches the log. */
  route: string;
  organization_id: string | undefined;
  key_id: string | undefined;
  status: number;
  /** `ok` or the problem's code. */
  outcome: string;
  /** Told where the request was answered before: no audit event has this request id. */
  replayed: true | undefined;
}

export function logRequest(line: RequestLine): void {
  console.info(JSON.stringify({ event: 'request', ...line }));
}

export function logEvent(event: string, fields: Record<string, string | number>): void {
  console.info(JSON.stringify({ event, ...fields }));
}

/** What is no fault of this system, and may be somebody's attack. */
export function logWarning(event: string, fields: Record<string, string | number>): void {
  console.warn(JSON.stringify({ event, ...fields }));
}

/** What an operator has to look at: a rule of this system's own does not hold, though nothing threw. */
export function logAlert(event: string, fields: Record<string, string | number>): void {
  console.error(JSON.stringify({ event, ...fields }));
}

/** Logs an error with its causes, by name and message alone: other properties may hold bound values. */
export function logError(event: string, error: unknown, fields: { request_id?: string } = {}): void {
  console.error(JSON.stringify({ event, ...fields, errors: chain(error) }));
}

function chain(error: unknown): { name: string; message: string }[] {
  if (!(error instanceof Error)) return [];
  // Of many calls that failed together, the first tells why.
  return [
    { name: error.name, message: error.message },
    ...chain(error instanceof AggregateError ? error.errors[0] : error.cause),
  ];
}
