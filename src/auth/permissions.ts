import type { Role } from '../schema.ts';

/** The role table: who may do what (contract.md, the permission of each call). */
export const rolesHolding = {
  'integrations:create': ['admin', 'agent_manager'],
  'integrations:delete': ['admin', 'agent_manager'],
  'phone_numbers:create': ['admin', 'agent_manager'],
} as const satisfies Record<string, readonly Role[]>;

export type Permission = keyof typeof rolesHolding;

export function holds(role: Role, permission: Permission): boolean {
  return rolesHolding[permission].some((holder) => holder === role);
}
