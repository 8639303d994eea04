import { and, eq, isNull, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError, invalid } from '../core/errors.ts';
import { onceTheRestIsRight } from '../core/fields.ts';
import { foldName } from '../core/folded-name.ts';
import { visibleName } from '../core/text.ts';
import { unixNow } from '../core/time.ts';
import type { Provider, Quota } from '../core/vocabulary.ts';
import { purge } from '../credentials/drain.ts';
import { credentialsKey } from '../credentials/kv-key.ts';
import { enqueuePurges, intentStands, spendIntent, withdrawIntent } from '../credentials/outbox.ts';
import { beginAgain, credentialsWriter, notDone } from '../credentials/store.ts';
import type { StoredCredentials } from '../credentials/store.ts';
import { existsIn, newValues } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { changesOf, decisionSaw, eventRecorder, updateTime } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { Decision, MutationParameters } from '../decision/mutation.ts';
import { assertMatched, isAsMatched, unmatchedTarget } from '../decision/precondition.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { assertUsable, providerCredentials } from '../providers/providers.ts';
import { integrationState, isIntegration, MAX_NAME_LENGTH } from './integration.ts';
import type { IntegrationState } from './integration.ts';
import { assertSameAccount, checkBeforePut, shownColumns } from './verification.ts';
import type { UsedAccount } from './verification.ts';

export const integrationChanges = z.lazy(() =>
  z
    .strictObject({
      name: z.exactOptional(visibleName(MAX_NAME_LENGTH)),
      credentials: z.exactOptional(providerCredentials),
    })
    .check(
      z.refine(({ name, credentials }) => name !== undefined || credentials !== undefined, {
        error: 'must have name, credentials, or both',
        ...onceTheRestIsRight,
      }),
    )
    .register(z.globalRegistry, { minProperties: 1 }),
);

type Changes = z.output<typeof integrationChanges>;

interface TargetParameters extends MutationParameters {
  integration_id: string;
}

interface ProviderParameters extends TargetParameters {
  provider: Provider;
}

interface UpdateParameters extends TargetParameters {
  /** Null leaves the name as it is. */
  name: string | null;
  /** Of the new name; null if there is none. */
  name_folded: string | null;
}

type Checked = ReturnType<ReturnType<typeof checkBeforePut>['columns']>;

type CredentialsParameters = UpdateParameters & ProviderParameters & StoredCredentials & Checked;

const isTarget = (parameters: Placeholders<TargetParameters>) =>
  and(isIntegration(parameters), isAsMatched(integrations.revision, parameters));

const isOfProvider = (parameters: Placeholders<ProviderParameters>) =>
  and(isTarget(parameters), eq(integrations.provider, parameters.provider));

/** Predicate: the credentials are of the same account, as far as we know, or no phone number uses the integration. */
const isSameAccount = ({ account_fingerprint }: Placeholders<Checked>) =>
  or(
    isNull(integrations.account_fingerprint),
    sql`${account_fingerprint} IS NULL`,
    eq(integrations.account_fingerprint, account_fingerprint),
    eq(integrations.phone_number_count, 0),
  );

const quotas: Quota[] = ['audit_events'];

const storeCredentials = credentialsWriter<ProviderParameters>('integrations:update', (db, parameters) =>
  and(existsIn(db, integrations, isOfProvider(parameters)), hasRoomFor(quotas)),
);

const newName = ({ name }: Placeholders<UpdateParameters>) => ({ name: sql`coalesce(${name}, ${integrations.name})` });

const newCredentials = (parameters: Placeholders<CredentialsParameters>) => ({
  ...newName(parameters),
  status: sql`'active'`,
  ...newValues<keyof CredentialsParameters>(parameters, ['credentials_version', 'account_hint', ...shownColumns]),
});

const recordRenaming = eventRecorder<UpdateParameters>({
  table: integrations,
  target_id: integrations.integration_id,
  action: 'integration.updated',
  where: (db, parameters) =>
    and(isTarget(parameters), mayDecide('integrations:update', db, parameters), hasRoomFor(quotas)),
  changes: newName,
});

const recordReplacement = eventRecorder<CredentialsParameters>({
  table: integrations,
  target_id: integrations.integration_id,
  action: 'integration.updated',
  where: (db, parameters) =>
    and(
      isOfProvider(parameters),
      isSameAccount(parameters),
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
      name_folded: sql`coalesce(${parameters.name_folded}, ${integrations.name_folded})`,
      updated_at: updateTime(db, parameters, integrations.updated_at),
      revision: sql`${integrations.revision} + 1`,
    })
    .where(and(isIntegration(parameters), decisionSaw(db, parameters, integrations.revision)));

const rename = query((db, parameters: Placeholders<UpdateParameters>) => updateTo(db, parameters, newName(parameters)));

/** Where the name folds as before, the trigger for the Worker of before takes it for one that was not folded. */
const foldAgain = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .update(integrations)
    .set({ name_folded: sql`${parameters.name_folded}` })
    .where(and(isIntegration(parameters), eq(integrations.name, parameters.name), isNull(integrations.name_folded))),
);

