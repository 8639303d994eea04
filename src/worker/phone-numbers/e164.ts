import * as z from 'zod/mini';
import { phoneNumberPattern } from '../core/ids.ts';

export const e164 = z
  .string()
  .check(z.regex(phoneNumberPattern, 'must be in E.164 format: + and 7 to 15 digits, the first of them not 0'));
