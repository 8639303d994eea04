import { unwrap } from 'patchbay-client';
import { providerNames } from '../../worker/core/vocabulary.ts';
import type { Provider } from '../../worker/core/vocabulary.ts';
import { useAct } from '../act.ts';
import { CredentialFields, credentialsOf, VerifyField } from '../parts/credentials.tsx';
import type { Credentials } from '../parts/credentials.tsx';
import { Form, SelectField, TextField, textOf } from '../parts/form.tsx';
import { notify } from '../parts/notice.tsx';
import { Empty, Page } from '../parts/page.tsx';
import { providerName } from '../parts/status.tsx';
import { goTo, hrefOf } from '../route.ts';
import { oneOf, wrongName } from '../rules.ts';
import type { Api } from '../session.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';

interface NewIntegration {
  name: string;
  credentials: Credentials;
  verify: boolean;
}

export const CreateIntegration = ({ session }: ViewProps) =>
  session.can('integrations:create') ? (
    <Creation api={session.api} />
  ) : (
    <Page title="Create an integration" parent={{ href: hrefOf(['integrations']), name: 'Integrations' }}>
      <Empty>
        <p>The role of this key may not create integrations. Ask somebody with a key of a higher role.</p>
      </Empty>
    </Page>
  );

function Creation({ api }: { api: Api }) {
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
    if (act.isShown()) goTo(['integrations', integration_id]);
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
