/** Finds what a consumer asks for, in one statement that reads at most five rows. */
import { and, eq, sql } from 'drizzle-orm';
import type { Ownership, ReadableProvider } from '../core/vocabulary.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, organizations, phone_numbers } from '../d1/schema.ts';
import { isIntegration } from '../integrations/integration.ts';

type Columns = 'organization_id' | 'integration_id' | 'credentials_version' | 'data_key' | 'kek_id';
type TrunkColumns = 'sip_server_address' | 'sip_transport' | 'sip_username' | 'media_encryption';

/** An integration; or a phone number, with the integration through which it was imported. */
export interface Found extends Pick<typeof phone_numbers.$inferSelect, Columns | TrunkColumns> {
  organization_status: (typeof organizations.$inferSelect)['status'];
  phone_number_id: string | null;
  /** Whose credentials they are: the integration, or the SIP number. */
  subject_id: string;
  provider: ReadableProvider;
  /** Null if an integration was asked for. */
  ownership: Ownership | null;
  /** Null for a SIP number. */
  integration_status: (typeof integrations.$inferSelect)['status'] | null;
}

const organization_status = sql<Found['organization_status']>`${organizations.status}`.as('organization_status');
const integration_status = sql<Found['integration_status']>`${integrations.status}`.as('integration_status');
const none = (name: string) => sql<null>`NULL`.as(name);

export const findIntegration = query(
  (db, parameters: Placeholders<{ organization_id: string; integration_id: string }>) =>
    db
      .select({
        organization_id: integrations.organization_id,
        organization_status,
        integration_id: integrations.integration_id,
        phone_number_id: none('phone_number_id'),
        ownership: none('ownership'),
        subject_id: sql<string>`${integrations.integration_id}`.as('subject_id'),
        provider: integrations.provider,
        integration_status,
        credentials_version: integrations.credentials_version,
        data_key: integrations.data_key,
        kek_id: integrations.kek_id,
        sip_server_address: none('sip_server_address'),
        sip_transport: none('sip_transport'),
        sip_username: none('sip_username'),
        media_encryption: none('media_encryption'),
      })
      .from(integrations)
      .innerJoin(organizations, eq(organizations.organization_id, integrations.organization_id))
      .where(isIntegration(parameters)),
);

/** A SIP number has credentials of its own; any other number has those of its integration. */
const ofSubject = (column: 'credentials_version' | 'data_key' | 'kek_id') =>
  sql<string | null>`coalesce(${integrations[column]}, ${phone_numbers[column]})`.as(column);

/** It needs no organization: a number is unique in the whole system. */
export const findByPhoneNumber = query((db, { phone_number }: Placeholders<{ phone_number: string }>) =>
  db
    .select({
      organization_id: phone_numbers.organization_id,
      organization_status,
      integration_id: phone_numbers.integration_id,
      phone_number_id: phone_numbers.phone_number_id,
      ownership: phone_numbers.ownership,
      subject_id: sql<string>`coalesce(${phone_numbers.integration_id}, ${phone_numbers.phone_number_id})`.as(
        'subject_id',
      ),
      provider: sql<ReadableProvider>`coalesce(${integrations.provider}, ${phone_numbers.provider})`.as('provider'),
      integration_status,
      credentials_version: ofSubject('credentials_version'),
      data_key: ofSubject('data_key'),
      kek_id: ofSubject('kek_id'),
      sip_server_address: phone_numbers.sip_server_address,
      sip_transport: phone_numbers.sip_transport,
      sip_username: phone_numbers.sip_username,
      media_encryption: phone_numbers.media_encryption,
    })
    .from(phone_numbers)
    .innerJoin(organizations, eq(organizations.organization_id, phone_numbers.organization_id))
    .leftJoin(
      integrations,
      and(
        eq(integrations.organization_id, phone_numbers.organization_id),
        eq(integrations.integration_id, phone_numbers.integration_id),
      ),
    )
    .where(eq(phone_numbers.phone_number, phone_number)),
);
