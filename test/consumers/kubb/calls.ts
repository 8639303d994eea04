import { setConfig } from '@kubb/plugin-client/clients/fetch';
import { credentials } from '../calls.ts';
import type { MakeCalls } from '../calls.ts';
import { createIntegration, deleteIntegration, importPhoneNumber, updatePhoneNumber } from './generated/index.ts';

export const makeCalls: MakeCalls = ({ url, apiKey, organizationId }) => {
  // Kubb's own client does not say that what it sends is JSON.
  setConfig({ baseURL: url, headers: { 'X-API-Key': apiKey, 'Content-Type': 'application/json' } });
  const organization = { 'X-Organization-Id': organizationId };
  return {
    async createIntegration(name) {
      const answer = await createIntegration({ name, credentials }, organization);
      return answer.data.data.integration_id;
    },
    async importNumber(integration_id, phone_number) {
      const answer = await importPhoneNumber({ provider: 'twilio', integration_id, phone_number }, organization, {
        verify: 'false',
      });
      return answer.data.data.phone_number_id;
    },
    async reassign(phone_number_id, integration_id) {
      const { status } = await updatePhoneNumber(phone_number_id, { integration_id }, organization, {
        verify: 'false',
      });
      return { status };
    },
    async deleteIntegration(integration_id) {
      const answer = await deleteIntegration(integration_id, organization);
      return { status: answer.status };
    },
  };
};
