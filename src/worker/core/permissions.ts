import { roles } from './vocabulary.ts';
import type { Role } from './vocabulary.ts';

/** The roles that have each permission. docs/contract.md names the permission of each call. */
export const rolesHolding = {
  'integrations:create': ['admin', 'agent_manager'],
  'integrations:read': ['admin', 'agent_manager', 'user'],
  'integrations:update': ['admin', 'agent_manager'],
  'integrations:delete': ['admin', 'agent_manager'],
  'phone_numbers:create': ['admin', 'agent_manager'],
  'phone_numbers:read': ['admin', 'agent_manager', 'user'],
  'phone_numbers:update': ['admin', 'agent_manager'],
  'phone_numbers:delete': ['admin', 'agent_manager'],
  'api_keys:create': ['admin', 'agent_manager'],
  'api_keys:read': ['admin', 'agent_manager'],
  'api_keys:update': ['admin', 'agent_manager'],
  'api_keys:rotate': ['admin', 'agent_manager'],
  'api_keys:revoke': ['admin', 'agent_manager'],
  'audit:read': ['admin'],
  'webhooks:create': ['admin'],
  'webhooks:read': ['admin'],
  'webhooks:update': ['admin'],
  'webhooks:delete': ['admin'],
} as const satisfies Record<string, readonly Role[]>;

export type Permission = keyof typeof rolesHolding;

export function holds(role: Role, permission: Permission): boolean {
  return rolesHolding[permission].some((holder) => holder === role);
}

export const permissionsOf = (role: Role): Permission[] => permissions.filter((permission) => holds(role, permission));

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Object.keys knows only strings
const permissions = Object.keys(rolesHolding) as Permission[];

/** Whether one role is higher than another. */
export function isAbove(role: Role, other: Role): boolean {
  return roles.indexOf(role) < roles.indexOf(other);
}

/** What an operator key may do. A key has a list of its own. */
export const operatorPermissions = [
  'organizations:create',
  'organizations:read',
  'organizations:suspend',
  'organizations:offboard',
  'keys:mint',
  'numbers:release',
  'audit:read',
] as const;
export type OperatorPermission = (typeof operatorPermissions)[number];
