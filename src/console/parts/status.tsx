export type Tone = 'good' | 'bad' | 'warning' | 'neutral';

const glyphs: Record<Tone, string> = { good: '✓', bad: '✕', warning: '!', neutral: '·' };

/** A state in a word. Its sign says the same as its color. */
export const Badge = ({ tone, text }: { tone: Tone; text: string }) => (
  <span class={`badge ${tone}`}>
    <span aria-hidden="true">{glyphs[tone]}</span> {text}
  </span>
);

const providerNames: Record<string, { name: string; sign: string }> = {
  twilio: { name: 'Twilio', sign: 'Tw' },
  telnyx: { name: 'Telnyx', sign: 'Te' },
  vonage: { name: 'Vonage', sign: 'Vo' },
  plivo: { name: 'Plivo', sign: 'Pl' },
  sip: { name: 'SIP', sign: 'S' },
};

export const providerName = (provider: string): string => providerNames[provider]?.name ?? provider;

export const Provider = ({ provider }: { provider: string }) => (
  <span class="provider">
    <span class={`sign sign-${provider}`} aria-hidden="true">
      {providerNames[provider]?.sign ?? '?'}
    </span>
    {providerName(provider)}
  </span>
);

const verificationTones: Record<string, Tone> = {
  verified: 'good',
  refused: 'bad',
  limited: 'warning',
  unreachable: 'warning',
};

export const Verification = ({ status }: { status: string }) => (
  <Badge tone={verificationTones[status] ?? 'neutral'} text={status} />
);
