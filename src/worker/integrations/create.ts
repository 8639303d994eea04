import { and, not } from 'drizzle-orm';
import * as z from 'zod';
import { eventExists, eventParameters, eventRecorder } from '../decision/event.ts';
import type { EventParameters } from '../decision/event.ts';
import { isCallerWith } from '../decision/caller.ts';
import {
  beginAgain,
  credentialsWriter,
  intentStands,
  notDone,
  spendIntent,
  withdrawIntent,
} from '../credentials/store.ts';
import type { Operation } from '../env.ts';
import { newId } from '../core/ids.ts';
import { mutation } from '../decision/mutation.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { query, rowColumns } from '../d1/query.ts';
import type { Builder, Placeholders, RowParameters } from '../d1/query.ts';
import { api_keys, integrations } from '../d1/schema.ts';
import type { Quota } from '../core/vocabulary.ts';
import { unixNow } from '../core/time.ts';
import { printableText } from '../core/text.ts';
import { integrationState, isIntegration, presentIntegration } from './integration.ts';
import type { Integration } from './integration.ts';
import { providerCredentials, providers } from './providers.ts';

export const newIntegration = z.lazy(() =>
  z.strictObject({
    name: printableText(1, 100),
    credentials: providerCredentials,
  }),
);

type CreateParameters = EventParameters & RowParameters<typeof integrations> & { kv_key: string | null };

const quotas: Quota[] = ['integrations', 'audit_events'];

const hasRoom = (db: Builder, parameters: Placeholders<EventParameters>) => hasRoomFor(db, parameters, quotas);

const storeCredentials = credentialsWriter('integrations:create', hasRoom);

const insertIntegration = query((db, parameters: Placeholders<CreateParameters>) =>
  db.insert(integrations).select(
    db
      .select(rowColumns(integrations, parameters))
      .from(api_keys)
      .where(
        and(
          isCallerWith('integrations:create', db, parameters),
          hasRoom(db, parameters),
          intentStands(db, parameters),
          not(eventExists(db, parameters)),
        ),
      ),
  ),
);

const recordCreation = eventRecorder<CreateParameters>(
  integrations,
  integrations.integration_id,
  'integration.created',
  (_, parameters) => isIntegration(parameters),
);

const explain = { full: fullQuota(quotas) };

const decide = mutation<CreateParameters, typeof explain>('integrations:create', {
  explain,
  act: { insertIntegration, recordCreation },
  settle: { withdrawIntent, spendIntent },
});

/**
 * Creates an integration and stores its credentials (contract.md, Integrations).
 *
 * Intent, ciphertext, then one batch that makes both live: interrupted anywhere, there is no integration without
 * credentials and no ciphertext that the outbox does not name.
 *
 * @throws DomainError `quota_exceeded`, and what any mutation does (mutation.ts)
 */
export async function createIntegration(
  operation: Operation,
  request: z.output<typeof newIntegration>,
): Promise<Integration> {
  const event = eventParameters(operation);
  return beginAgain(() => attemptCreation(operation, event, request));
}

async function attemptCreation(
  operation: Operation,
  event: EventParameters,
  { name, credentials }: z.output<typeof newIntegration>,
): Promise<Integration> {
  const integration_id = newId('intg');
  const stored = await storeCredentials(operation, event, integration_id, credentials);

  const { event: created, found } = await decide(operation, {
    ...event,
    now: unixNow(),
    integration_id,
    name,
    provider: credentials.provider,
    category: providers[credentials.provider].category,
    status: 'active',
    ...stored,
    created_at: event.event_time,
    updated_at: event.event_time,
    revision: 1,
    phone_number_count: 0,
  });
  if (!created) {
    assertRoom(found.full);
    throw notDone(stored);
  }
  return presentIntegration(integrationState.parse(JSON.parse(created.state)));
}
