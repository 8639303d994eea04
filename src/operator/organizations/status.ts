/** What a command throws if the organization does not allow what it asks. */

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
