import createClient from 'openapi-fetch';
import { credentials } from '../calls.ts';
import type { MakeCalls } from '../calls.ts';
import type { paths } from './generated/schema.ts';

export const makeCalls: MakeCalls = ({ url, apiKey, organizationId }) => {
  const client = createClient<paths>({ baseUrl: url, headers: { 'X-API-Key': apiKey } });
  const header = { 'X-Organization-Id': organizationId };
  return {
    async createIntegration(name) {
      const { data } = await client.POST('/api/integrations', { params: { header }, body: { name, credentials } });
      return data?.data.integration_id ?? '';
    },
    async importNumber(integration_id, phone_number) {
      const { data } = await client.POST('/api/phone-numbers', {
        params: { header, query: { verify: 'false' } },
        body: { provider: 'twilio', integration_id, phone_number },
      });
      return data?.data.phone_number_id ?? '';
    },
    async reassign(phone_number_id, integration_id) {
      const { response } = await client.PUT('/api/phone-numbers/{phone_number_id}', {
        params: { header, path: { phone_number_id }, query: { verify: 'false' } },
        body: { integration_id },
      });
      return { status: response.status };
    },
    async deleteIntegration(integration_id) {
      const { error, response } = await client.DELETE('/api/integrations/{integration_id}', {
        params: { header, path: { integration_id } },
      });
      if (error?.code !== 'integration_in_use') return { status: response.status };
      return { status: error.status, references: error.references.map(({ phone_number }) => phone_number) };
    },
  };
};
