/** What operators do with organizations. An organization's own clients see theirs by `GET /api/whoami`. */
import * as z from 'zod/mini';
import { MINT_ANOTHER, shownOnce } from '../api-keys/api-key.ts';
import { organizationIdSchema } from '../core/ids.ts';
import { answer } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { operatorMutates, operatorReads } from '../http/route.ts';
import { createOrganization, newOrganization } from './create.ts';
import { offboarding, offboardOrganization } from './offboarding.ts';
import { presentOrganizationToOperator } from './organization.ts';
import { listOrganizations, organizationsQuery, readOrganization } from './read.ts';
import { resumeOrganization, suspendOrganization } from './suspension.ts';
import { organizationChanges, updateOrganization } from './update.ts';

const path = z.object({ organization_id: organizationIdSchema() });

export const organizationRoutes = newRoutes()
  .post('/', operatorMutates('organizations:create', { body: newOrganization }), async (c) => {
    const data = await createOrganization(c.get('operatorCall'), c.req.valid('json'));
    const message = 'Organization created successfully';
    const told = data.first_key ? shownOnce(message, data.first_key.raw_key, MINT_ANOTHER) : message;
    return answer(c, 201, { success: true, message: told, data });
  })
  .get('/', operatorReads('organizations:read', { query: organizationsQuery }), async (c) => {
    const { rows, pagination } = await listOrganizations(c.get('operatorCall'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentOrganizationToOperator), pagination });
  })
  .get('/:organization_id', operatorReads('organizations:read', { path }), async (c) => {
    const data = await readOrganization(c.get('operatorCall'), c.req.valid('param').organization_id);
    return answer(c, 200, { success: true, data });
  })
  .put('/:organization_id', operatorMutates('organizations:create', { path, body: organizationChanges }), async (c) => {
    const { organization_id } = c.req.valid('param');
    const data = await updateOrganization(c.get('operatorCall'), organization_id, c.req.valid('json'));
    return answer(c, 200, { success: true, message: 'Organization updated successfully', data });
  })
  .post('/:organization_id/suspend', operatorMutates('organizations:suspend', { path }), async (c) => {
    const data = await suspendOrganization(c.get('operatorCall'), c.req.valid('param').organization_id);
    return answer(c, 200, { success: true, message: 'Organization suspended successfully', data });
  })
  .post('/:organization_id/resume', operatorMutates('organizations:suspend', { path }), async (c) => {
    const data = await resumeOrganization(c.get('operatorCall'), c.req.valid('param').organization_id);
    return answer(c, 200, { success: true, message: 'Organization resumed successfully', data });
  })
  .post(
    '/:organization_id/offboard',
    operatorMutates('organizations:offboard', { path, body: offboarding }),
    async (c) => {
      const { organization_id } = c.req.valid('param');
      const data = await offboardOrganization(c.get('operatorCall'), organization_id, c.req.valid('json'));
      const message = 'Offboarding has begun; status and counts tell how far it is';
      return answer(c, 202, { success: true, message, data });
    },
  );
