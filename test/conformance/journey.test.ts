/** What a new user does, over HTTP alone: from the first key to an integration that is gone, and the story told. */
import { expect, inject, it } from 'vitest';
import * as z from 'zod';
import { joinServer, newNumbers, problem, twilio } from './server.ts';
import type { Client } from './server.ts';

const { first } = inject('server');
const { organization_id } = first;
const server = joinServer(organization_id);

const named = z.object({
  data: z.looseObject({ integration_id: z.string().nullish(), phone_number_id: z.string().optional() }),
});
const createdKey = z.object({ data: z.object({ raw_key: z.string(), key: z.object({ key_id: z.string() }) }) });

it('a new user deletes an integration that was in use, and reads how it went', async () => {
  const mine = await server.call(first, 'POST', '/api/api-keys', {
    body: { name: 'Mine', role: 'admin' },
  });
  const { raw_key, key } = createdKey.parse(mine.body).data;
  const me: Client = { organization_id, raw_key };
  const call = (method: string, path: string, body?: object) => server.call(me, method, path, body ? { body } : {});

  const create = async (name: string) => {
    const { body } = await call('POST', '/api/integrations', { name, credentials: twilio });
    return String(named.parse(body).data.integration_id);
  };
  const [old, replacement] = [await create('Old'), await create('Replacement')];
  const numbers = newNumbers(3);
  const importNumber = async (phone_number = '') => {
    const { body } = await call('POST', '/api/phone-numbers?verify=false', {
      phone_number,
      provider: 'twilio',
      integration_id: old,
    });
    return String(named.parse(body).data.phone_number_id);
  };
  const [one, two, three] = [
    await importNumber(numbers[0]),
    await importNumber(numbers[1]),
    await importNumber(numbers[2]),
  ];

  const refused = await call('DELETE', `/api/integrations/${old}`);
  expect(refused).toMatchObject(
    problem(409, 'integration_in_use', {
      detail:
        `Integration is still referenced by phone numbers: [${numbers.map((number) => `'${number}'`).join(', ')}]. ` +
        'Remove or reassign them first.',
      reference_count: 3,
    }),
  );

  for (const id of [one, two]) {
    const moved = await call('PUT', `/api/phone-numbers/${id}`, { integration_id: replacement });
    expect(moved).toMatchObject({ status: 200, body: { data: { integration_id: replacement } } });
  }
  expect((await call('DELETE', `/api/phone-numbers/${three}`)).status).toBe(200);
  expect(await call('GET', `/api/phone-numbers?integration_id=${old}`)).toMatchObject({ body: { data: [] } });

  expect(await call('DELETE', `/api/integrations/${old}`)).toMatchObject({
    status: 200,
    body: { message: 'Integration deleted successfully', data: { integration_id: old, name: 'Old' } },
  });
  expect(await call('GET', `/api/integrations/${old}`)).toMatchObject(problem(404, 'integration_not_found'));

  const story = await call('GET', `/api/audit-events?actor_key_id=${key.key_id}`);
  expect(story.body).toMatchObject({
    data: [
      ['integration.created', old, 'succeeded'],
      ['integration.created', replacement, 'succeeded'],
      ['phone_number.imported', one, 'succeeded'],
      ['phone_number.imported', two, 'succeeded'],
      ['phone_number.imported', three, 'succeeded'],
      ['integration.delete_refused', old, 'refused'],
      ['phone_number.updated', one, 'succeeded'],
      ['phone_number.updated', two, 'succeeded'],
      ['phone_number.deleted', three, 'succeeded'],
      ['integration.deleted', old, 'succeeded'],
    ].map(([action, target_id, outcome]) => ({ action, target_id, outcome })),
    pagination: { total_count: 10, has_more: false },
  });
  const whole = await call('GET', '/api/audit-events');
  expect(whole.body).toMatchObject({
    data: expect.arrayContaining([
      expect.objectContaining({ action: 'api_key.created', target_id: key.key_id, actor_key_id: first.key_id }),
    ]),
    pagination: { total_count: 12 },
  });
  await server.purged();
  const keys = Object.keys(await server.ciphertexts());
  expect(keys.filter((name) => name.includes(old))).toEqual([]);
  expect(keys.filter((name) => name.includes(replacement))).toHaveLength(1);
});
