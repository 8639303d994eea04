import { and, eq, sql } from 'drizzle-orm';
import * as z from 'zod';
import { assertNothingInDoubt, eventParameters, eventRecorder, eventSaw, readEvent } from '../audit/record.ts';
import type { EventParameters } from '../audit/record.ts';
import { assertCallerMay, callerKey, callerMay } from '../auth/authorize.ts';
import { purge } from '../credentials/purge.ts';
import {
  credentialsKey,
  credentialsWriter,
  enqueuePurge,
  intentStands,
  spendIntent,
  withdrawIntent,
} from '../credentials/vault.ts';
import type { StoredCredentials } from '../credentials/vault.ts';
import type { Operation } from '../env.ts';
import { DomainError, invalid } from '../problem.ts';
import { batch, existsIn, query, runBatch } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { integrations } from '../schema.ts';
import { unixNow } from '../time.ts';
import { printableText } from '../validation.ts';
import { findProvider, integrationState, isIntegration, presentIntegration } from './integration.ts';
import type { Integration } from './integration.ts';
import { providerCredentials } from './providers.ts';
import type { Provider } from './providers.ts';

export const integrationChanges = z
  .strictObject({
    name: printableText(1, 100).exactOptional(),
    credentials: providerCredentials.exactOptional().meta({ description: 'The whole object, of the same provider.' }),
  })
  .refine(({ name, credentials }) => name !== undefined || credentials !== undefined, 'must have name or credentials')
  .meta({ minProperties: 1 });

type Changes = z.output<typeof integrationChanges>;

interface UpdateParameters extends EventParameters {
  integration_id: string;
  /** Null leaves the name as it is. */
  name: string | null;
}

interface TargetParameters extends EventParameters {
  integration_id: string;
  provider: Provider;
}

type CredentialsParameters = UpdateParameters & TargetParameters & StoredCredentials;

const isOfProvider = (parameters: Placeholders<TargetParameters>) =>
  and(isIntegration(parameters), eq(integrations.provider, parameters.provider));

const storeCredentials = credentialsWriter<TargetParameters>('integrations:update', {
  holds: (db, parameters) => existsIn(db, integrations, isOfProvider(parameters)),
  async refusal({ env }, target) {
    const [[found]] = await batch(env.DB, [findProvider.bind(target)]);
    return refusal(found, target.provider);
  },
});

const recordRenaming = eventRecorder<UpdateParameters>(
  integrations,
  integrations.integration_id,
  'integration.updated',
  (db, parameters) => and(isIntegration(parameters), callerMay('integrations:update', db, parameters)),
);

const recordReplacement = eventRecorder<CredentialsParameters>(
  integrations,
  integrations.integration_id,
  'integration.updated',
  (db, parameters) =>
    and(isOfProvider(parameters), callerMay('integrations:update', db, parameters), intentStands(db, parameters)),
);

const changed = (parameters: Placeholders<UpdateParameters>) => ({
  name: sql`coalesce(${parameters.name}, ${integrations.name})`,
  updated_at: sql`${parameters.event_time}`,
  revision: sql`${integrations.revision} + 1`,
});

const rename = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .update(integrations)
    .set(changed(parameters))
    .where(and(isIntegration(parameters), eventSaw(db, parameters, integrations.revision))),
);

const replaceCredentials = query((db, parameters: Placeholders<CredentialsParameters>) =>
  db
    .update(integrations)
    .set({
      ...changed(parameters),
      status: 'active',
      credentials_version: sql`${parameters.credentials_version}`,
      data_key: sql`${parameters.data_key}`,
      kek_id: sql`${parameters.kek_id}`,
    })
    .where(and(isIntegration(parameters), eventSaw(db, parameters, integrations.revision))),
);

/**
 * Changes an integration's name, its credentials, or both (contract.md, Integrations).
 *
 * One batch; before it, where there are new credentials, intent and ciphertext as in a create. The old version's data key
 * goes with the commit, its ciphertext is in the outbox by the same commit.
 *
 * @returns the integration as the update left it
 * @throws DomainError `validation_failed` for credentials of another provider, `integration_not_found`,
 *   `invalid_api_key`, `permission_denied`, `temporarily_unavailable`
 */
export async function updateIntegration(
  operation: Operation,
  integration_id: string,
  { name, credentials }: Changes,
): Promise<Integration> {
  const { env, afterAnswer } = operation;
  const event = eventParameters(operation);
  const target = { ...event, integration_id };
  const parameters = { ...target, name: name ?? null };
  const replacement = credentials && {
    ...parameters,
    provider: credentials.provider,
    ...(await storeCredentials(operation, { ...target, provider: credentials.provider }, integration_id, credentials)),
    now: unixNow(),
  };
  const {
    results: [caller, [found], , , [decided]],
    inDoubt,
  } = await runBatch(env.DB, [
    callerKey.bind(parameters),
    findProvider.bind(parameters),
    replacement ? recordReplacement.bind(replacement) : recordRenaming.bind(parameters),
    replacement ? replaceCredentials.bind(replacement) : rename.bind(parameters),
    readEvent.bind(parameters),
    ...(replacement
      ? [enqueuePurge.bind(replacement), withdrawIntent.bind(replacement), spendIntent.bind(replacement)]
      : []),
  ]);
  if (!decided) {
    assertNothingInDoubt(inDoubt);
    assertCallerMay('integrations:update', operation, caller);
    throw refusal(found, credentials?.provider);
  }
  const before = integrationState.parse(JSON.parse(decided.state));
  if (replacement) {
    afterAnswer(() => purge(env, credentialsKey(before.organization_id, integration_id, before.credentials_version)));
  }
  return presentIntegration({
    ...before,
    name: name ?? before.name,
    status: replacement ? 'active' : before.status,
    updated_at: event.event_time,
  });
}

/** Why an update did not happen, by what there is of its target. */
function refusal(found: { provider: Provider } | undefined, wanted: Provider | undefined): DomainError {
  if (!found) return new DomainError('integration_not_found', {});
  if (wanted && wanted !== found.provider) {
    return invalid('credentials.provider', 'must be the provider of the integration');
  }
  return new DomainError('temporarily_unavailable', { outcome: 'not_done' });
}