const replaceCredentials = query((db, parameters: Placeholders<CredentialsParameters>) =>
  updateTo(db, parameters, {
    ...newCredentials(parameters),
    ...newValues<keyof CredentialsParameters>(parameters, [
      'data_key',
      'kek_id',
      'account_fingerprint',
      'last_verdict',
    ]),
    recheck_from: sql`${parameters.now}`,
  }),
);

const findTarget = query((db, parameters: Placeholders<{ organization_id: string; integration_id: string }>) =>
  db
    .select({
      provider: integrations.provider,
      account_hint: integrations.account_hint,
      account_fingerprint: integrations.account_fingerprint,
      phone_number_count: integrations.phone_number_count,
    })
    .from(integrations)
    .where(isIntegration(parameters)),
);

type Target = UsedAccount & { provider: Provider };

const found = {
  target: findTarget,
  unmatched: unmatchedTarget<TargetParameters>(integrations, isIntegration),
  full: fullQuota(quotas),
};

const decideRenaming = mutation('integrations:update', { statements: [recordRenaming, rename, foldAgain], found });

const decideReplacement = mutation('integrations:update', {
  statements: [recordReplacement, replaceCredentials, foldAgain, enqueuePurges, withdrawIntent, spendIntent],
  found,
});

/**
 * Changes an integration's name, its credentials, or both (docs/contract.md, Integrations).
 *
 * It takes one batch. If there are new credentials, the intent, the provider's check and the ciphertext come before it, as
 * in a create. The batch then also overwrites the old data key, and puts the old ciphertext into the outbox.
 *
 * @param verify whether the provider is asked about new credentials
 * @returns the integration after the update
 * @throws DomainError `validation_failed` for credentials of another provider, and for a private key that is not an RSA
 *   key, `credentials_refused`, `verification_limited`, `rate_limited`, `provider_account_differs`,
 *   `integration_not_found`, `precondition_failed`, `quota_exceeded`, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export async function updateIntegration(
  call: ApiCall,
  integration_id: string,
  { name, credentials }: Changes,
  verify: boolean,
): Promise<IntegrationState> {
  const renaming = name === undefined ? { name: null, name_folded: null } : { name, name_folded: foldName(name) };
  const parameters = { ...mutationParameters(call), integration_id, ...renaming };
  const event = credentials
    ? await replace(call, { ...parameters, provider: credentials.provider }, credentials, verify)
    : await renameOnly(call, parameters);

  const before = integrationState.parse(JSON.parse(event.state));
  if (credentials) {
    const kv_key = credentialsKey(before.organization_id, integration_id, before.credentials_version);
    call.afterAnswer(() => purge(call.env, kv_key));
  }
  const after = integrationState.parse({ ...before, ...changesOf(event) });
  return {
    ...after,
    updated_at: Math.max(before.updated_at, event.created_at),
    revision: before.revision + 1,
  };
}

async function renameOnly(call: ApiCall, parameters: UpdateParameters): Promise<Decision> {
  const answer = await decideRenaming(call, parameters);
  if (answer.outcome === 'undecided')
    throw refusal(answer.found) ?? new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  return answer.event;
}

async function replace(
  call: ApiCall,
  parameters: UpdateParameters & ProviderParameters,
  credentials: z.output<typeof providerCredentials>,
  verify: boolean,
): Promise<Decision> {
  await assertUsable(credentials);
  const { integration_id, provider } = parameters;
  const { beforePut, columns } = checkBeforePut(call, provider, credentials, verify);
  return beginAgain(async () => {
    const stored = await storeCredentials(call, parameters, integration_id, credentials, beforePut);
    const checked = columns();
    const answer = await decideReplacement(call, { ...parameters, ...stored, ...checked, now: unixNow() });
    if (answer.outcome === 'undecided') throw refusal(answer.found, { ...checked, provider }) ?? notDone(stored);
    return answer.event;
  });
}

/**
 * Why an update was not done, by what the batch found.
 *
 * @throws DomainError `precondition_failed`, `provider_account_differs`, `quota_exceeded`
 */
function refusal(
  { target: [target], unmatched, full }: { target: Target[]; unmatched: unknown[]; full: FullQuota[] },
  wanted?: Pick<Target, 'provider' | 'account_fingerprint'>,
): DomainError | undefined {
  if (!target) return new DomainError('integration_not_found', {});
  assertMatched(unmatched);
  if (wanted && wanted.provider !== target.provider) {
    return invalid('credentials.provider', 'must be the same provider as before');
  }
  if (wanted) assertSameAccount(target, wanted);
  assertRoom(full);
  return undefined;
}
