/** `npm run organizations:offboard`: ends an organization, for good. Interrupted, it is run again. */
import { offboardOrganization } from '../organizations/offboard.ts';
import { counted } from '../command-line/options.ts';
import { runOrganizationCommand } from '../command-line/organization-command.ts';

const labels = { phone_numbers: 'phone numbers', integrations: 'integrations' };

await runOrganizationCommand('organizations:offboard', {
  effect:
    'Offboarded, it ends for good: its numbers and integrations are deleted with their credentials, its keys are revoked.\n' +
    'What is left is the audit trail. Interrupted, run it again.',
  async act(database, organization_id) {
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
