import { nameIn } from '../integrations.ts';
import type { ListedIntegration } from '../integrations.ts';
import type { PhoneNumber } from '../numbers.ts';
import { hrefOf } from '../route.ts';
import { Table } from './list.tsx';
import { Badge } from './status.tsx';

export const NumberLink = ({ phone_number_id, phone_number }: { phone_number_id: string; phone_number: string }) => (
  <a href={hrefOf(['numbers', phone_number_id])}>{phone_number}</a>
);

export const Ownership = ({ ownership }: Pick<PhoneNumber, 'ownership'>) => (
  <Badge tone={ownership === 'confirmed' ? 'good' : 'neutral'} text={ownership} />
);

export const Holder = ({ assigned_agent_id }: Pick<PhoneNumber, 'assigned_agent_id'>) =>
  assigned_agent_id === null ? <Badge tone="neutral" text="free" /> : <code>{assigned_agent_id}</code>;

/** `inbound, outbound`. */
export const supportOf = ({ supports_inbound, supports_outbound }: PhoneNumber) =>
  [supports_inbound && 'inbound', supports_outbound && 'outbound'].filter(Boolean).join(', ') || 'none';

export function IntegrationLink({
  id,
  integrations,
}: {
  id: string | null;
  integrations: ListedIntegration[] | undefined;
}) {
  return id === null ? <>none</> : <a href={hrefOf(['integrations', id])}>{nameIn(integrations, id)}</a>;
}

interface Result {
  phone_number_id: string;
  phone_number: string | null;
  status: 'updated' | 'deleted' | 'failed' | 'not_done';
  detail: string | null;
}

interface ResultsProps {
  results: readonly Result[];
  /** What is so of a number before the call, by its id. */
  before: ReadonlyMap<string, string>;
}

/** What a call that acts on all numbers or on none would do, or has refused, number by number. */
export const Results = ({ results, before }: ResultsProps) => (
  <Table label="Number by number">
    <thead>
      <tr>
        <th scope="col">Number</th>
        <th scope="col">When listed</th>
        <th scope="col">Judgement</th>
      </tr>
    </thead>
    <tbody>
      {results.map(({ phone_number_id, phone_number, status, detail }) => (
        <tr key={phone_number_id}>
          <th scope="row">
            <NumberLink phone_number_id={phone_number_id} phone_number={phone_number ?? phone_number_id} />
          </th>
          <td>{before.get(phone_number_id) ?? ''}</td>
          <td>
            {status === 'failed' ? <Badge tone="bad" text="blocks" /> : <Badge tone="good" text="possible" />} {detail}
          </td>
        </tr>
      ))}
    </tbody>
  </Table>
);
