import { and, eq, not, sql } from 'drizzle-orm';
import * as z from 'zod';
import { eventColumns, eventExists, eventParameters, readEvent } from '../audit/record.ts';
import type { EventParameters } from '../audit/record.ts';
import { assertCallerMay, callerRole, isCallerWith } from '../auth/permissions.ts';
import { purge } from '../credentials/purge.ts';
import { credentialsWriter, intentStands, withdrawIntent } from '../credentials/vault.ts';
import type { StoredCredentials } from '../credentials/vault.ts';
import type { Operation } from '../env.ts';
import { newId } from '../ids.ts';
import { DomainError } from '../problem.ts';
import { batch, query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { api_keys, audit_events, integrations } from '../schema.ts';
import { printableText } from '../validation.ts';
import { integrationStateJson, presentIntegration } from './integration.ts';
import type { Integration } from './integration.ts';
import { providerCredentials, providers } from './providers.ts';

export const newIntegration = z.strictObject({
  name: printableText(1, 100),
  credentials: providerCredentials,
});

interface IntegrationParameters extends EventParameters, StoredCredentials {
  integration_id: string;
  name: string;
  provider: string;
  category: string;
}

const storeCredentials = credentialsWriter('integrations:create');

const insertIntegration = query((db, parameters: Placeholders<IntegrationParameters>) =>
  db.insert(integrations).select(
    db
      .select({
        organization_id: api_keys.organization_id,
        integration_id: sql<string>`${parameters.integration_id}`.as('integration_id'),
        name: sql<string>`${parameters.name}`.as('name'),
        provider: sql<string>`${parameters.provider}`.as('provider'),
        category: sql<string>`${parameters.category}`.as('category'),
        status: sql<'active'>`'active'`.as('status'),
        credentials_version: sql<string>`${parameters.credentials_version}`.as('credentials_version'),
        data_key: sql<string>`${parameters.data_key}`.as('data_key'),
        kek_id: sql<string>`${parameters.kek_id}`.as('kek_id'),
        created_at: sql<number>`${parameters.now}`.as('created_at'),
        updated_at: sql<number>`${parameters.now}`.as('updated_at'),
      })
      .from(api_keys)
      .where(
        and(
          isCallerWith('integrations:create', parameters),
          intentStands(db, parameters),
          not(eventExists(db, parameters)),
        ),
      ),
  ),
);

const recordCreation = query((db, parameters: Placeholders<EventParameters & { integration_id: string }>) =>
  db
    .insert(audit_events)
    .select(
      db
        .select(
          eventColumns(parameters, {
            action: sql`'integration.created'`,
            target_id: sql`${integrations.integration_id}`,
            state: integrationStateJson,
          }),
        )
        .from(integrations)
        .where(
          and(
            eq(integrations.organization_id, parameters.organization_id),
            eq(integrations.integration_id, parameters.integration_id),
          ),
        ),
    )
    .onConflictDoNothing(),
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
  const stored = await storeCredentials(operation, integration_id, credentials);

  const { provider } = credentials;
  const { category } = providers[provider];
  const parameters = { ...eventParameters(operation), ...stored, integration_id, name, provider, category };
  const [role, , , , [event]] = await batch(operation.env.DB, [
    callerRole.bind(parameters),
    insertIntegration.bind(parameters),
    recordCreation.bind(parameters),
    withdrawIntent.bind(parameters),
    readEvent.bind(parameters),
  ]);
  if (!event) {
    operation.afterAnswer(() => purge(operation.env, stored.kv_key));
    assertCallerMay('integrations:create', operation, role);
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }
  const { organization_id, credentials_version, now } = parameters;
  return presentIntegration({
    integration_id,
    organization_id,
    name,
    provider,
    category,
    status: 'active',
    credentials_version,
    created_at: now,
    updated_at: now,
  });
}
