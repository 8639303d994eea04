/** `npm run organizations:resume`: brings a suspended organization's keys back. */
import { resumeOrganization } from '../organizations/suspend.ts';
import { runOrganizationCommand } from '../command-line/organization-command.ts';

await runOrganizationCommand('organizations:resume', {
  from: 'suspended',
  effect: 'Resumed, its keys are at once what they were.',
  act: async (database, organization_id) =>
    (await resumeOrganization(database, organization_id)) && `${organization_id} is active.`,
});
