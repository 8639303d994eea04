/** The headers of answers, and the parameters in headers, with what each says and which answers carry it. */
import { organizationIdPattern } from '../worker/core/ids.ts';
import { REASSIGNED_HEADER, REMOVED_HEADER } from '../worker/http/answer.ts';
import { BOOKMARK_HEADER, bookmarkFormat } from '../worker/http/bookmark.ts';
import { MAX_TAGS_LENGTH, tagsFormat } from '../worker/http/entity-tags.ts';
import { referTo } from './json-schema.ts';

const policy = {
  description: 'The limits that this call counts against: `q` requests in `w` seconds.',
  schema: { type: 'string' },
  example: '"pro";q=500;w=10, "pro_mutations";q=100;w=10',
};

/** The headers of answers. A header that some answers always have, and others only sometimes, is there twice. */
export const headers = {
  'X-Request-Id': {
    description: 'Identifies the call, also in our log.',
    required: true,
    schema: { type: 'string', format: 'uuid' },
  },
  'Cache-Control': {
    description:
      'Nothing is cached. Under `/api` it is always `no-store, no-transform`: who compresses an answer on its way makes its ' +
      '`ETag` weak.',
    required: true,
    schema: { type: 'string', enum: ['no-store, no-transform', 'no-store'] },
  },
  ETag: {
    description: 'Names this state of the resource, for `If-None-Match` and `If-Match`.',
    required: true,
    schema: { type: 'string', pattern: '^"\\d+-\\d+"$' },
    example: '"3-1705314600"',
  },
  'RateLimit-Policy': { required: true, ...policy },
  RateLimit: {
    description: 'The limit that was reached. `r`, the requests that remain, is 0.',
    required: true,
    schema: { type: 'string' },
    example: '"pro";r=0',
  },
  'Accept-Encoding': {
    description: 'Where the body was compressed: what is accepted instead.',
    schema: { type: 'string', const: 'identity' },
  },
  'RateLimit-Policy.optional': { ...policy, description: `${policy.description} Absent if the caller is unknown.` },
  'Idempotency-Replayed': {
    description: 'The request was answered before, and this is the same answer.',
    schema: { type: 'string', const: 'true' },
  },
  [BOOKMARK_HEADER]: {
    description: 'The state of the database that this answer is from.',
    required: true,
    schema: { type: 'string', pattern: bookmarkFormat.source },
  },
  [REASSIGNED_HEADER]: {
    description: 'With `reassign_to`: how many phone numbers went to that integration.',
    schema: { type: 'integer', minimum: 0 },
  },
  [REMOVED_HEADER]: {
    description: 'With `remove_phone_numbers`: how many phone numbers were deleted.',
    schema: { type: 'integer', minimum: 0 },
  },
  'Retry-After': {
    description: 'How many seconds to wait.',
    required: true,
    schema: { type: 'integer', minimum: 1 },
  },
  'WWW-Authenticate': {
    description: 'The challenge that RFC 9110 requires with a 401.',
    required: true,
    schema: { type: 'string' },
  },
};

export type HeaderName = keyof typeof headers;

/** Statuses of problems that may come before the caller, and so the limit that counts, is known. */
const perhapsBeforeLimits = [500, 503];

/** The headers of a success under `/api`. */
export const headersOfSuccess = (kind: 'reads' | 'mutates', ofOperation: HeaderName[]): HeaderName[] => [
  ...always,
  ...ofOperation,
  'RateLimit-Policy',
  BOOKMARK_HEADER,
  ...(kind === 'mutates' ? (['Idempotency-Replayed'] as const) : []),
];

/** The headers of every problem with this status under `/api`. */
export function headersOfProblem(status: number): string[] {
  if (status === 401) return always;
  return [...always, perhapsBeforeLimits.includes(status) ? 'RateLimit-Policy.optional' : 'RateLimit-Policy'];
}

/** The headers of every answer. */
export const always: HeaderName[] = ['X-Request-Id', 'Cache-Control'];

export const refersToHeaders = (names: string[]) =>
  Object.fromEntries(names.map((name) => [name.replace(/\.optional$/, ''), referTo('headers', name)]));

const tags = { type: 'string', maxLength: MAX_TAGS_LENGTH, pattern: tagsFormat.source };

/** The parameters in headers. */
export const parameters = {
  OrganizationId: {
    name: 'X-Organization-Id',
    in: 'header',
    required: true,
    description: 'The organization of the API key. In answers it is called `client_id`.',
    schema: { type: 'string', pattern: organizationIdPattern.source },
  },
  Bookmark: {
    name: BOOKMARK_HEADER,
    in: 'header',
    required: false,
    description: 'The `X-D1-Bookmark` of an earlier answer. This answer is then at least as new.',
    schema: { type: 'string', pattern: bookmarkFormat.source },
  },
  // Without an example: a page that fills it in would send every request with the same key.
  IdempotencyKey: {
    name: 'Idempotency-Key',
    in: 'header',
    required: false,
    description:
      'A new random key for each request. Send the same key when you repeat a request whose answer was lost.',
    schema: { type: 'string', pattern: '^[\\x20-\\x7e]{1,255}$' },
  },
  IfMatch: {
    name: 'If-Match',
    in: 'header',
    required: false,
    description:
      'The `ETag` of the state that the request is meant for, or a list of them. If the resource has been changed since, ' +
      'nothing is done: 412. The part after the `-` does not count.',
    schema: tags,
  },
  IfNoneMatch: {
    name: 'If-None-Match',
    in: 'header',
    required: false,
    description:
      'The `ETag` of the state that you have, or a list of them. If it is still the same, the answer is a 304.',
    schema: tags,
  },
};
