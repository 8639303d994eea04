/** `POST /api/phone-numbers/bulk-delete`: all of the numbers are deleted, or none. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { countedBindings, failingBindings, interceptedBindings } from '../bindings.ts';
import {
  call,
  changeKey,
  createIntegration,
  emptyStorage,
  everythingKept,
  fillNumbers,
  importNumber,
  keyChanges,
  newClient,
  resources,
  rows,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip } from '../mutations.ts';
import {
  AGENT,
  assign,
  bulkDelete,
  codesOf,
  dataOf,
  idsOf,
  kept,
  meteredBindings,
  NO_INTEGRATION,
  NO_NUMBER,
  resultsOf,
  trail,
} from './selections.ts';

let client: Client;
let integration_id: string;

beforeEach(async () => {
  await emptyStorage();
  for (const method of ['warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
  client = await newClient();
  integration_id = await createIntegration(client);
});

afterEach(() => {
  vi.restoreAllMocks();
});

/** Numbers of the integration, ascending, and their ids. */
async function numbers(count: number) {
  const phone_numbers = Array.from({ length: count }, unusedNumber);
  const ids: string[] = [];
  for (const phone_number of phone_numbers) ids.push(await importNumber(client, integration_id, phone_number));
  return { ids, phone_numbers };
}

describe('a deletion of many numbers', () => {
  it('deletes those with the ids, and answers in the order of the request', async () => {
    const { ids, phone_numbers } = await numbers(4);
    const [first = '', second = '', third = '', fourth = ''] = ids;

    const answer = await bulkDelete({ phone_number_ids: [third, first, second] }, { by: client });

    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({
      success: true,
      message: '3 phone numbers deleted successfully',
      data: {
        results: [
          [third, phone_numbers[2]],
          [first, phone_numbers[0]],
          [second, phone_numbers[1]],
        ].map(([phone_number_id, phone_number]) => ({
          phone_number_id,
          phone_number,
          status: 'deleted',
          code: null,
          detail: null,
        })),
      },
    });
    expect(await idsOf(client)).toEqual([fourth]);
  });

  it('leaves an event of each number, in the order of the numbers, with the number as it was', async () => {
    const { ids, phone_numbers } = await numbers(3);

    await bulkDelete({ phone_number_ids: ids.toReversed() }, { by: client });

    expect(await trail(client)).toEqual(ids.map((target_id) => ({ action: 'phone_number.deleted', target_id })));
    const { body } = await call(client, 'GET', '/api/audit-events?action=phone_number.deleted');
    expect(body).toMatchObject({
      data: phone_numbers.map((phone_number, index) => ({
        target_id: ids[index],
        actor_key_id: client.key_id,
        state: { phone_number, integration_id },
        changes: null,
      })),
    });
  });

  it('deletes all of an integration, and answers in the order of the numbers', async () => {
    const { ids } = await numbers(3);
    const other = await importSip(client);

    const answer = await bulkDelete({ integration_id }, { by: client });

    expect(answer).toMatchObject({ status: 200, body: { message: '3 phone numbers deleted successfully' } });
    expect(resultsOf(answer).map(({ phone_number_id }) => phone_number_id)).toEqual(ids);
    expect(await idsOf(client)).toEqual([other]);
    expect(await call(client, 'DELETE', `/api/integrations/${integration_id}`)).toMatchObject({ status: 200 });
  });

  it('of one number says so in the singular', async () => {
    const { ids } = await numbers(1);

    expect(await bulkDelete({ phone_number_ids: ids }, { by: client })).toMatchObject({
      body: { message: '1 phone number deleted successfully' },
    });
  });

  it('of an integration without numbers is done, and leaves no event', async () => {
    const before = await kept();

    const answer = await bulkDelete({ integration_id }, { by: client, key: 'one' });

    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({
      success: true,
      message: '0 phone numbers deleted successfully',
      data: { results: [] },
    });
    expect(await kept()).toEqual(before);
  });

  it('ends SIP credentials: no data key, no ciphertext, nothing owed', async () => {
    const ids = [await importSip(client), await importSip(client)];

    const { status } = await bulkDelete({ phone_number_ids: ids }, { by: client });

    expect(status).toBe(200);
    const { CREDENTIALS, credential_purges } = await resources();
    expect(Object.keys(CREDENTIALS).filter((name) => ids.some((id) => name.includes(id)))).toEqual([]);
    expect(credential_purges).toEqual([]);
  });

  it('owes the ciphertext that KV does not delete now', async () => {
    const ids = [await importSip(client), await importSip(client)];
    const { bindings } = failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV DELETE failed' });

    await bulkDelete({ phone_number_ids: ids }, { by: client, bindings });

    expect((await rows('credential_purges')).map(({ state }) => state)).toEqual(['owed', 'owed']);
  });

  it('removes the ciphertext of 100 numbers after the answer, five at a time beside the wake-up, and leaves the others to the cron', async () => {
    const { organization_id } = client;
    await fillNumbers(client, null, 130);
    await env.DB.prepare(
      `UPDATE phone_numbers SET credentials_version = 'v', data_key = 'k', kek_id = 'k' WHERE organization_id = ?`,
    )
      .bind(organization_id)
      .run();
    let [open, mostOpen] = [0, 0];
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'CREDENTIALS.delete') return carryOut();
      mostOpen = Math.max(mostOpen, (open += 1));
      await carryOut();
      open -= 1;
    });

    await bulkDelete({ phone_number_ids: await idsOf(client) }, { by: client, bindings });

    expect(await rows('credential_purges')).toHaveLength(30);
    expect(mostOpen).toBe(5);
  });
});

