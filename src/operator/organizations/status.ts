/** What a command reads of an organization before it acts, and what it throws if the organization does not allow it. */
import { query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { organizations } from '../../worker/d1/schema.ts';
import { isOrganization } from '../../worker/organizations/organization.ts';

/** An offboarded organization cannot be given anything again. */
export class OffboardedError extends Error {
  constructor(organization_id: string) {
    super(`${organization_id} is offboarded, for good`);
    this.name = 'OffboardedError';
  }
}

/** The organization has changed since the command looked at it. */
export class ChangedMeanwhileError extends Error {
  constructor(organization_id: string) {
    super(`${organization_id} was changed meanwhile`);
    this.name = 'ChangedMeanwhileError';
  }
}

export const readStatus = query((db, parameters: Placeholders<{ organization_id: string }>) =>
  db
    .select({ status: organizations.status, change_count: organizations.change_count })
    .from(organizations)
    .where(isOrganization(parameters)),
);
