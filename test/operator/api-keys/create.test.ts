import { env } from 'cloudflare:workers';
import { describe, expect, it } from 'vitest';
import { createKeyByCommand } from '../../../src/operator/api-keys/create.ts';
import { hashKey, isWellFormed } from '../../../src/worker/callers/raw-key.ts';
import { failingBindings, interceptedBindings } from '../../bindings.ts';
import { actionsOn, eventsOn, everythingKept, everythingStored, rows } from '../../fixtures.ts';

const newKey = { role: 'agent_manager', name: 'CI', expires_at: null } as const;

const tierOf = async (organization_id: string) => {
  const row = await env.DB.prepare('SELECT tier FROM organizations WHERE organization_id = ?')
    .bind(organization_id)
    .first();
  return row?.['tier'];
};

describe('an operator’s key', () => {
  it('is shown once and stored as its hash', async () => {
    const { raw_key, key } = await createKeyByCommand(env.DB, { ...newKey, organization_id: 'org_hash' });

    expect(isWellFormed(raw_key)).toBe(true);
    expect(key).toEqual({
      key_id: expect.stringMatching(/^apikey_[a-f0-9]{12}$/),
      name: 'CI',
      role: 'agent_manager',
      prefix: raw_key.slice(0, 12),
      client_id: 'org_hash',
      user_id: 'user_operator',
      status: 'active',
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      last_used_at: null,
      expires_at: null,
    });
    const stored = JSON.stringify(await everythingStored());
    expect(stored).toContain(await hashKey(raw_key));
    expect(stored).not.toContain(raw_key.slice(12));
    expect(await actionsOn(key.key_id)).toEqual(['api_key.created']);
  });

  it('may expire', async () => {
    const { key } = await createKeyByCommand(env.DB, {
      ...newKey,
      organization_id: 'org_expiry',
      expires_at: 1_900_000_000,
    });

    expect(key.expires_at).toBe('2030-03-17T17:46:40Z');
  });

  it('makes its organization of the tier, keeps the tier without one, and sets it with one', async () => {
    const organization_id = 'org_tier';

    await createKeyByCommand(env.DB, { ...newKey, organization_id });
    expect(await tierOf(organization_id)).toBe('starter');
    await createKeyByCommand(env.DB, { ...newKey, organization_id, tier: 'pro' });
    expect(await tierOf(organization_id)).toBe('pro');
    await createKeyByCommand(env.DB, { ...newKey, organization_id });
    expect(await tierOf(organization_id)).toBe('pro');
  });

  it('is made once where the answer of D1 is lost after the commit', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: 'Network connection lost.', times: 1 });

    const { key } = await createKeyByCommand(bindings.DB, { ...newKey, organization_id: 'org_lost' });

    const { results } = await env.DB.prepare(`SELECT key_id FROM api_keys WHERE organization_id = 'org_lost'`).all();
    expect(results).toEqual([{ key_id: key.key_id }]);
    expect(await actionsOn(key.key_id)).toEqual(['api_key.created']);
  });

  it('records a change of the tier, once, and none where it stays', async () => {
    const organization_id = 'org_recorded';
    await createKeyByCommand(env.DB, { ...newKey, organization_id, tier: 'pro' });
    await createKeyByCommand(env.DB, { ...newKey, organization_id, tier: 'pro' });
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: 'Network connection lost.', times: 2 });
    await createKeyByCommand(bindings.DB, { ...newKey, organization_id, tier: 'enterprise' });

    expect(await eventsOn(organization_id)).toMatchObject([{ action: 'organization.updated', state: { tier: 'pro' } }]);
  });

  it.each([
    ['another tier', 'enterprise'],
    ['the tier that it has', 'starter'],
  ] as const)('sets no tier that is late, behind one that said %s', async (_, tier) => {
    const organization_id = `org_late_${tier}`;
    await createKeyByCommand(env.DB, { ...newKey, organization_id });
    let late: (() => Promise<unknown>) | undefined;
    const { DB } = interceptedBindings(async (__, carryOut, { statements }) => {
      if (!statements.some(({ sql }) => sql.startsWith('insert'))) return carryOut();
      late = carryOut;
      throw new Error('D1_ERROR: Network connection lost.');
    });
    await expect(createKeyByCommand(DB, { ...newKey, organization_id, tier: 'pro' })).rejects.toMatchObject({
      members: { outcome: 'unknown' },
    });
    await createKeyByCommand(env.DB, { ...newKey, organization_id, tier });
    const before = await everythingKept();

    await late?.();

    expect(late).toBeDefined();
    expect(await tierOf(organization_id)).toBe(tier);
    expect(await everythingKept()).toEqual(before);
  });

  it('is none where another command sets the tier at the same time: nothing is done, and it says so', async () => {
    const organization_id = 'org_race';
    await createKeyByCommand(env.DB, { ...newKey, organization_id });
    let others = 0;
    const { DB } = interceptedBindings(async (__, carryOut, { statements }) => {
      const acts = statements.some(({ sql }) => sql.startsWith('insert'));
      if (acts && (others += 1) === 1)
        await createKeyByCommand(env.DB, { ...newKey, organization_id, tier: 'enterprise' });
      return carryOut();
    });
    const keys = async () =>
      (await rows('api_keys')).filter((row) => row['organization_id'] === organization_id).length;

    await expect(createKeyByCommand(DB, { ...newKey, organization_id, tier: 'pro' })).rejects.toThrow(
      'org_race was changed meanwhile',
    );

    expect(await tierOf(organization_id)).toBe('enterprise');
    expect(await keys()).toBe(2);
  });
});
