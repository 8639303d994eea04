/** `npm run organizations:suspend`: stops an organization's keys until it is resumed. */
import { runOrganizationCommand } from '../command-line/organization-command.ts';

await runOrganizationCommand('organizations:suspend', {
  from: 'active',
  effect:
    'This stops its keys: at once for writes, within 60 s for reads. It keeps everything. organizations:resume undoes it.',
  async act(database, organization_id) {
    const { suspendOrganization } = await import('../organizations/suspend.ts');
    return (await suspendOrganization(database, organization_id)) && `${organization_id} is suspended.`;
  },
});
