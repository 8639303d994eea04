/** Whose credentials a recovery is about: an integration or a phone number, as its row and its KV key (vault.ts) name it. */
import { and, eq, sql } from 'drizzle-orm';
import type { Placeholder, SQL } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { integrations, phone_numbers } from '../../worker/d1/schema.ts';

type Text = Placeholder<string, string> | SQL<string>;

interface Subject {
  organization_id: Text;
  target_id: Text;
}

export type CredentialsTable = SQLiteTable & Record<'organization_id' | 'credentials_version', SQLiteColumn>;

export const isIntegration = ({ organization_id, target_id }: Subject) =>
  and(eq(integrations.organization_id, organization_id), eq(integrations.integration_id, target_id));

export const isPhoneNumber = ({ organization_id, target_id }: Subject) =>
  and(eq(phone_numbers.phone_number_id, target_id), eq(phone_numbers.organization_id, organization_id));

/** The KV key of the version that the subject's row has. */
export const kvKeyOf = (table: CredentialsTable, { target_id }: Pick<Subject, 'target_id'>) =>
  sql<string>`'v1/' || ${table.organization_id} || '/' || ${target_id} || '/' || ${table.credentials_version}`;

/** A KV key's parts; none for a key of another form, which is not this version's to judge. */
export function placesOf(kv_key: string) {
  const [, organization_id, subject_id, version] = /^v1\/([^/]+)\/([^/]+)\/([^/]+)$/.exec(kv_key) ?? [];
  return organization_id === undefined ? [] : [{ kv_key, organization_id, subject_id, version }];
}