describe('a refused deletion of many numbers deletes none', () => {
  it('if an agent holds one of them', async () => {
    const { ids, phone_numbers } = await numbers(3);
    const [first = '', second = '', third = ''] = ids;
    await assign(client, second);
    const before = await kept();

    const answer = await bulkDelete({ phone_number_ids: ids }, { by: client });

    expect(answer.status).toBe(409);
    expect(answer.body).toMatchObject({
      code: 'phone_numbers_not_deleted',
      data: {
        results: [
          { phone_number_id: first, phone_number: phone_numbers[0], status: 'not_done', code: null, detail: null },
          {
            phone_number_id: second,
            phone_number: phone_numbers[1],
            status: 'failed',
            code: 'phone_number_assigned',
            detail: `The phone number is assigned to agent '${AGENT}'. Unassign it first: set assigned_agent_id to null.`,
          },
          { phone_number_id: third, phone_number: phone_numbers[2], status: 'not_done', code: null, detail: null },
        ],
      },
    });
    expect(await kept()).toEqual(before);
    const single = await call(client, 'DELETE', `/api/phone-numbers/${second}`);
    expect(single.body).toMatchObject({ detail: resultsOf(answer)[1]?.detail });
  });

  it('if an agent holds one of the integration’s', async () => {
    const { ids } = await numbers(2);
    await assign(client, ids[1] ?? '');
    const before = await kept();

    const answer = await bulkDelete({ integration_id }, { by: client });

    expect(answer.status).toBe(409);
    expect(codesOf(answer)).toEqual(['not_done', 'phone_number_assigned']);
    expect(await kept()).toEqual(before);
  });

  it('if one of them is not there, or another organization’s: the answer is the same', async () => {
    const { ids } = await numbers(1);
    const other = await newClient();
    const theirs = await importSip(other);
    const before = await kept();

    const answers = [];
    for (const absent of [NO_NUMBER, theirs]) {
      const answer = await bulkDelete({ phone_number_ids: [absent, ...ids] }, { by: client });
      answers.push(answer.text.replaceAll(absent, 'phon').replace(/"request_id":"[^"]+"/, ''));
      expect(answer.status).toBe(409);
      expect(resultsOf(answer)[0]).toEqual({
        phone_number_id: absent,
        phone_number: null,
        status: 'failed',
        code: 'phone_number_not_found',
        detail: 'There is no such phone number in this organization.',
      });
    }

    expect(answers[0]).toBe(answers[1]);
    expect(await kept()).toEqual(before);
  });

  it('if the integration is not there, or another organization’s', async () => {
    const other = await newClient();
    const theirs = await createIntegration(other);
    await importNumber(other, theirs, unusedNumber());
    const before = await kept();

    for (const absent of [NO_INTEGRATION, theirs]) {
      for (const query of ['', '?dry_run=true']) {
        expect(await bulkDelete({ integration_id: absent }, { by: client, query })).toMatchObject({
          status: 404,
          body: { code: 'integration_not_found' },
        });
      }
    }
    expect(await kept()).toEqual(before);
  });

  it('if the integration has more than 10,000', async () => {
    await fillNumbers(client, integration_id, 10_001);
    const before = await everythingKept();

    for (const query of ['', '?dry_run=true']) {
      expect(await bulkDelete({ integration_id }, { by: client, query })).toMatchObject({
        status: 422,
        body: { code: 'too_many_references', limit: 10_000 },
      });
    }
    expect((await everythingKept()).d1.phone_numbers).toEqual(before.d1.phone_numbers);
  });

  it.each(keyChanges)('if the key %s', async (_, assignment, status, code) => {
    const { ids } = await numbers(2);
    const other = await newClient({ organization_id: client.organization_id });
    await call(other, 'GET', '/api/phone-numbers');
    await changeKey(other, assignment);
    const before = await resources();

    for (const query of ['', '?dry_run=true']) {
      expect(await bulkDelete({ phone_number_ids: ids }, { by: other, query })).toMatchObject({
        status,
        body: { code },
      });
    }
    expect(await resources()).toEqual(before);
  });
});

describe('a body', () => {
  const id = 'phon_0123456789ab';
  const idAt = (index: number) => `phon_${index.toString(16).padStart(12, '0')}`;

  it.each([
    [{}, '', 'must have either phone_number_ids or integration_id'],
    [{ phone_number_ids: null, integration_id: null }, '', 'must have either phone_number_ids or integration_id'],
    [
      { phone_number_ids: [id], integration_id: NO_INTEGRATION },
      '',
      'must have either phone_number_ids or integration_id',
    ],
    [{ phone_number_ids: [] }, 'phone_number_ids', 'must have 1 to 1000 ids'],
    [
      { phone_number_ids: Array.from({ length: 1001 }, (_, index) => idAt(index)) },
      'phone_number_ids',
      'must have 1 to 1000 ids',
    ],
    [{ phone_number_ids: [id, idAt(1), id] }, 'phone_number_ids', 'must not have an id twice'],
    [{ phone_number_ids: id }, 'phone_number_ids', 'must be an array'],
    [{ phone_number_ids: [id, 1] }, 'phone_number_ids.1', 'must be a string'],
    [{ phone_number_ids: [`${id}'`] }, 'phone_number_ids.0', 'must be phon_ followed by 12 lower-case hex digits'],
    [{ integration_id: '%' }, 'integration_id', 'must be intg_ followed by 12 lower-case hex digits'],
  ])('%# is refused, and says what must be mended', async (body, path, message) => {
    const before = await kept();

    expect(await bulkDelete(body, { by: client })).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path, message }] },
    });
    expect(await kept()).toEqual(before);
  });

  it('may have null for the selection that it does not use', async () => {
    const { ids } = await numbers(1);

    expect(await bulkDelete({ phone_number_ids: ids, integration_id: null }, { by: client })).toMatchObject({
      status: 200,
    });
  });
});

