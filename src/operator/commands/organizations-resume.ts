/** `npm run organizations:resume`: makes a suspended organization's keys work again. */
import { runOrganizationCommand } from '../command-line/organization-command.ts';

await runOrganizationCommand('organizations:resume', {
  from: 'suspended',
  effect: 'This makes its keys work again, at once.',
  async act(database, organization_id) {
    const { resumeOrganization } = await import('../organizations/suspend.ts');
    return (await resumeOrganization(database, organization_id)) && `${organization_id} is active.`;
  },
});
