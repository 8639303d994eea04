import { Hono } from 'hono';
import { requirePermission } from '../auth/authorize.ts';
import type { AppEnv } from '../env.ts';
import { jsonBody } from '../validation.ts';
import { importPhoneNumber, newPhoneNumber } from './import.ts';

export const phoneNumberRoutes = new Hono<AppEnv>().post(
  '/',
  requirePermission('phone_numbers:create'),
  jsonBody(newPhoneNumber),
  async (c) => {
    const data = await importPhoneNumber(c.var.operation, c.req.valid('json'));
    return c.json({ success: true, message: `Phone number imported successfully with ${data.provider}`, data }, 201);
  },
);
