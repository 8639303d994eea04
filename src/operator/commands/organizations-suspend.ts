import { runOrganizationCommand } from '../command-line/organization-command.ts';
/** `npm run organizations:suspend`: stops an organization's keys until it is resumed. */
import { suspendOrganization } from '../organizations/suspend.ts';

await runOrganizationCommand('organizations:suspend', {
  from: 'active',
  effect:
    'This stops its keys: at once for writes, within 60 s for reads. It keeps everything. organizations:resume undoes it.',
  act: async (database, organization_id) =>
    (await suspendOrganization(database, organization_id)) && `${organization_id} is suspended.`,
});
