import { Hono } from 'hono';
import { answer } from '../http/answer.ts';
import { requirePermission } from '../decision/caller.ts';
import type { AppEnv } from '../env.ts';
import { acceptBookmark } from '../d1/replica-session.ts';
import { queryParameters } from '../http/validation.ts';
import { auditEventsQuery, listAuditEvents, presentAuditEvent } from './read.ts';

export const auditRoutes = new Hono<AppEnv>().get(
  '/',
  requirePermission('audit:read'),
  queryParameters(auditEventsQuery),
  acceptBookmark,
  async (c) => {
    const { rows, pagination } = await listAuditEvents(c.get('operation'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentAuditEvent), pagination });
  },
);
