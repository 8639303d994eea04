/** `npm run keys:revoke-all`: revokes every key of an organization. */
import { counted } from '../command-line/options.ts';
import { runOrganizationCommand } from '../command-line/organization-command.ts';

await runOrganizationCommand('keys:revoke-all', {
  effect: 'This revokes all its keys for good: at once for writes, within 60 s for reads. keys:create makes a new key.',
  async act(database, organization_id) {
    const { revokeAllKeys } = await import('../api-keys/revoke-all.ts');
    const revoked = await revokeAllKeys(database, organization_id);
    return `${counted(revoked, 'key')} of ${organization_id} revoked.`;
  },
});
