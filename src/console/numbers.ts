/** Phone numbers, as several views read and name them. */
import { unwrap } from 'patchbay-client';
import type { ListedIntegration } from './integrations.ts';
import { withTag } from './load.ts';
import type { Loaded, PageQuery, ReadOptions } from './load.ts';
import type { Api, Session } from './session.ts';

export const readNumber = (api: Api, phone_number_id: string, options?: ReadOptions) =>
  withTag(api['phone-numbers'][':phone_number_id'].$get({ param: { phone_number_id } }, options));

export type PhoneNumber = Awaited<ReturnType<typeof readNumber>>['body']['data'];

type List = Api['phone-numbers']['$get'];
export type NumberFilters = Omit<NonNullable<NonNullable<Parameters<List>[0]>['query']>, keyof PageQuery | 'order'>;

export const listNumbers = (api: Api, query: NumberFilters & PageQuery, options: ReadOptions) =>
  unwrap(api['phone-numbers'].$get({ query }, options));

/** What the parts of the view of one number get. */
export interface NumberProps {
  session: Session;
  number: PhoneNumber;
  /** Of the number as it is shown. */
  etag: string;
  reload: () => void;
  /** Those of its provider. */
  integrations: Loaded<ListedIntegration[]>;
}

/** `1 number`, `1,200 numbers`. */
export const countOf = (count: number) => `${count.toLocaleString()} number${count === 1 ? '' : 's'}`;

export const holderOf = ({ assigned_agent_id }: { assigned_agent_id: string | null }) => assigned_agent_id ?? 'free';
