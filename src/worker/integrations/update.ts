import { and, eq, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import * as z from 'zod';
import { DomainError, invalid } from '../core/errors.ts';
import { onceTheRestIsRight } from '../core/fields.ts';
import { visibleName } from '../core/text.ts';
import { unixNow } from '../core/time.ts';
import type { Provider, Quota } from '../core/vocabulary.ts';
import { purge } from '../credentials/drain.ts';
import { credentialsKey } from '../credentials/kv-key.ts';
import { enqueuePurges, intentStands, spendIntent, withdrawIntent } from '../credentials/outbox.ts';
import { beginAgain, credentialsWriter, notDone } from '../credentials/store.ts';
import type { StoredCredentials } from '../credentials/store.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { decisionSaw, eventRecorder, updateTime } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { Decision, MutationParameters } from '../decision/mutation.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { findProvider, integrationState, isIntegration, presentIntegration } from './integration.ts';
import type { Integration } from './integration.ts';
import { providerCredentials } from './providers.ts';

export const integrationChanges = z.lazy(() =>
  z
    .strictObject({
      name: visibleName(100).exactOptional(),
      credentials: providerCredentials.exactOptional().meta({
        description: 'All credentials, of the same provider. They replace the old ones.',
      }),
    })
    .refine(({ name, credentials }) => name !== undefined || credentials !== undefined, {
      error: 'must have name, credentials, or both',
      ...onceTheRestIsRight,
    })
    .meta({ minProperties: 1 }),
);

type Changes = z.output<typeof integrationChanges>;

interface UpdateParameters extends MutationParameters {
  integration_id: string;
  /** Null leaves the name as it is. */
  name: string | null;
}

interface TargetParameters extends MutationParameters {
  integration_id: string;
  provider: Provider;
}

type CredentialsParameters = UpdateParameters & TargetParameters & StoredCredentials;

const isOfProvider = (parameters: Placeholders<TargetParameters>) =>
  and(isIntegration(parameters), eq(integrations.provider, parameters.provider));

const quotas: Quota[] = ['audit_events'];

const storeCredentials = credentialsWriter<TargetParameters>('integrations:update', (db, parameters) =>
  and(existsIn(db, integrations, isOfProvider(parameters)), hasRoomFor(quotas)),
);

const newName = ({ name }: Placeholders<UpdateParameters>) => ({ name: sql`coalesce(${name}, ${integrations.name})` });

const newCredentials = (parameters: Placeholders<CredentialsParameters>) => ({
  ...newName(parameters),
  status: sql`'active'`,
  credentials_version: sql`${parameters.credentials_version}`,
});

const recordRenaming = eventRecorder<UpdateParameters>({
  table: integrations,
  target_id: integrations.integration_id,
  action: 'integration.updated',
  where: (db, parameters) =>
    and(isIntegration(parameters), mayDecide('integrations:update', db, parameters), hasRoomFor(quotas)),
  changes: newName,
});

const recordReplacement = eventRecorder<CredentialsParameters>({
  table: integrations,
  target_id: integrations.integration_id,
  action: 'integration.updated',
  where: (db, parameters) =>
    and(
      isOfProvider(parameters),
      mayDecide('integrations:update', db, parameters),
      hasRoomFor(quotas),
      intentStands(db, parameters),
    ),
  changes: newCredentials,
});

const updateTo = (db: Builder, parameters: Placeholders<UpdateParameters>, values: Readonly<Record<string, SQL>>) =>
  db
    .update(integrations)
    .set({
      ...values,
      updated_at: updateTime(db, parameters, integrations.updated_at),
      revision: sql`${integrations.revision} + 1`,
    })
    .where(and(isIntegration(parameters), decisionSaw(db, parameters, integrations.revision)));

const rename = query((db, parameters: Placeholders<UpdateParameters>) => updateTo(db, parameters, newName(parameters)));

const replaceCredentials = query((db, parameters: Placeholders<CredentialsParameters>) =>
  updateTo(db, parameters, {
    ...newCredentials(parameters),
    data_key: sql`${parameters.data_key}`,
    kek_id: sql`${parameters.kek_id}`,
  }),
);

const found = { target: findProvider, full: fullQuota(quotas) };

const decideRenaming = mutation('integrations:update', { statements: [recordRenaming, rename], found });

const decideReplacement = mutation('integrations:update', {
  statements: [recordReplacement, replaceCredentials, enqueuePurges, withdrawIntent, spendIntent],
  found,
});

/**
 * Changes an integration's name, its credentials, or both (docs/contract.md, Integrations).
 *
 * It takes one batch. If there are new credentials, the intent and the ciphertext come before it, as in a create. The
 * batch then also overwrites the old data key, and puts the old ciphertext into the outbox.
 *
 * @returns the integration after the update
 * @throws DomainError `validation_failed` for credentials of another provider, `integration_not_found`,
 *   `quota_exceeded`, and the errors of every mutation (decision/mutation.ts)
 */
export async function updateIntegration(
  call: ApiCall,
  integration_id: string,
  { name, credentials }: Changes,
): Promise<Integration> {
  const parameters = { ...mutationParameters(call), integration_id, name: name ?? null };
  const event = credentials
    ? await beginAgain(() => replace(call, { ...parameters, provider: credentials.provider }, credentials))
    : await renameOnly(call, parameters);

  const before = integrationState.parse(JSON.parse(event.state));
  if (credentials) {
    const kv_key = credentialsKey(before.organization_id, integration_id, before.credentials_version);
    call.afterAnswer(() => purge(call.env, kv_key));
  }
  return presentIntegration({
    ...before,
    name: name ?? before.name,
    status: credentials ? 'active' : before.status,
    updated_at: Math.max(before.updated_at, event.created_at),
  });
}

async function renameOnly(call: ApiCall, parameters: UpdateParameters): Promise<Decision> {
  const answer = await decideRenaming(call, parameters);
  if (answer.outcome === 'undecided')
    throw refusal(answer.found) ?? new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  return answer.event;
}

async function replace(
  call: ApiCall,
  parameters: UpdateParameters & TargetParameters,
  credentials: z.output<typeof providerCredentials>,
): Promise<Decision> {
  const stored = await storeCredentials(call, parameters, parameters.integration_id, credentials);
  const answer = await decideReplacement(call, { ...parameters, ...stored, now: unixNow() });
  if (answer.outcome === 'undecided') throw refusal(answer.found, credentials.provider) ?? notDone(stored);
  return answer.event;
}

/** Why an update was not done, by what the batch found. */
function refusal(
  { target: [target], full }: { target: { provider: Provider }[]; full: FullQuota[] },
  wanted?: Provider,
): DomainError | undefined {
  if (!target) return new DomainError('integration_not_found', {});
  if (wanted && wanted !== target.provider) {
    return invalid('credentials.provider', 'must be the same provider as before');
  }
  assertRoom(full);
  return undefined;
}
