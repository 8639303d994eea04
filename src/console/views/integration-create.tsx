import { useState } from 'hono/jsx/dom';
import { unwrap } from 'patchbay-client';
import { providerNames } from '../../worker/core/vocabulary.ts';
import type { Provider } from '../../worker/core/vocabulary.ts';
import { useAct } from '../act.ts';
import { CredentialFields, credentialsOf, VerifyField } from '../parts/credentials.tsx';
import type { Credentials } from '../parts/credentials.tsx';
import { Form, SelectField, TextField, textOf } from '../parts/form.tsx';
import { notify } from '../parts/notice.tsx';
import { Page } from '../parts/page.tsx';
import { providerName } from '../parts/status.tsx';
import { goTo, hrefOf } from '../route.ts';
import { oneOf, wrongName } from '../rules.ts';
import type { ViewProps } from '../view.ts';

interface NewIntegration {
  name: string;
  credentials: Credentials;
  verify: boolean;
}

export function CreateIntegration({ session: { api } }: ViewProps) {
  const [provider, setProvider] = useState<Provider>(providerNames[0]);
  const act = useAct(({ verify, ...json }: NewIntegration, headers) =>
    unwrap(api.integrations.$post({ query: { verify }, json }, { headers })),
  );

  async function create(values: FormData) {
    const created = await act.run({
      name: textOf(values, 'name'),
      credentials: credentialsOf(provider, values),
      verify: values.has('verify'),
    });
    if (!created) return;
    const { name, integration_id, verification } = created.data;
    notify(`“${name}” is created. ${verification.detail}`);
    goTo(['integrations', integration_id]);
  }

  return (
    <Page title="Create an integration" parent={{ href: hrefOf(['integrations']), name: 'Integrations' }}>
      <p>Its credentials are stored encrypted. Nobody can read them here, and no answer of the API has them.</p>
      <Form act={act} submit="Create integration" onSubmit={(values) => void create(values)}>
        <SelectField
          name="provider"
          path="credentials.provider"
          label="Provider"
          options={providerNames.map((name) => [name, providerName(name)] as const)}
          value={provider}
          onChoose={(chosen) => {
            setProvider(oneOf(providerNames, chosen) ?? provider);
            act.reset();
          }}
        />
        <TextField
          name="name"
          label="Name"
          hint="As people know it, for example Twilio Production."
          isRequired
          check={wrongName}
        />
        <CredentialFields provider={provider} />
        <VerifyField />
      </Form>
    </Page>
  );
}
