/**
 * An example of a Worker that answers calls: it reads the credentials of the called number, and tells what it would do
 * with them. It shows the names of the credentials, never their values.
 */
import type { CredentialsReader } from '../../src/worker/index.ts';

interface Env {
  CREDENTIALS_READER: Service<CredentialsReader>;
}

const statuses = {
  integration_not_found: 404,
  phone_number_not_found: 404,
  not_granted: 403,
  rate_limited: 429,
  credentials_missing: 409,
  organization_inactive: 409,
  temporarily_unavailable: 503,
};

/** Any RPC can fail: Patchbay may be starting. */
const failed = (error: unknown) => {
  console.error(error);
  return { ok: false, code: 'temporarily_unavailable' } as const;
};

export default {
  /** `GET /incoming?to=%2B14155550100`: a call to this number comes in. */
  async fetch(request, { CREDENTIALS_READER }) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname !== '/incoming') return Response.json({ code: 'not_found' }, { status: 404 });
    const phone_number = searchParams.get('to') ?? '';

    const read = await CREDENTIALS_READER.readByPhoneNumber({ phone_number, purpose: 'answer call' }).catch(failed);
    if (!read.ok) return Response.json({ code: read.code }, { status: statuses[read.code] });

    const { credentials, organization_id, credentials_version, read_at } = read;
    const { provider, ...fields } = credentials;
    return Response.json({
      would: `answer the call to ${phone_number} through ${provider}, with ${Object.keys(fields).join(', ')}`,
      organization_id,
      credentials_version,
      read_at,
    });
  },
} satisfies ExportedHandler<Env>;
