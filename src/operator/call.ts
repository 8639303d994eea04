import type { Call } from '../worker/decision/call.ts';

/** A call by an operator's command. */
export function operatorCall(organization_id: string): Call {
  return { organization_id, actor: { type: 'operator', id: null, name: null }, request_id: crypto.randomUUID() };
}
