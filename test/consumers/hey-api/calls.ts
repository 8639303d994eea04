import { credentials } from '../calls.ts';
import type { MakeCalls } from '../calls.ts';
import { client } from './generated/client.gen.ts';
import { createIntegration, deleteIntegration, importPhoneNumber, updatePhoneNumber } from './generated/sdk.gen.ts';

export const makeCalls: MakeCalls = ({ url, apiKey, organizationId }) => {
  client.setConfig({ baseUrl: url, auth: apiKey });
  const headers = { 'X-Organization-Id': organizationId };
  return {
    async createIntegration(name) {
      const { data } = await createIntegration({ headers, body: { name, credentials } });
      return data?.data.integration_id ?? '';
    },
    async importNumber(integration_id, phone_number) {
      const { data } = await importPhoneNumber({
        headers,
        query: { verify: 'false' },
        body: { provider: 'twilio', integration_id, phone_number },
      });
      return data?.data.phone_number_id ?? '';
    },
    async reassign(phone_number_id, integration_id) {
      const { response } = await updatePhoneNumber({
        headers,
        path: { phone_number_id },
        query: { verify: 'false' },
        body: { integration_id },
      });
      return { status: response?.status ?? 0 };
    },
    async deleteIntegration(integration_id) {
      const { error, response } = await deleteIntegration({ headers, path: { integration_id } });
      if (error?.code !== 'integration_in_use') return { status: response?.status ?? 0 };
      return { status: error.status, references: error.references.map(({ phone_number }) => phone_number) };
    },
  };
};
