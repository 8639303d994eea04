import { unwrap } from 'patchbay-client';
import { e164 } from '../../worker/phone-numbers/e164.ts';
import { useAct } from '../act.ts';
import { useIntegrations } from '../integrations.ts';
import type { ListedIntegration } from '../integrations.ts';
import type { Loaded } from '../load.ts';
import { CheckField, Form, SelectField, textOf, TextField } from '../parts/form.tsx';
import { notify } from '../parts/notice.tsx';
import { Empty, Loading, Page } from '../parts/page.tsx';
import { Problem } from '../parts/problem.tsx';
import { trunkOf, SipFields } from '../parts/sip.tsx';
import { providerName } from '../parts/status.tsx';
import { goTo, hrefOf } from '../route.ts';
import { faultBy } from '../rules.ts';
import type { Api } from '../session.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';

type NewNumber = Parameters<Api['phone-numbers']['$post']>[0];

const parent = { href: hrefOf(['numbers']), name: 'Numbers' };

/** Imports one number: through an integration, or by SIP. */
export function AddNumber({ session, query }: ViewProps) {
  const integrations = useIntegrations(session);
  const [isSip, setSip] = useState(false);
  const act = useAct((given: NewNumber, headers) => unwrap(session.api['phone-numbers'].$post(given, { headers })));

  function numberOf(values: FormData): NewNumber | undefined {
    const number = {
      phone_number: textOf(values, 'phone_number').trim(),
      supports_inbound: values.has('supports_inbound'),
      supports_outbound: values.has('supports_outbound'),
    };
    if (isSip) return { json: { ...number, provider: 'sip', ...trunkOf(values) }, query: {} };
    const chosen = integrations.value?.find(({ integration_id }) => integration_id === values.get('integration_id'));
    if (!chosen) return undefined;
    const { provider, integration_id } = chosen;
    return { json: { ...number, provider, integration_id }, query: { verify: !values.has('unasked') } };
  }

  async function add(values: FormData) {
    const number = numberOf(values);
    const added = number && (await act.run(number));
    if (!added) return;
    notify(`${added.data.phone_number} is imported, and free.`);
    if (act.isShown()) goTo(['numbers', added.data.phone_number_id]);
  }

  if (!session.can('phone_numbers:create')) {
    return (
      <Page title="Add a number" parent={parent}>
        <Empty>
          <p>The role of this key may not import numbers. Ask somebody with a key of a higher role.</p>
        </Empty>
      </Page>
    );
  }
  return (
    <Page title="Add a number" parent={parent}>
      <Form
        act={act}
        submit="Add the number"
        onSubmit={(values) => void add(values)}
        onCancel={() => goTo(['numbers'])}
      >
        <TextField
          name="phone_number"
          label="Number"
          isRequired
          placeholder="+14155550100"
          hint="In E.164 form: + and the country code first."
          check={faultBy(e164)}
        />
        <SelectField
          name="way"
          label="How calls reach it"
          options={[
            ['integration', 'Through an integration'],
            ['sip', 'By SIP'],
          ]}
          onChoose={(way) => setSip(way === 'sip')}
        />
        {isSip ? (
          <SipFields />
        ) : (
          <IntegrationFields integrations={integrations} chosen={query.get('integration_id') ?? ''} />
        )}
        <CheckField name="supports_inbound" label="Supports inbound calls" />
        <CheckField name="supports_outbound" label="Supports outbound calls" />
      </Form>
    </Page>
  );
}

function IntegrationFields({ integrations, chosen }: { integrations: Loaded<ListedIntegration[]>; chosen: string }) {
  const { value, error, reload } = integrations;
  if (error !== undefined) return <Problem error={error} retry={reload} />;
  if (!value) return <Loading what="integrations" />;
  if (value.length === 0) {
    return (
      <Empty>
        <p>
          There is no integration yet. <a href={hrefOf(['integrations', 'new'])}>Create one</a>, or choose SIP.
        </p>
      </Empty>
    );
  }
  return (
    <div>
      <SelectField
        name="integration_id"
        label="Integration"
        isRequired
        value={chosen}
        options={[
          ['', 'Choose one'],
          ...value.map(
            ({ integration_id, name, provider }) => [integration_id, `${name} (${providerName(provider)})`] as const,
          ),
        ]}
      />
      <CheckField
        name="unasked"
        label="Do not ask the account whether it holds the number"
        hint="The number is then unconfirmed, until it is asked about."
      />
    </div>
  );
}
