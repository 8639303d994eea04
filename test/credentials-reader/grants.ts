/** What the consumers of the tests may read: `CREDENTIALS_READERS` of the pool. */
export const grants = {
  'call-router': { providers: ['twilio', 'telnyx', 'vonage', 'plivo', 'sip'], organizations: '*', unconfirmed: true },
  'twilio-only': { providers: ['twilio'], organizations: '*', unconfirmed: true },
  'sip-only': { providers: ['sip'], organizations: '*', unconfirmed: true },
  'one-organization': {
    providers: ['twilio', 'telnyx', 'vonage', 'plivo', 'sip'],
    organizations: ['org_granted', 'org_suspended'],
    unconfirmed: true,
  },
  'twilio-of-one': { providers: ['twilio'], organizations: ['org_granted', 'org_suspended'], unconfirmed: true },
  'confirmed-only': { providers: ['twilio', 'sip'], organizations: '*' },
  nothing: { providers: [], organizations: [] },
};
