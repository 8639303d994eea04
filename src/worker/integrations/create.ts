import { and, not } from 'drizzle-orm';
import * as z from 'zod/mini';
import { foldName } from '../core/folded-name.ts';
import { newId } from '../core/ids.ts';
import { visibleName } from '../core/text.ts';
import { unixNow } from '../core/time.ts';
import type { Quota } from '../core/vocabulary.ts';
import { intentStands, spendIntent, withdrawIntent } from '../credentials/outbox.ts';
import type { IntentParameters } from '../credentials/outbox.ts';
import { beginAgain, credentialsWriter, notDone } from '../credentials/store.ts';
import { rowColumns } from '../d1/columns.ts';
import type { RowParameters } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, organizations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { assertUsable, providerCredentials, rowOf } from '../providers/providers.ts';
import { integrationState, isIntegration, MAX_NAME_LENGTH } from './integration.ts';
import type { IntegrationState } from './integration.ts';
import { checkBeforePut } from './verification.ts';

export const newIntegration = z.lazy(() =>
  z.strictObject({
    name: visibleName(MAX_NAME_LENGTH),
    credentials: providerCredentials,
  }),
);

type CreateParameters = MutationParameters & RowParameters<typeof integrations> & IntentParameters;

const quotas: Quota[] = ['integrations', 'audit_events'];

const storeCredentials = credentialsWriter('integrations:create', () => hasRoomFor(quotas));

const insertIntegration = query((db, parameters: Placeholders<CreateParameters>) =>
  db.insert(integrations).select(
    db
      .select(rowColumns(integrations, parameters))
      .from(organizations)
      .where(
        and(
          isOrganization(parameters),
          mayDecide('integrations:create', db, parameters),
          hasRoomFor(quotas),
          intentStands(db, parameters),
          not(hasDecided(db, parameters)),
        ),
      ),
  ),
);

const recordCreation = eventRecorder<CreateParameters>({
  table: integrations,
  target_id: integrations.integration_id,
  action: 'integration.created',
  // The id is new, so there is a row only if the statement before inserted it.
  where: (_, parameters) => isIntegration(parameters),
});

// Exactly one of the last two acts: the intent is withdrawn if the batch decided, and spent if it did not.
const decide = mutation('integrations:create', {
  statements: [insertIntegration, recordCreation, withdrawIntent, spendIntent],
  found: { full: fullQuota(quotas) },
});

/**
 * Creates an integration and stores its credentials (docs/contract.md, Integrations).
 *
 * First the intent, then the provider is asked whether it accepts the credentials, then the ciphertext, then one batch
 * that makes both live. So wherever this is interrupted, there is no integration without credentials, and the outbox names
 * any ciphertext that no row names.
 *
 * @param verify whether the provider is asked
 * @throws DomainError `validation_failed` for a private key that is not an RSA key, `credentials_refused`,
 *   `verification_limited`, `rate_limited`, `quota_exceeded`, and the errors of every mutation (decision/mutation.ts)
 */
export async function createIntegration(
  call: ApiCall,
  { name, credentials }: z.output<typeof newIntegration>,
  verify: boolean,
): Promise<IntegrationState> {
  await assertUsable(credentials);
  const { provider } = credentials;
  const event = mutationParameters(call);
  const { beforePut, columns } = checkBeforePut(call, provider, credentials, verify);

  const created = await beginAgain(async () => {
    const integration_id = newId('intg');
    const stored = await storeCredentials(call, event, integration_id, credentials, beforePut);
    const answer = await decide(call, {
      ...event,
      // The provider and the put may have been slow: the caller's key must still be alive now.
      now: unixNow(),
      integration_id,
      name,
      provider,
      category: rowOf(provider).category,
      status: 'active',
      ...stored,
      created_at: event.event_time,
      updated_at: event.event_time,
      revision: 1,
      phone_number_count: 0,
      ...columns(),
      check_count: 0,
      recheck_from: event.event_time,
      checking_until: null,
      name_folded: foldName(name),
    });
    if (answer.outcome !== 'undecided') return answer.event;
    assertRoom(answer.found.full);
    throw notDone(stored);
  });
  return integrationState.parse(JSON.parse(created.state));
}
