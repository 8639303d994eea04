/** Selects an integration, a phone number, an API key or a webhook endpoint by `target_id`, as events name it. */
import { and, eq } from 'drizzle-orm';
import type { Placeholder, SQL } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { api_keys, integrations, phone_numbers, webhook_endpoints } from '../../worker/d1/schema.ts';

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

export const isApiKey = ({ organization_id, target_id }: Subject) =>
  and(eq(api_keys.key_id, target_id), eq(api_keys.organization_id, organization_id));

export const isWebhookEndpoint = ({ organization_id, target_id }: Subject) =>
  and(eq(webhook_endpoints.organization_id, organization_id), eq(webhook_endpoints.endpoint_id, target_id));
