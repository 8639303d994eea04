// A customer signs up, gets an integration and a number, and leaves. Start `npm run dev`, make a key with `npm run
// operators:create -- --name Example`, then: PATCHBAY_OPERATOR_KEY=bk_operator_… npm run example:provision
import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { patchbayClient, patchbayOperator, unwrap } from '../../src/client/client.ts';

const { PATCHBAY_URL = 'http://localhost:8787', PATCHBAY_OPERATOR_KEY = '' } = process.env;
const { organizations } = patchbayOperator(PATCHBAY_URL, { operatorKey: PATCHBAY_OPERATOR_KEY }).operator;

// A platform takes its own id of the sign-up, so that a repeat creates no second organization. Here it is random.
const signup = { headers: { 'Idempotency-Key': `signup-${randomUUID()}` } };
const first_key = { name: 'First', role: 'admin' } as const;
const { data: created } = await unwrap(organizations.$post({ json: { name: 'Acme', first_key } }, signup));
const { organization_id } = created;
const apiKey = created.first_key?.raw_key;
if (apiKey === undefined) throw new Error(`${organization_id} was there already, and its key is shown no more`);
console.log(`${organization_id} is created, with the key ${created.first_key?.key.prefix}`);

// As the customer, with the customer's key. These credentials are for the simulated providers of `npm run dev`.
const { api } = patchbayClient(PATCHBAY_URL, { apiKey, organizationId: organization_id });
const [account_sid, auth_token] = [`AC${randomBytes(16).toString('hex')}`, randomBytes(16).toString('hex')];
const credentials = { provider: 'twilio', account_sid, auth_token } as const;
const { data: integration } = await unwrap(api.integrations.$post({ json: { name: 'Twilio', credentials } }));
console.log(`${integration.integration_id} is created`);
const { provider, integration_id } = integration;
const imported = { phone_number: '+14155550102', provider, integration_id };
const { data: number } = await unwrap(api['phone-numbers'].$post({ json: imported }));
console.log(`${number.phone_number} is imported`);

// Only a suspended organization can be offboarded, which is for good. Each repeat carries it on.
const organization = organizations[':organization_id'];
const param = { organization_id };
const { data: suspended } = await unwrap(organization.suspend.$post({ param }));
console.log(`${organization_id} is ${suspended.status}`);
for (;;) {
  const { data } = await unwrap(organization.offboard.$post({ param, json: param }));
  console.log(`${organization_id} is ${data.status}, phone numbers left: ${data.counts.phone_numbers}`);
  if (data.status === 'offboarded') break;
  await setTimeout(1000);
}
