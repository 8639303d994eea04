import { eventParameters } from '../worker/decision/call.ts';
import type { Call } from '../worker/decision/call.ts';
import type { OperatorParameters } from '../worker/decision/operator.ts';
import { scopeOf } from '../worker/decision/remembered-answers.ts';

/** A call by an operator's command. */
export function commandCall(organization_id: string): Call {
  return { organization_id, actor: { type: 'operator', id: null, name: null }, request_id: crypto.randomUUID() };
}

/** What the statements that a command shares with operators' calls are bound to. Nothing is remembered. */
export function commandParameters(call: Call): OperatorParameters {
  return { ...eventParameters(call), ...scopeOf({}) };
}
