/** The calls that are measured. */
import type { LoadRequest } from './load.ts';
import type { Client } from './seed.ts';

type Headers = Client['headers'];

const withBody = (headers: Headers) => ({ ...headers, 'Content-Type': 'application/json' });

export const get = (headers: Headers, integration_id: string): LoadRequest => ({
  method: 'GET',
  path: `/api/integrations/${integration_id}`,
  headers,
  status: 200,
  expected: `"integration_id":"${integration_id}"`,
});

/** For the worker that reads credentials as another Worker does. */
export const readCredentials = (organization_id: string, integration_id: string): LoadRequest => ({
  method: 'GET',
  path: `/${organization_id}/${integration_id}`,
  status: 200,
  expected: '"auth_token":"a-bench-token"',
});

export const remove = (headers: Headers, integration_id: string): LoadRequest => ({
  method: 'DELETE',
  path: `/api/integrations/${integration_id}`,
  headers,
  status: 200,
  expected: `"data":{"integration_id":"${integration_id}"`,
});

/** For an integration that numbers reference. */
export const removeInVain = (headers: Headers, integration_id: string): LoadRequest => ({
  ...remove(headers, integration_id),
  status: 409,
  expected: '"code":"integration_in_use"',
});

export const list = (headers: Headers): LoadRequest => ({
  method: 'GET',
  path: '/api/integrations?page_size=20',
  headers,
  status: 200,
  expected: '"page_size":20',
});

export const create = (headers: Headers): LoadRequest => ({
  method: 'POST',
  path: '/api/integrations',
  headers: withBody(headers),
  body: JSON.stringify({
    name: 'Twilio Production',
    credentials: { provider: 'twilio', account_sid: 'AC0123456789abcdef0123456789abcdef', auth_token: 'a-bench-token' },
  }),
  status: 201,
  expected: 'Integration created successfully',
});

export const reassign = (headers: Headers, phone_number_id: string, integration_id: string): LoadRequest => ({
  method: 'PUT',
  path: `/api/phone-numbers/${phone_number_id}?verify=false`,
  headers: withBody(headers),
  body: JSON.stringify({ integration_id }),
  status: 200,
  expected: `"integration_id":"${integration_id}"`,
});
