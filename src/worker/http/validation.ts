/** Validates what a client sent, or throws a problem that says what is wrong. */
import type { Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { parse } from '../core/parse.ts';
import type { Noun } from '../core/parse.ts';
import type { AppEnv } from './app-env.ts';

const MAX_BODY_BYTES = 64 * 1024;

const limitBody = bodyLimit({
  maxSize: MAX_BODY_BYTES,
  onError: () => {
    throw new DomainError('payload_too_large', {});
  },
});

/**
 * A JSON body of at most 64 KiB.
 *
 * @throws DomainError `unsupported_media_type`, `payload_too_large`, `malformed_json`, `validation_failed`
 */
export async function readBody<Schema extends z.ZodMiniType>(
  schema: Schema,
  c: Context<AppEnv>,
): Promise<z.output<Schema>> {
  assertJson(c);
  let bytes = new ArrayBuffer();
  await limitBody(c, async () => {
    bytes = await c.req.arrayBuffer();
  });
  return validate(schema, parseJson(bytes));
}

/**
 * The query string of a URL. A parameter may be given once.
 *
 * @throws DomainError `validation_failed`
 */
export function readQuery<Schema extends z.ZodMiniType>(schema: Schema, url: string): z.output<Schema> {
  const start = url.indexOf('?');
  const given = new Map<string, string | string[]>();
  for (const [name, value] of start === -1 ? [] : new URLSearchParams(url.slice(start + 1))) {
    const before = given.get(name);
    if (Array.isArray(before)) before.push(value);
    else given.set(name, before === undefined ? value : [before, value]);
  }
  return validate(schema, Object.fromEntries(given), 'parameter');
}

/** @throws DomainError `unsupported_media_type` */
function assertJson(c: Context<AppEnv>): void {
  const [mediaType, ...parameters] = (c.req.header('Content-Type') ?? '')
    .toLowerCase()
    .split(';')
    .map((part) => part.trim());
  const charsets = parameters.flatMap((parameter) => /^charset\s*=\s*"?(.*?)"?$/.exec(parameter)?.slice(1) ?? []);
  const isUtf8 = charsets.every((charset) => charset === 'utf-8' || charset === 'utf8');
  const isJson = mediaType === 'application/json' && isUtf8;
  const isPlain = ['', 'identity'].includes((c.req.header('Content-Encoding') ?? '').toLowerCase());
  if (isJson && isPlain) return;
  // RFC 9110 §12.5.3 wants the header for this reason alone.
  if (isJson) c.get('headers')['Accept-Encoding'] = 'identity';
  throw new DomainError('unsupported_media_type', {});
}

/** JSON is UTF-8 (RFC 8259 §8.1). Other bytes are refused, because they would be stored as wrong characters. */
function parseJson(bytes: ArrayBuffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes));
  } catch {
    // The parser's message quotes the body.
    throw new DomainError('malformed_json', {});
  }
}

/** @throws DomainError `validation_failed` */
export function validate<Schema extends z.ZodMiniType>(
  schema: Schema,
  value: unknown,
  noun: Noun = 'field',
): z.output<Schema> {
  const parsed = parse(schema, value, noun);
  if (parsed.faults) throw new DomainError('validation_failed', { errors: parsed.faults });
  return parsed.data;
}
