import { answer } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { reads } from '../http/route.ts';
import { auditEventsQuery, listAuditEvents, presentAuditEvent } from './read.ts';

export const auditRoutes = newRoutes().get('/', reads('audit:read', { query: auditEventsQuery }), async (c) => {
  const { rows, pagination } = await listAuditEvents(c.get('call'), c.req.valid('query'));
  return answer(c, 200, { success: true, data: rows.map(presentAuditEvent), pagination });
});
