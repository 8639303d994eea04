/** What the consumers of the tests may read: `CREDENTIALS_READERS` of the pool. */
export const grants = {
  'call-router': { providers: ['twilio', 'telnyx', 'vonage', 'plivo', 'sip'], organizations: '*' },
  'twilio-only': { providers: ['twilio'], organizations: '*' },
  'sip-only': { providers: ['sip'], organizations: '*' },
  'one-organization': {
    providers: ['twilio', 'telnyx', 'vonage', 'plivo', 'sip'],
    organizations: ['org_granted', 'org_suspended'],
  },
  'twilio-of-one': { providers: ['twilio'], organizations: ['org_granted', 'org_suspended'] },
  nothing: { providers: [], organizations: [] },
};
