import type { SimulatedAnswer } from '../src/dev/simulation.ts';
import type { Provider } from '../src/worker/core/vocabulary.ts';
/** Integrations of simulated accounts, each with an account of its own. */
import { createIntegration } from './fixtures.ts';
import type { Client } from './fixtures.ts';
import { secretHolding } from './simulation.ts';

const digits = (count: number) => crypto.randomUUID().replaceAll('-', '').slice(0, count);

/** Credentials of an account that no other integration is of. */
export const credentialsOf: Record<Provider, (secret: string) => object> = {
  twilio: (auth_token) => ({ provider: 'twilio', account_sid: `AC${digits(32)}`, auth_token }),
  telnyx: (api_key) => ({ provider: 'telnyx', api_key }),
  vonage: (api_secret) => ({ provider: 'vonage', api_key: digits(8), api_secret }),
  plivo: (auth_token) => ({ provider: 'plivo', auth_id: `MA${digits(18).toUpperCase()}`, auth_token }),
};

export interface Account {
  integration_id: string;
  /** By it the simulation knows the account. */
  secret: string;
}

/** An integration whose account holds these numbers. It is not checked, so the first answer is that to the first call. */
export async function newAccount(
  client: Client,
  numbers: readonly string[],
  { provider = 'twilio', answers = [] }: { provider?: Provider; answers?: SimulatedAnswer[] } = {},
): Promise<Account> {
  const secret = await secretHolding([...numbers], ...answers);
  const integration_id = await createIntegration(client, credentialsOf[provider](secret), '?verify=false');
  return { integration_id, secret };
}
