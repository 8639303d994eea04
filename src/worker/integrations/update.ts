import { and, eq, sql } from 'drizzle-orm';
import * as z from 'zod';
import { eventParameters, eventRecorder, eventSaw, updateTime } from '../decision/event.ts';
import type { EventParameters } from '../decision/event.ts';
import { callerMay } from '../decision/caller.ts';
import { purge } from '../credentials/drain.ts';
import {
  beginAgain,
  credentialsKey,
  credentialsWriter,
  enqueuePurge,
  intentStands,
  notDone,
  spendIntent,
  withdrawIntent,
} from '../credentials/store.ts';
import type { StoredCredentials } from '../credentials/store.ts';
import type { Operation } from '../env.ts';
import { mutation } from '../decision/mutation.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { DomainError, invalid } from '../core/errors.ts';
import { existsIn, query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations } from '../d1/schema.ts';
import type { Provider, Quota } from '../core/vocabulary.ts';
import { unixNow } from '../core/time.ts';
import { printableText } from '../core/text.ts';
import { findProvider, integrationState, isIntegration, presentIntegration } from './integration.ts';
import type { Integration } from './integration.ts';
import { providerCredentials } from './providers.ts';

export const integrationChanges = z.lazy(() =>
  z
    .strictObject({
      name: printableText(1, 100).exactOptional(),
      credentials: providerCredentials.exactOptional().meta({ description: 'The whole object, of the same provider.' }),
    })
    .refine(({ name, credentials }) => name !== undefined || credentials !== undefined, 'must have name or credentials')
    .meta({ minProperties: 1 }),
);

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

const hasTarget = (db: Builder, parameters: Placeholders<TargetParameters>) =>
  existsIn(db, integrations, isOfProvider(parameters));

const quotas: Quota[] = ['audit_events'];

const hasRoom = (db: Builder, parameters: Placeholders<EventParameters>) => hasRoomFor(db, parameters, quotas);

const storeCredentials = credentialsWriter<TargetParameters>(
  'integrations:update',
  (db, parameters) => sql`${hasTarget(db, parameters)} AND ${hasRoom(db, parameters)}`,
);

const recordRenaming = eventRecorder<UpdateParameters>(
  integrations,
  integrations.integration_id,
  'integration.updated',
  (db, parameters) =>
    and(isIntegration(parameters), callerMay('integrations:update', db, parameters), hasRoom(db, parameters)),
);

const recordReplacement = eventRecorder<CredentialsParameters>(
  integrations,
  integrations.integration_id,
  'integration.updated',
  (db, parameters) =>
    and(
      isOfProvider(parameters),
      callerMay('integrations:update', db, parameters),
      hasRoom(db, parameters),
      intentStands(db, parameters),
    ),
);

const changed = (db: Builder, parameters: Placeholders<UpdateParameters>) => ({
  name: sql`coalesce(${parameters.name}, ${integrations.name})`,
  updated_at: updateTime(db, parameters, integrations.updated_at),
  revision: sql`${integrations.revision} + 1`,
});

const rename = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .update(integrations)
    .set(changed(db, parameters))
    .where(and(isIntegration(parameters), eventSaw(db, parameters, integrations.revision))),
);

const replaceCredentials = query((db, parameters: Placeholders<CredentialsParameters>) =>
  db
    .update(integrations)
    .set({
      ...changed(db, parameters),
      status: 'active',
      credentials_version: sql`${parameters.credentials_version}`,
      data_key: sql`${parameters.data_key}`,
      kek_id: sql`${parameters.kek_id}`,
    })
    .where(and(isIntegration(parameters), eventSaw(db, parameters, integrations.revision))),
);

const explain = { target: findProvider, full: fullQuota(quotas) };

const decideRenaming = mutation<UpdateParameters, typeof explain>('integrations:update', {
  explain,
  act: { recordRenaming, rename },
});

const decideReplacement = mutation<CredentialsParameters, typeof explain>('integrations:update', {
  explain,
  act: { recordReplacement, replaceCredentials, enqueuePurge },
  settle: { withdrawIntent, spendIntent },
});

/**
 * Changes an integration's name, its credentials, or both (contract.md, Integrations).
 *
 * One batch; before it, where there are new credentials, intent and ciphertext as in a create. The old version's data key
 * goes with the commit, its ciphertext is in the outbox by the same commit.
 *
 * @returns the integration as the update left it
 * @throws DomainError `validation_failed` for credentials of another provider, `integration_not_found`, `quota_exceeded`, and what any
 *   mutation does (mutation.ts)
 */
export async function updateIntegration(
  operation: Operation,
  integration_id: string,
  { name, credentials }: Changes,
): Promise<Integration> {
  const { env, afterAnswer } = operation;
  const parameters = { ...eventParameters(operation), integration_id, name: name ?? null };
  const event = credentials
    ? await beginAgain(() => replace(operation, { ...parameters, provider: credentials.provider }, credentials))
    : await renameOnly(operation, parameters);

  const before = integrationState.parse(JSON.parse(event.state));
  if (credentials) {
    afterAnswer(() => purge(env, credentialsKey(before.organization_id, integration_id, before.credentials_version)));
  }
  return presentIntegration({
    ...before,
    name: name ?? before.name,
    status: credentials ? 'active' : before.status,
    updated_at: Math.max(before.updated_at, event.created_at),
  });
}

async function renameOnly(operation: Operation, parameters: UpdateParameters) {
  const { event, found } = await decideRenaming(operation, parameters);
  if (!event) throw refusal(found) ?? notDone({ kv_key: null });
  return event;
}

async function replace(
  operation: Operation,
  parameters: UpdateParameters & TargetParameters,
  credentials: z.output<typeof providerCredentials>,
) {
  const stored = await storeCredentials(operation, parameters, parameters.integration_id, credentials);
  const { event, found } = await decideReplacement(operation, { ...parameters, ...stored, now: unixNow() });
  if (!event) throw refusal(found, credentials.provider) ?? notDone(stored);
  return event;
}

/** Why an update did not happen, by what there is of its target. */
function refusal(
  { target: [target], full }: { target: { provider: Provider }[]; full: FullQuota[] },
  wanted?: Provider,
): DomainError | undefined {
  if (!target) return new DomainError('integration_not_found', {});
  if (wanted && wanted !== target.provider) {
    return invalid('credentials.provider', 'must be the provider of the integration');
  }
  assertRoom(full);
  return undefined;
}
