import { and, eq, isNull, or, sql } from 'drizzle-orm';
import * as z from 'zod';
import { DomainError, invalid } from '../core/errors.ts';
import { onceTheRestIsRight } from '../core/fields.ts';
import { agentIdPattern, idSchema } from '../core/ids.ts';
import type { Provider, Quota } from '../core/vocabulary.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { decisionSaw, eventRecorder, updateTime } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { findProvider, isIntegration } from '../integrations/integration.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { isPhoneNumber, phoneNumberState, presentPhoneNumber } from './phone-number.ts';
import type { PhoneNumber, PhoneNumberState } from './phone-number.ts';

export const phoneNumberChanges = z.lazy(() =>
  z
    .strictObject({
      integration_id: idSchema('intg').nullable().exactOptional().meta({
        description:
          'Moves the number to this integration, which must be of the same organization and provider. Only a SIP number can have null.',
      }),
      supports_inbound: z.boolean().exactOptional(),
      supports_outbound: z.boolean().exactOptional(),
      assigned_agent_id: z
        .string()
        .regex(agentIdPattern, 'must be agent_ followed by 1 to 64 of A–Z, a–z, 0–9, _ and -')
        .nullable()
        .exactOptional()
        .meta({ description: 'The agent that the number is assigned to; null unassigns it.' }),
    })
    .refine((changes) => Object.keys(changes).length > 0, {
      error: 'must change at least one field',
      ...onceTheRestIsRight,
    })
    .meta({ minProperties: 1 }),
);

type Changes = z.output<typeof phoneNumberChanges>;

/**
 * Null leaves a column as it is. `assigned_agent_id` can be set to null, so `assigns` says whether it is set at all: 0
 * or 1. `detaches` says whether the number is to have no integration, as SIP numbers have: 0 or 1.
 */
interface UpdateParameters extends MutationParameters {
  phone_number_id: string;
  integration_id: string | null;
  detaches: number;
  supports_inbound: number | null;
  supports_outbound: number | null;
  assigned_agent_id: string | null;
  assigns: number;
}

const findPhoneNumber = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .select({ provider: phone_numbers.provider, sip_server_address: phone_numbers.sip_server_address })
    .from(phone_numbers)
    .where(isPhoneNumber(parameters)),
);

/** Selects the integration that the number is to move to, if it has the number's organization and provider. */
const isSuitable = (parameters: Placeholders<UpdateParameters>) =>
  and(isIntegration(parameters), eq(integrations.provider, phone_numbers.provider));

/**
 * Predicate: outbound is to be switched on for a SIP number without a server, which it needs (docs/contract.md, Phone
 * numbers).
 */
const lacksServer = ({ supports_outbound }: Placeholders<UpdateParameters>) =>
  and(sql`${supports_outbound} IS 1`, eq(phone_numbers.provider, 'sip'), isNull(phone_numbers.sip_server_address));

const quotas: Quota[] = ['audit_events'];

function newValues(parameters: Placeholders<UpdateParameters>) {
  const assigned_agent_id = sql`iif(${parameters.assigns}, ${parameters.assigned_agent_id}, ${phone_numbers.assigned_agent_id})`;
  return {
    integration_id: sql`coalesce(${parameters.integration_id}, ${phone_numbers.integration_id})`,
    supports_inbound: sql`coalesce(${parameters.supports_inbound}, ${phone_numbers.supports_inbound})`,
    supports_outbound: sql`coalesce(${parameters.supports_outbound}, ${phone_numbers.supports_outbound})`,
    assigned_agent_id,
    status: sql`iif(${assigned_agent_id} IS NULL, 'free', 'assigned')`,
  };
}

const recordUpdate = eventRecorder<UpdateParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.updated',
  where: (db, parameters) =>
    and(
      isPhoneNumber(parameters),
      or(sql`NOT ${parameters.detaches}`, eq(phone_numbers.provider, 'sip')),
      or(sql`${parameters.integration_id} IS NULL`, existsIn(db, integrations, isSuitable(parameters))),
      sql`NOT ${lacksServer(parameters)}`,
      mayDecide('phone_numbers:update', db, parameters),
      hasRoomFor(quotas),
    ),
  changes: newValues,
});

const applyChanges = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .update(phone_numbers)
    .set({
      ...newValues(parameters),
      updated_at: updateTime(db, parameters, phone_numbers.updated_at),
      revision: sql`${phone_numbers.revision} + 1`,
    })
    .where(and(isPhoneNumber(parameters), decisionSaw(db, parameters, phone_numbers.revision))),
);

const decide = mutation('phone_numbers:update', {
  statements: [recordUpdate, applyChanges],
  found: { number: findPhoneNumber, target: findProvider, full: fullQuota(quotas) },
});

/**
 * Moves a phone number to another integration, changes what it supports, assigns it to an agent, or unassigns it
 * (docs/contract.md, Phone numbers).
 *
 * @returns the phone number after the update
 * @throws DomainError `phone_number_not_found`, `integration_not_found`, `validation_failed` for an integration of
 *   another provider, or for outbound on a SIP number without a server, `quota_exceeded`, and the errors of every
 *   mutation (decision/mutation.ts)
 */
export async function updatePhoneNumber(
  call: ApiCall,
  phone_number_id: string,
  changes: Changes,
): Promise<PhoneNumber> {
  const answer = await decide(call, {
    ...mutationParameters(call),
    phone_number_id,
    integration_id: changes.integration_id ?? null,
    detaches: Number(changes.integration_id === null),
    supports_inbound: toSqlite(changes.supports_inbound),
    supports_outbound: toSqlite(changes.supports_outbound),
    assigned_agent_id: changes.assigned_agent_id ?? null,
    assigns: Number(changes.assigned_agent_id !== undefined),
  });
  if (answer.outcome === 'undecided') throw refusal(changes, answer.found);

  const before = phoneNumberState.parse(JSON.parse(answer.event.state));
  const after = { ...before, ...changes, updated_at: Math.max(before.updated_at, answer.event.created_at) };
  return presentPhoneNumber({ ...after, status: after.assigned_agent_id === null ? 'free' : 'assigned' });
}

/** Why a phone number was not updated, by what the batch found. */
function refusal(
  changes: Changes,
  found: {
    number: Pick<PhoneNumberState, 'provider' | 'sip_server_address'>[];
    target: { provider: Provider }[];
    full: FullQuota[];
  },
): DomainError {
  const [number] = found.number;
  const [target] = found.target;
  if (!number) return new DomainError('phone_number_not_found', {});
  if (changes.integration_id === null && number.provider !== 'sip')
    return invalid('integration_id', 'must not be null');
  if (typeof changes.integration_id === 'string') {
    if (!target) return new DomainError('integration_not_found', {});
    if (target.provider !== number.provider) {
      return invalid('integration_id', "must be an integration of the phone number's provider");
    }
  }
  if (changes.supports_outbound && number.provider === 'sip' && number.sip_server_address === null) {
    return invalid('supports_outbound', 'cannot be true for a SIP number without sip_server_address');
  }
  assertRoom(found.full);
  return new DomainError('temporarily_unavailable', { outcome: 'not_done' });
}

const toSqlite = (value: boolean | undefined) => (value === undefined ? null : Number(value));