describe('a dry run', () => {
  it('says what would be done, and writes nothing', async () => {
    const { ids, phone_numbers } = await numbers(2);
    const before = await kept();

    const answer = await bulkDelete({ integration_id }, { by: client, query: '?dry_run=true' });

    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({
      success: true,
      message: '2 phone numbers would be deleted',
      data: {
        would_delete: true,
        results: ids.map((phone_number_id, index) => ({
          phone_number_id,
          phone_number: phone_numbers[index],
          status: 'deleted',
          code: null,
          detail: null,
        })),
      },
    });
    expect(await kept()).toEqual(before);
  });

  it('says what stands against it, as the call itself would', async () => {
    const { ids } = await numbers(2);
    await assign(client, ids[0] ?? '');
    const before = await kept();
    const body = { phone_number_ids: [...ids, NO_NUMBER] };

    const answer = await bulkDelete(body, { by: client, query: '?dry_run=true' });

    expect(answer).toMatchObject({
      status: 200,
      body: { message: 'No phone number would be deleted', data: { would_delete: false } },
    });
    expect(resultsOf(answer)).toEqual(resultsOf(await bulkDelete(body, { by: client })));
    expect(await kept()).toEqual(before);
  });

  it('remembers nothing under an Idempotency-Key, and is not answered from one', async () => {
    const { ids } = await numbers(1);
    const body = { phone_number_ids: ids };
    const trial = { by: client, key: 'one', query: '?dry_run=true' };

    expect(dataOf(await bulkDelete(body, trial)).would_delete).toBe(true);
    expect(await bulkDelete(body, { by: client, key: 'one' })).toMatchObject({ status: 200 });
    const after = await bulkDelete(body, trial);
    expect(after.headers.has('Idempotency-Replayed')).toBe(false);
    expect(codesOf(after)).toEqual(['phone_number_not_found']);
  });

  it('is a call without dry_run if that is false', async () => {
    const { ids } = await numbers(1);

    await bulkDelete({ phone_number_ids: ids }, { by: client, query: '?dry_run=false' });

    expect(await idsOf(client)).toEqual([]);
  });
});

