import { WorkerEntrypoint } from 'cloudflare:workers';
import { runAfterAnswer } from '../core/after-answer.ts';
import { CALL_MILLISECONDS, withDeadlines } from '../core/deadlines.ts';
import type { Bindings } from '../env.ts';
import { consumerPattern } from './grants.ts';
import { readByIntegration, readByPhoneNumber } from './read.ts';
import type { ReadByPhoneNumberRequest, ReaderCall, ReadRequest, ReadResult } from './read.ts';

/**
 * Gives credentials to other Workers of the same account, by a service binding (docs/credentials-reader.md). It is not
 * reachable by HTTP.
 *
 * Only a malformed request is thrown, as a TypeError that says what is wrong. Only index.ts imports this module: the
 * commands run the others in Node, which has no `cloudflare:workers`.
 */
export class CredentialsReader extends WorkerEntrypoint<Bindings, { consumer?: unknown }> {
  /** The credentials of an integration. */
  read(request: ReadRequest): Promise<ReadResult> {
    return this.#answer((call) => readByIntegration(call, request));
  }

  /** The credentials by which calls of a phone number are placed and answered: its integration's, or its SIP trunk. */
  readByPhoneNumber(request: ReadByPhoneNumberRequest): Promise<ReadResult> {
    return this.#answer((call) => readByPhoneNumber(call, request));
  }

  async #answer(read: (call: ReaderCall) => Promise<ReadResult>): Promise<ReadResult> {
    const { ctx, env } = this;
    const { consumer } = ctx.props;
    const request_id = crypto.randomUUID();
    const tasks: (() => Promise<unknown>)[] = [];
    const result = await read({
      env: withDeadlines(env, (late) => ctx.waitUntil(late), CALL_MILLISECONDS),
      consumer: typeof consumer === 'string' && consumerPattern.test(consumer) ? consumer : undefined,
      request_id,
      afterAnswer: (task) => tasks.push(task),
    });
    if (tasks.length > 0) ctx.waitUntil(runAfterAnswer(tasks, request_id));
    return result;
  }
}
