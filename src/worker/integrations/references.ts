/** What uses an integration: phone numbers. */
import { and, eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import type { phoneNumberStatuses } from '../core/vocabulary.ts';
import { keysetList, listParameters } from '../d1/list.ts';
import type { ListRequest, Pagination } from '../d1/list.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import type { ReadingCall } from '../d1/replica-session.ts';
import { integrations, phone_numbers } from '../d1/schema.ts';
import { isIntegration } from './integration.ts';

/** The most references of an integration that one call acts on. */
export const MAX_REFERENCES = 10_000;

type IntegrationParameters = Record<'organization_id' | 'integration_id', string>;

/** Selects the phone numbers of an integration. */
export const isReference = ({ organization_id, integration_id }: Placeholders<IntegrationParameters>) =>
  and(eq(phone_numbers.organization_id, organization_id), eq(phone_numbers.integration_id, integration_id));

/** The columns that {@link presentReference} needs. */
export const referenceColumns = () => ({
  phone_number_id: phone_numbers.phone_number_id,
  phone_number: phone_numbers.phone_number,
  status: phone_numbers.status,
  assigned_agent_id: phone_numbers.assigned_agent_id,
});

interface ReferenceRow {
  phone_number_id: string;
  phone_number: string;
  status: (typeof phoneNumberStatuses)[number];
  assigned_agent_id: string | null;
}

/** A reference as clients see it. */
export const presentReference = ({ phone_number_id, phone_number, status, assigned_agent_id }: ReferenceRow) => ({
  type: 'phone_number' as const,
  phone_number_id,
  phone_number,
  status,
  assigned_agent_id,
});

export type IntegrationReference = ReturnType<typeof presentReference>;

export const referencesQuery = z.lazy(() => z.strictObject(listParameters()));

const findIntegration = query((db, parameters: Placeholders<IntegrationParameters>) =>
  db.select({ integration_id: integrations.integration_id }).from(integrations).where(isIntegration(parameters)),
);

const listNumbers = keysetList<'integration_id', ReferenceRow>('references', {
  table: phone_numbers,
  key: [phone_numbers.phone_number],
  keyOf: ({ phone_number }) => [phone_number],
  range: () => [[''], [':']],
  predicates: { integration_id: (value) => eq(phone_numbers.integration_id, value) },
  owner: findIntegration,
  page: (db, isListed, order, limit) =>
    db
      .select(referenceColumns())
      .from(phone_numbers)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});

/**
 * What uses an integration, by phone number, ascending.
 *
 * @throws DomainError `integration_not_found`, and the errors of every list (d1/list.ts)
 */
export async function listReferences(
  call: ReadingCall,
  integration_id: string,
  request: ListRequest,
): Promise<{ data: IntegrationReference[]; pagination: Pagination }> {
  const { rows, pagination, hasOwner } = await listNumbers(call, { ...request, integration_id });
  if (!hasOwner) throw new DomainError('integration_not_found', {});
  return { data: rows.map(presentReference), pagination };
}
