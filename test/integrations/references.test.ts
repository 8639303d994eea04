/** What uses an integration: the list to which the refusal of its delete leads. */
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { countedBindings } from '../bindings.ts';
import { call, createIntegration, fillNumbers, importNumber, newClient, page, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;
let integration_id: string;

beforeEach(async () => {
  client = await newClient();
  integration_id = await createIntegration(client);
});

const path = () => `/api/integrations/${integration_id}/references`;

describe('the references of an integration', () => {
  it('are its phone numbers, in the order of the numbers, with who holds them', async () => {
    const [first, second] = [unusedNumber(), unusedNumber()];
    const secondId = await importNumber(client, integration_id, second);
    const firstId = await importNumber(client, integration_id, first);
    await importNumber(client, await createIntegration(client), unusedNumber());
    const body = { assigned_agent_id: 'agent_a1b2c3d4e5f6' };
    await call(client, 'PUT', `/api/phone-numbers/${secondId}`, { body });

    expect(await page(client, path())).toEqual({
      data: [
        {
          type: 'phone_number',
          phone_number_id: firstId,
          phone_number: first,
          status: 'free',
          assigned_agent_id: null,
        },
        {
          type: 'phone_number',
          phone_number_id: secondId,
          phone_number: second,
          status: 'assigned',
          assigned_agent_id: 'agent_a1b2c3d4e5f6',
        },
      ],
      next_cursor: null,
      has_more: false,
      page_size: 20,
      total_count: 2,
      total_count_exact: true,
    });
  });

  it('are where the refusal of the delete leads', async () => {
    const phone_number = unusedNumber();
    await importNumber(client, integration_id, phone_number);
    const refusal = await call(client, 'DELETE', `/api/integrations/${integration_id}`);
    const { references_url } = z.object({ references_url: z.string() }).parse(refusal.body);

    expect(refusal.status).toBe(409);
    expect((await page(client, references_url)).data).toMatchObject([{ phone_number }]);
  });

  it('come page after page, each in one call to the database', async () => {
    const numbers = await fillNumbers(client, integration_id, 45);
    const found: unknown[] = [];
    for (let cursor = ''; ;) {
      const { bindings, calls } = countedBindings();
      const { data, next_cursor } = await page(client, `${path()}?page_size=20${cursor}`, { bindings });
      found.push(...data.map(({ phone_number }) => phone_number));
      expect(calls).toEqual(['DB.batch']);
      if (next_cursor === null) break;
      cursor = `&cursor=${next_cursor}`;
    }

    expect(found).toEqual(numbers);
  });

  it('are none where nothing uses it', async () => {
    expect(await page(client, path())).toMatchObject({ data: [], total_count: 0 });
  });

  it.each(['first', 'later'])('are a 404 to another organization, as of no integration: the %s page', async (which) => {
    await fillNumbers(client, integration_id, 3);
    const { next_cursor } = await page(client, `${path()}?page_size=1`);
    const query = which === 'later' ? `?page_size=1&cursor=${next_cursor}` : '';
    const stranger = await newClient();

    const foreign = await call(stranger, 'GET', `${path()}${query}`);
    const missing = await call(client, 'GET', '/api/integrations/intg_000000000000/references');

    // A cursor names its organization.
    expect(foreign.status).toBe(which === 'later' ? 422 : 404);
    expect(missing).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
  });

  it('are a 404 where the integration goes between two pages', async () => {
    await fillNumbers(client, integration_id, 3);
    const { next_cursor } = await page(client, `${path()}?page_size=1`);
    await call(client, 'DELETE', `/api/integrations/${integration_id}?remove_phone_numbers=true`);

    const { status } = await call(client, 'GET', `${path()}?page_size=1&cursor=${next_cursor}`);

    expect(status).toBe(404);
  });

  it.each(['page_size=0', 'cursor=other', 'integration_id=intg_000000000000'])('refuse %s', async (query) => {
    expect(await call(client, 'GET', `${path()}?${query}`)).toMatchObject({
      status: 422,
      body: { code: 'validation_failed' },
    });
  });
});
