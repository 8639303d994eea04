/** `npm run organizations:offboard`: ends an organization for good. If it is interrupted, run it again. */
import { counted } from '../command-line/options.ts';
import { runOrganizationCommand } from '../command-line/organization-command.ts';

const labels = {
  webhook_endpoints: 'webhook endpoints',
  phone_numbers: 'phone numbers',
  integrations: 'integrations',
};

await runOrganizationCommand('organizations:offboard', {
  effect:
    'This cannot be undone. It deletes its webhook endpoints, its phone numbers and integrations with their credentials, and\n' +
    'revokes its keys. Only its audit events stay. If the command is interrupted, run it again.',
  async act(database, organization_id) {
    const { offboardOrganization } = await import('../organizations/offboard.ts');
    const ended = await offboardOrganization(database, organization_id, (step, done, total) =>
      console.log(`${labels[step]}: ${done}/${total}`),
    );
    return (
      ended &&
      `${organization_id} is offboarded: ${counted(ended.phone_numbers, 'phone number')} and ` +
        `${counted(ended.integrations, 'integration')} deleted, ${counted(ended.keys, 'key')} revoked. ` +
        'The cron removes their ciphertext.'
    );
  },
});
