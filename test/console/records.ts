/** What the tests of the console make and look at by HTTP. */
import * as z from 'zod';
import { twilio } from '../conformance/server.ts';
import type { Client, joinServer } from '../conformance/server.ts';

type Server = ReturnType<typeof joinServer>;

/** A name that would run a script, if it were ever taken for HTML. */
export const HOSTILE = '<img src=x onerror=alert(1)>';

const created = z.object({ data: z.object({ integration_id: z.string() }) });
const phoneNumber = z.looseObject({ phone_number_id: z.string(), phone_number: z.string() });
const listed = z.object({ data: z.array(phoneNumber) });

export async function newIntegration(server: Server, client: Client, name: string): Promise<string> {
  const answer = await server.call(client, 'POST', '/api/integrations', { body: { name, credentials: twilio } });
  return created.parse(answer.body).data.integration_id;
}

/** All numbers of a client, which has no more than 100. */
export async function numbersOf(server: Server, client: Client) {
  const answer = await server.call(client, 'GET', '/api/phone-numbers?page_size=100');
  return listed.parse(answer.body).data;
}

/** Gives a number to an agent, or takes it back. */
export async function assign(
  server: Server,
  client: Client,
  phone_number_id: string,
  assigned_agent_id: string | null,
) {
  const path = `/api/phone-numbers/${phone_number_id}`;
  return server.call(client, 'PUT', path, { body: { assigned_agent_id } });
}

/** A number with a trunk that takes inbound calls. */
export async function newSipNumber(server: Server, client: Client, fields: { phone_number: string }): Promise<string> {
  const body = { provider: 'sip', supports_inbound: true, ...fields };
  const answer = await server.call(client, 'POST', '/api/phone-numbers', { body });
  return z.object({ data: phoneNumber }).parse(answer.body).data.phone_number_id;
}
