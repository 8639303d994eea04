/** `npm run keys:revoke-all`: revokes every key of an organization. */
import { revokeAllKeys } from '../api-keys/revoke-all.ts';
import { counted } from '../command-line/options.ts';
import { runOrganizationCommand } from '../command-line/organization-command.ts';

await runOrganizationCommand('keys:revoke-all', {
  effect: 'This revokes all its keys for good: at once for writes, within 60 s for reads. keys:create makes a new key.',
  async act(database, organization_id) {
    const revoked = await revokeAllKeys(database, organization_id);
    return `${counted(revoked, 'key')} of ${organization_id} revoked.`;
  },
});
