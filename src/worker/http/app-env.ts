/** What Hono's context holds for a request. */
import type { OperatorPermission, Permission } from '../core/permissions.ts';
import type { ApiCall, OperatorCall, Told } from '../decision/call.ts';
import type { AfterAnswer, Bindings } from '../env.ts';

/** Names and values. It is a plain object, because `c.header()` would cost one call to the platform for each header. */
export type AnswerHeaders = Record<string, string>;

/** The permission that a route demands. Null: every key may. */
export type DemandedPermission =
  | { by: 'api_key'; permission: Permission | null }
  | { by: 'operator'; permission: OperatorPermission };

export interface AppEnv {
  Bindings: Bindings;
  Variables: {
    request_id: string;
    afterAnswer: AfterAnswer;
    /** Headers of the answer, also if it is an error. */
    headers: AnswerHeaders;
    /** For the headers of the answer, also if it is an error. */
    told: Told;
    /** Set once the call has a well-formed key. */
    call: ApiCall;
    /** The same, of an operator. */
    operatorCall: OperatorCall;
    /** What the route demands; undefined until it has begun. */
    demanded: DemandedPermission | undefined;
    /** The ETags of the states that the client has; `*`: of any. Absent for a call that does not ask. */
    known: string[] | '*' | undefined;
    /** For the log line: `ok`, or the problem's code. */
    outcome: string;
  };
}
