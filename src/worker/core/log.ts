/**
 * Structured logs: one JSON object on each line. Nothing that a client sent in a body or a header is logged. Of a read by
 * another Worker, its purpose and the ids that it asked for are.
 */

interface RequestLine {
  request_id: string;
  method: string;
  /** The pattern of the route, not the path, so that no id of a client is logged. */
  route: string;
  organization_id: string | undefined;
  key_id: string | undefined;
  operator_key_id: string | undefined;
  status: number;
  /** `ok` or the problem's code. */
  outcome: string;
  /** The answer was a repeated one, so no audit event has this request id. */
  replayed: true | undefined;
}

export function logRequest(line: RequestLine): void {
  console.info(JSON.stringify({ event: 'request', ...line }));
}

/** A read of credentials by another Worker of the platform. What is not known is left out. */
interface ReadLine {
  request_id: string;
  consumer: string | undefined;
  purpose?: string;
  organization_id?: string | undefined;
  /** The integration, or the SIP number. */
  subject_id?: string | undefined;
  credentials_version?: string | undefined;
  /** `ok`, or why there are no credentials. */
  outcome: string;
}

export function logRead(line: ReadLine): void {
  console.info(JSON.stringify({ event: 'credentials_read', ...line }));
}

export function logEvent(event: string, fields: Record<string, string | number>): void {
  console.info(JSON.stringify({ event, ...fields }));
}

/** For what is not our fault, but may be an attack. */
export function logWarning(event: string, fields: Record<string, string | number>): void {
  console.warn(JSON.stringify({ event, ...fields }));
}

/** For what an operator must look at: something is wrong, although nothing threw. */
export function logAlert(event: string, fields: Record<string, string | number>): void {
  console.error(JSON.stringify({ event, ...fields }));
}

/** Logs an error and its causes by name and message only, because other properties may hold bound values. */
export function logError(event: string, error: unknown, fields: Readonly<Record<string, string>> = {}): void {
  console.error(JSON.stringify({ event, ...fields, errors: chain(error) }));
}

function chain(error: unknown): { name: string; message: string }[] {
  if (!(error instanceof Error)) return [];
  return [
    { name: error.name, message: error.message },
    // When many calls fail together, the first error is enough to say why.
    ...chain(error instanceof AggregateError ? error.errors[0] : error.cause),
  ];
}
