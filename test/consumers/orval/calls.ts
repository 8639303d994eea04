import { credentials } from '../calls.ts';
import type { MakeCalls } from '../calls.ts';
import { createIntegration, deleteIntegration, importPhoneNumber, updatePhoneNumber } from './generated/client.ts';

declare global {
  /** Where the generated client sends its calls; orval.config.ts names it. */
  // oxlint-disable-next-line no-var -- only a var is a member of globalThis
  var patchbayUrl: string;
}

export const makeCalls: MakeCalls = ({ url, apiKey, organizationId }) => {
  globalThis.patchbayUrl = url;
  const organization = { 'X-Organization-Id': organizationId };
  const options = { headers: { 'X-API-Key': apiKey } };
  return {
    async createIntegration(name) {
      const answer = await createIntegration({ name, credentials }, organization, undefined, options);
      return answer.status === 201 ? answer.data.data.integration_id : '';
    },
    async importNumber(integration_id, phone_number) {
      const body = { provider: 'twilio', integration_id, phone_number } as const;
      const answer = await importPhoneNumber(body, organization, { verify: 'false' }, options);
      return answer.status === 201 ? answer.data.data.phone_number_id : '';
    },
    async reassign(phone_number_id, integration_id) {
      const { status } = await updatePhoneNumber(
        phone_number_id,
        { integration_id },
        organization,
        { verify: 'false' },
        options,
      );
      return { status };
    },
    async deleteIntegration(integration_id) {
      const { status, data } = await deleteIntegration(integration_id, organization, undefined, options);
      if (status !== 409 || data.code !== 'integration_in_use') return { status };
      return { status, references: data.references.map(({ phone_number }) => phone_number) };
    },
  };
};
