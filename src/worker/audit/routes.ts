import { answer } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { operatorReads, reads } from '../http/route.ts';
import {
  auditEventsQuery,
  listAuditEvents,
  listEventsForOperator,
  operatorsAuditEventsQuery,
  presentAuditEvent,
  presentAuditEventToOperator,
} from './read.ts';

export const auditRoutes = newRoutes().get('/', reads('audit:read', { query: auditEventsQuery }), async (c) => {
  const { rows, pagination } = await listAuditEvents(c.get('call'), c.req.valid('query'));
  return answer(c, 200, { success: true, data: rows.map(presentAuditEvent), pagination });
});

export const operatorAuditRoutes = newRoutes().get(
  '/',
  operatorReads('audit:read', { query: operatorsAuditEventsQuery }),
  async (c) => {
    const { rows, pagination } = await listEventsForOperator(c.get('operatorCall'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentAuditEventToOperator), pagination });
  },
);
