import { Hono } from 'hono';
import { requirePermission } from '../auth/authorize.ts';
import type { AppEnv } from '../env.ts';
import { queryParameters } from '../validation.ts';
import { auditEventsQuery, listAuditEvents, presentAuditEvent } from './read.ts';

export const auditRoutes = new Hono<AppEnv>().get(
  '/',
  requirePermission('audit:read'),
  queryParameters(auditEventsQuery),
  async (c) => {
    const { rows, pagination } = await listAuditEvents(c.var.operation, c.req.valid('query'));
    return c.json({ success: true, data: rows.map(presentAuditEvent), pagination }, 200);
  },
);
