import { and } from 'drizzle-orm';
import * as z from 'zod';
import { assertNothingInDoubt, eventParameters, eventRecorder, readEvent } from '../audit/record.ts';
import type { EventParameters } from '../audit/record.ts';
import { assertCallerMay, callerKey, isCallerWith } from '../auth/authorize.ts';
import { credentialsWriter, intentStands, spendIntent, withdrawIntent } from '../credentials/vault.ts';
import type { Operation } from '../env.ts';
import { newId } from '../ids.ts';
import { DomainError } from '../problem.ts';
import { query, rowColumns, runBatch } from '../query.ts';
import type { Placeholders, RowParameters } from '../query.ts';
import { api_keys, integrations } from '../schema.ts';
import { unixNow } from '../time.ts';
import { printableText } from '../validation.ts';
import { isIntegration, presentIntegration } from './integration.ts';
import type { Integration } from './integration.ts';
import { providerCredentials, providers } from './providers.ts';

export const newIntegration = z.strictObject({
  name: printableText(1, 100),
  credentials: providerCredentials,
});

type CreateParameters = EventParameters & RowParameters<typeof integrations> & { kv_key: string };

const storeCredentials = credentialsWriter('integrations:create');

const insertIntegration = query((db, parameters: Placeholders<CreateParameters>) =>
  db.insert(integrations).select(
    db
      .select(rowColumns(integrations, parameters))
      .from(api_keys)
      .where(and(isCallerWith('integrations:create', db, parameters), intentStands(db, parameters))),
  ),
);

const recordCreation = eventRecorder<CreateParameters>(
  integrations,
  integrations.integration_id,
  'integration.created',
  (_, parameters) => isIntegration(parameters),
);

/**
 * Creates an integration and stores its credentials (contract.md, Integrations).
 *
 * Intent, ciphertext, then one batch that makes both live: interrupted anywhere, there is no integration without
 * credentials and no ciphertext that the outbox does not name.
 *
 * @throws DomainError `invalid_api_key`, `permission_denied`, `temporarily_unavailable`
 */
export async function createIntegration(
  operation: Operation,
  { name, credentials }: z.output<typeof newIntegration>,
): Promise<Integration> {
  const integration_id = newId('intg');
  const event = eventParameters(operation);
  const { kv_key, ...stored } = await storeCredentials(operation, event, integration_id, credentials);

  const integration = {
    organization_id: event.organization_id,
    integration_id,
    name,
    provider: credentials.provider,
    category: providers[credentials.provider].category,
    status: 'active' as const,
    ...stored,
    created_at: event.now,
    updated_at: event.now,
    revision: 1,
  };
  const parameters = { ...event, now: unixNow(), ...integration, kv_key };
  const {
    results: [caller, , , , , [created]],
    inDoubt,
  } = await runBatch(operation.env.DB, [
    callerKey.bind(parameters),
    insertIntegration.bind(parameters),
    recordCreation.bind(parameters),
    withdrawIntent.bind(parameters),
    spendIntent.bind(parameters),
    readEvent.bind(parameters),
  ]);
  if (!created) {
    assertNothingInDoubt(inDoubt);
    assertCallerMay('integrations:create', operation, caller);
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }
  return presentIntegration(integration);
}
