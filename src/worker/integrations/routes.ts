import * as z from 'zod/mini';
import { isProblem } from '../core/errors.ts';
import type { Precondition, TargetFault } from '../core/errors.ts';
import { idSchema } from '../core/ids.ts';
import { answer, answerUnlessKnown, REASSIGNED_HEADER, REMOVED_HEADER } from '../http/answer.ts';
import type { AnswerHeaders } from '../http/app-env.ts';
import { newRoutes } from '../http/new-routes.ts';
import { titleOf } from '../http/problem.ts';
import { mutates, reads, verifies, verifyQuery } from '../http/route.ts';
import { createIntegration, newIntegration } from './create.ts';
import { deleteIntegration } from './delete.ts';
import { deletionQuery, wayOf } from './deletion.ts';
import type { Way } from './deletion.ts';
import { presentIntegration, presentListedIntegration, tagOf } from './integration.ts';
import { previewDeletion } from './preview.ts';
import type { Blocker, Preview } from './preview.ts';
import { listProviderNumbers, providerNumbersQuery } from './provider-numbers.ts';
import { integrationsQuery, listIntegrations, readIntegration } from './read.ts';
import { listReferences, referencesQuery } from './references.ts';
import { integrationChanges, updateIntegration } from './update.ts';
import { verifyIntegration } from './verify.ts';

const path = z.object({ integration_id: idSchema('intg') });

/** Of calls that may bring credentials. */
export const credentialsQuery = verifyQuery();

export const integrationRoutes = newRoutes()
  .post('/', mutates('integrations:create', { query: credentialsQuery, body: newIntegration }), async (c) => {
    const created = await createIntegration(c.get('call'), c.req.valid('json'), verifies(c.req.valid('query')));
    const message = 'Integration created successfully';
    return answer(c, 201, { success: true, message, data: presentIntegration(created) }, { ETag: tagOf(created) });
  })
  .get('/', reads('integrations:read', { query: integrationsQuery }), async (c) => {
    const { rows, pagination } = await listIntegrations(c.get('call'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentListedIntegration), pagination });
  })
  .get('/:integration_id', reads('integrations:read', { path }, { conditional: true }), async (c) => {
    const found = await readIntegration(c.get('call'), c.req.valid('param').integration_id);
    return answerUnlessKnown(c, tagOf(found), { success: true, data: presentIntegration(found) });
  })
  .put(
    '/:integration_id',
    mutates('integrations:update', { path, query: credentialsQuery, body: integrationChanges }, { conditional: true }),
    async (c) => {
      const { integration_id } = c.req.valid('param');
      const updated = await updateIntegration(
        c.get('call'),
        integration_id,
        c.req.valid('json'),
        verifies(c.req.valid('query')),
      );
      const message = 'Integration updated successfully';
      return answer(c, 200, { success: true, message, data: presentIntegration(updated) }, { ETag: tagOf(updated) });
    },
  )
  .get(
    '/:integration_id/provider-numbers',
    reads('phone_numbers:create', { path, query: providerNumbersQuery }),
    async (c) => {
      const { integration_id } = c.req.valid('param');
      const { data, pagination } = await listProviderNumbers(c.get('call'), integration_id, c.req.valid('query'));
      return answer(c, 200, { success: true, data, pagination });
    },
  )
  .post('/:integration_id/verify', mutates('integrations:update', { path }), async (c) => {
    const checked = await verifyIntegration(c.get('call'), c.req.valid('param').integration_id);
    const message = 'Integration checked successfully';
    return answer(c, 200, { success: true, message, data: presentIntegration(checked) }, { ETag: tagOf(checked) });
  })
  .get('/:integration_id/references', reads('integrations:read', { path, query: referencesQuery }), async (c) => {
    const { integration_id } = c.req.valid('param');
    const { data, pagination } = await listReferences(c.get('call'), integration_id, c.req.valid('query'));
    return answer(c, 200, { success: true, data, pagination });
  })
  .delete(
    '/:integration_id',
    mutates('integrations:delete', { path, query: deletionQuery }, { conditional: true }),
    async (c) => {
      const { integration_id } = c.req.valid('param');
      const request = c.req.valid('query');
      if (request.dry_run === 'true') {
        const data = presentPreview(wayOf(request), await previewDeletion(c.get('call'), integration_id, request));
        const message = data.would_delete ? 'Integration would be deleted' : 'Integration would not be deleted';
        return answer(c, 200, { success: true, message, data });
      }
      const { integration: data, count } = await deleteIntegration(c.get('call'), integration_id, request);
      const headers = countHeaders[wayOf(request)](count);
      return answer(c, 200, { success: true, message: 'Integration deleted successfully', data }, headers);
    },
  );

/** A preview as clients see it. */
export function presentPreview(way: Way, preview: Preview) {
  const { blocker, integration, reference_count, reference_count_exact, references } = preview;
  const would_delete = blocker === undefined;
  return {
    would_delete,
    integration,
    reference_count,
    reference_count_exact,
    references,
    would_reassign: would_delete && way === 'reassign' ? reference_count : 0,
    would_remove: would_delete && way === 'remove' ? reference_count : 0,
    blocked_by: blocker ? blockersOf(blocker) : [],
  };
}

export type DeletionPreview = ReturnType<typeof presentPreview>;

/** What an error of a delete is about. */
interface Subject {
  phone_number_id: string | null;
  phone_number: string | null;
  assigned_agent_id: string | null;
  reason: TargetFault | Precondition | null;
}

const nothing: Subject = { phone_number_id: null, phone_number: null, assigned_agent_id: null, reason: null };

/** One entry for each phone number that the error names, or else one for all. */
function blockersOf(error: Blocker) {
  return subjectsOf(error).map((subject) => ({ code: error.code, title: titleOf(error), ...nothing, ...subject }));
}

function subjectsOf(error: Blocker): Partial<Subject>[] {
  if (isProblem(error, 'integration_in_use')) return error.members.references;
  if (isProblem(error, 'phone_number_assigned')) return error.members.phone_numbers ?? [error.members];
  if (isProblem(error, 'precondition_failed')) return [{ reason: error.members.precondition }];
  if (!isProblem(error, 'invalid_reassign_target')) return [{}];
  const { reason, phone_numbers } = error.members;
  return phone_numbers.length > 0 ? phone_numbers.map((number) => ({ ...number, reason })) : [{ reason }];
}

const countHeaders: Record<Way, (count: number) => AnswerHeaders> = {
  refuse: () => ({}),
  reassign: (count) => ({ [REASSIGNED_HEADER]: String(count) }),
  remove: (count) => ({ [REMOVED_HEADER]: String(count) }),
};
