/** What the dev server shows of the lines that wrangler and the Worker print. */
import { inspect } from 'node:util';
import * as z from 'zod';

/** A line of the Worker's log. Wrangler puts a mark of its own before warnings and errors. */
const logLine = /^(?:\W+\[(?:WARNING|ERROR)\] )?(\{"event":.+\})$/;
const requestLine = /^\[wrangler:info\] (\S+) (\S+) (\d{3}) .*\((\d+)ms\)$/;

const logEntry = z.looseObject({ event: z.string() });

/**
 * The line as it is shown, undefined if it is not. Requests are shown as wrangler tells of them, because only wrangler
 * knows the path and the time; with `jsonLogs` they are shown as the Worker logs them.
 */
export function shownLine(line: string, jsonLogs: boolean): string | undefined {
  const [, entry] = logLine.exec(line) ?? [];
  if (entry !== undefined) return jsonLogs ? entry : inWords(entry);
  const [isRequest, method, path, status, milliseconds] = requestLine.exec(line) ?? [];
  if (isRequest !== undefined) return jsonLogs ? undefined : `${method} ${path} ${status} ${milliseconds} ms`;
  return line.trim() === '' ? undefined : line;
}

function inWords(entry: string): string | undefined {
  const { event, ...fields } = logEntry.parse(JSON.parse(entry));
  return event === 'request' ? undefined : `${event} ${inspect(fields, { breakLength: Infinity, depth: null })}`;
}