describe('a repeat under the same Idempotency-Key', () => {
  it.each(['phone_number_ids', 'integration_id'] as const)('gives the first answer again, by %s', async (by) => {
    const { ids } = await numbers(3);
    const body = by === 'integration_id' ? { integration_id } : { phone_number_ids: ids.toReversed() };
    const first = await bulkDelete(body, { by: client, key: 'one' });
    await importNumber(client, integration_id, unusedNumber());
    const before = await kept();

    const repeat = await bulkDelete(body, { by: client, key: 'one' });

    expect(repeat.body).toEqual(first.body);
    expect(repeat.headers.get('Idempotency-Replayed')).toBe('true');
    expect(await kept()).toEqual(before);
  });

  it('is refused for other numbers', async () => {
    const { ids } = await numbers(2);
    await bulkDelete({ phone_number_ids: ids.slice(0, 1) }, { by: client, key: 'one' });
    const before = await kept();

    expect(await bulkDelete({ phone_number_ids: ids }, { by: client, key: 'one' })).toMatchObject({
      status: 422,
      body: { code: 'idempotency_key_reused' },
    });
    expect(await kept()).toEqual(before);
  });

  it('is judged anew after a refusal', async () => {
    const { ids } = await numbers(2);
    await assign(client, ids[0] ?? '');
    await bulkDelete({ integration_id }, { by: client, key: 'one' });
    await assign(client, ids[0] ?? '', null);

    expect(await bulkDelete({ integration_id }, { by: client, key: 'one' })).toMatchObject({ status: 200 });
  });
});

describe('a late try', () => {
  it('of a deletion of an integration’s numbers spares those that were imported since', async () => {
    await numbers(2);
    let late = async (): Promise<unknown> => undefined;
    const bindings = interceptedBindings((name, carryOut, { statements }) => {
      if (name === 'DB.batch' && statements.some(({ sql }) => sql.startsWith('delete'))) late = carryOut;
      return carryOut();
    });
    await bulkDelete({ integration_id }, { by: client, bindings });
    await importNumber(client, integration_id, unusedNumber());
    const before = await kept();

    await late();

    expect(await kept()).toEqual(before);
  });

  it('answers what an earlier try did', async () => {
    const { ids } = await numbers(3);
    const { bindings } = failingBindings('DB.batch', {
      when: 'after',
      message: 'Network connection lost',
      times: 1,
    });

    const answer = await bulkDelete({ phone_number_ids: ids }, { by: client, bindings });

    expect(answer.status).toBe(200);
    expect(codesOf(answer)).toEqual(['deleted', 'deleted', 'deleted']);
    expect(await trail(client)).toHaveLength(3);
  });
});

describe('its cost', () => {
  it.each([1, 1000])('is one batch for %d numbers', async (count) => {
    await fillNumbers(client, integration_id, count);
    const phone_number_ids = await idsOf(client);
    const { bindings, calls } = countedBindings();

    const { status } = await bulkDelete({ phone_number_ids }, { by: client, bindings });

    expect(status).toBe(200);
    expect(calls.filter((name) => name.startsWith('DB'))).toEqual(['DB.batch']);
  });

  it('is one batch for 10,000 numbers of an integration, in proportion to them', async () => {
    const rowsRead = async (count: number) => {
      await fillNumbers(client, integration_id, count);
      const { bindings, meter } = meteredBindings();
      const answer = await bulkDelete({ integration_id }, { by: client, bindings });
      expect(answer).toMatchObject({ status: 200 });
      expect(resultsOf(answer)).toHaveLength(count);
      return meter.rowsRead;
    };
    await fillNumbers(await newClient(), null, 2000);

    const few = await rowsRead(1000);
    const many = await rowsRead(10_000);

    expect(many).toBeLessThan(few * 10.1);
    expect(many).toBeLessThan(10_000 * 25);
  });
});
