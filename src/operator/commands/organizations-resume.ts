import { runOrganizationCommand } from '../command-line/organization-command.ts';
/** `npm run organizations:resume`: makes a suspended organization's keys work again. */
import { resumeOrganization } from '../organizations/suspend.ts';

await runOrganizationCommand('organizations:resume', {
  from: 'suspended',
  effect: 'This makes its keys work again, at once.',
  act: async (database, organization_id) =>
    (await resumeOrganization(database, organization_id)) && `${organization_id} is active.`,
});
