/** The Authorization header. */
import { encodeBase64 } from 'hono/utils/encode';

/** RFC 7617. The password may have any characters. */
export const basic = (user: string, password: string) =>
  `Basic ${encodeBase64(new TextEncoder().encode(`${user}:${password}`).buffer)}`;

/** RFC 6750. */
export const bearer = (token: string) => `Bearer ${token}`;

/** Whether the header can have this value. What is not ASCII would be printed by the runtime. */
export const fitsHeader = (authorization: string) => /^[\x20-\x7e]+$/.test(authorization);
