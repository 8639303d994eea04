import { useEffect, useRef } from 'hono/jsx/dom';
import { useAct } from './act.ts';
import { CheckField, Form, textOf, TextField } from './parts/form.tsx';
import { signIn } from './session.ts';
import type { SignOutReason } from './session.ts';

const messages: Record<SignOutReason, string> = {
  asked: 'You are signed out.',
  left: 'You were signed out, because you left this page.',
  idle: 'You were signed out, because this page was not used for 15 minutes.',
  key_ended: 'You were signed out: the API key is revoked or expired, or its organization is suspended.',
  no_answer: 'The API did not answer, so you are not signed in. Reload the page to try again.',
};

const wrongKey = (text: string) =>
  text.trim().startsWith('bk_operator_')
    ? 'This is an operator key. The console takes the API key of an organization: bk_live_…'
    : /^bk_live_[0-9A-Za-z]{56}$/.test(text.trim())
      ? undefined
      : 'must be bk_live_ followed by 56 letters and digits';

const wrongOrganization = (text: string) =>
  /^org_[A-Za-z0-9_-]{1,40}$/.test(text.trim()) ? undefined : 'must be org_ followed by letters, digits, _ or -';

/** Asks for an organization and an API key. */
export function SignIn({ ended }: { ended: SignOutReason | undefined }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const act = useAct(({ keep, ...credentials }: { organizationId: string; apiKey: string; keep: boolean }) =>
    signIn(credentials, keep),
  );
  useEffect(() => {
    document.title = 'Sign in · Patchbay';
    if (ended !== undefined) heading.current?.focus();
  }, []);
  return (
    <main id="main" class="sign-in">
      <h1 ref={heading} tabindex={-1}>
        Sign in
      </h1>
      {ended !== undefined && <p role="status">{messages[ended]}</p>}
      <Form
        act={act}
        submit="Sign in"
        onSubmit={(values) =>
          void act.run({
            organizationId: textOf(values, 'organization').trim(),
            apiKey: textOf(values, 'api_key').trim(),
            keep: values.has('keep'),
          })
        }
      >
        <TextField
          name="organization"
          path="X-Organization-Id"
          label="Organization"
          isRequired
          placeholder="org_…"
          check={wrongOrganization}
        />
        <TextField
          name="api_key"
          path="X-API-Key"
          type="password"
          label="API key"
          isRequired
          placeholder="bk_live_…"
          hint="The console offers what its role may do."
          check={wrongKey}
        />
        <CheckField
          name="keep"
          label="Keep me signed in in this tab"
          hint="Otherwise a reload signs out. If you choose it, the browser stores the key for this tab until you sign out or close the tab, and other scripts or extensions on this page could read it there."
        />
      </Form>
    </main>
  );
}
