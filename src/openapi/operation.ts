/**
 * Describes what the route of an operation cannot say itself. Nothing of this folder is in the Worker:
 * `npm run openapi` makes the document, and it is served as a file.
 */
import * as z from 'zod';
import type { ProblemCode } from '../worker/core/errors.ts';
import { agentIdPattern } from '../worker/core/ids.ts';
import type { Pagination } from '../worker/d1/list.ts';
import type { HeaderName } from './headers.ts';
import { nameOf, named } from './json-schema.ts';

/** The status and body of a success, with an example. */
interface Answer {
  status: 200 | 201 | 202;
  schema: z.ZodType;
  example: unknown;
  /** What a dry run answers instead. */
  dryRun?: Answer;
}

export interface OperationDescription {
  operationId: string;
  tag: string;
  summary: string;
  description?: string;
  /** The name of the body's schema, and examples of bodies that are accepted, by name. */
  body?: {
    name: string;
    examples: Record<string, object>;
    /** One that is refused, if an empty one is accepted. */
    refused?: object;
  };
  answer: Answer;
  /** Headers of the success that only this operation has. */
  headers?: HeaderName[];
  /** The problems of this operation that its route does not imply. */
  problems?: ProblemCode[];
}

/** Descriptions by method and path, as in `GET /api/integrations/{integration_id}`. */
export type Operations = Record<string, OperationDescription>;

const paginationSchema = z
  .object({
    next_cursor: z
      .string()
      .nullable()
      .meta({ description: 'Opaque; null on the last page, unless the list is followed with `after`.' }),
    has_more: z.boolean(),
    page_size: z.int().min(1).max(100),
    total_count: z.int().min(0).max(1000).meta({ description: 'Counted with the first page; at most 1,000.' }),
    total_count_exact: z.boolean().meta({ description: 'False if there are more than `total_count`.' }),
  })
  .meta({ id: 'Pagination' }) satisfies z.ZodType<Pagination>;

/** One entity, which has a name. */
export function entity(data: z.ZodType, example: unknown): Answer {
  return {
    status: 200,
    schema: named(`${nameOf(data)}Answer`, z.object({ success: z.literal(true), data })),
    example: { success: true, data: example },
  };
}

/**
 * A page of entities, which have a name.
 *
 * @param name of the entities, if it is not that of their schema
 */
export function page(data: z.ZodType, example: unknown, name = nameOf(data)): Answer {
  return {
    status: 200,
    schema: named(
      `${name}Page`,
      z.object({ success: z.literal(true), data: z.array(data), pagination: paginationSchema }),
    ),
    example: {
      success: true,
      data: [example],
      pagination: { next_cursor: null, has_more: false, page_size: 20, total_count: 1, total_count_exact: true },
    },
  };
}

/** A page of entities that are not counted. */
export function pageWithoutCount(data: z.ZodType, example: unknown): Answer {
  const pagination = paginationSchema.omit({ total_count: true, total_count_exact: true });
  return {
    status: 200,
    schema: named(
      `${nameOf(data)}Page`,
      z.object({
        success: z.literal(true),
        data: z.array(data),
        pagination: named('PaginationWithoutCount', pagination),
      }),
    ),
    example: {
      success: true,
      data: [example],
      pagination: { next_cursor: null, has_more: false, page_size: 20 },
    },
  };
}

const messageSchema = z.string().meta({ description: 'A sentence for people.' });

/**
 * The result of an action, which has a name.
 *
 * @param messages all that `message` can be, if clients may go by it
 */
export function action(
  status: 200 | 201 | 202,
  message: string,
  data: z.ZodType,
  example: unknown,
  messages?: [string, ...string[]],
): Answer {
  const told = messages ? z.enum(messages) : messageSchema;
  return {
    status,
    schema: named(`${nameOf(data)}Result`, z.object({ success: z.literal(true), message: told, data })),
    example: { success: true, message, data: example },
  };
}

/** The answer of a call that can be a dry run. */
export function orDryRun(answer: Answer, dryRun: Answer): Answer {
  named(nameOf(answer.schema), answer.schema, 'Done');
  named(nameOf(dryRun.schema), dryRun.schema, 'Dry run');
  return { ...answer, dryRun };
}

/** An id in an answer. */
export const id = (prefix: string) => z.string().regex(new RegExp(`^${prefix}_[a-f0-9]{12}$`));

/** An agent's id in an answer. */
export const agentId = z.string().regex(agentIdPattern);

/** A time in an answer: ISO 8601 in UTC, whole seconds. */
export const time = z
  .string()
  .regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/)
  .meta({ format: 'date-time' });
