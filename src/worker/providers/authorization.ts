/** The Authorization header. A secret may have any characters, so it is sent as UTF-8. */
import { encodeBase64 } from 'hono/utils/encode';

const utf8 = new TextEncoder();

/** RFC 7617. */
export const basic = (user: string, password: string) =>
  `Basic ${encodeBase64(utf8.encode(`${user}:${password}`).buffer)}`;

/** RFC 6750. A header's value is a string of bytes. */
export const bearer = (token: string) => `Bearer ${String.fromCharCode(...utf8.encode(token))}`;
