import { unwrap } from 'patchbay-client';
import { usePages } from '../load.ts';
import { More, Table } from '../parts/list.tsx';
import { Empty, Page } from '../parts/page.tsx';
import { Age } from '../parts/time.tsx';
import { EndpointState, EventPatterns } from '../parts/webhooks.tsx';
import { hrefOf } from '../route.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';
import type { Endpoint } from '../webhooks.ts';
import { CreateEndpoint } from './webhook-dialogs.tsx';

/** The endpoints that are told what happens here. */
export function Webhooks({ session }: ViewProps) {
  const { api, can } = session;
  const [isCreating, setCreating] = useState(false);
  const pages = usePages((page, options) => unwrap(api['webhook-endpoints'].$get({ query: page }, options)), []);
  return (
    <Page
      title="Webhooks"
      actions={
        can('webhooks:create') && (
          <button type="button" onClick={() => setCreating(true)}>
            Create an endpoint
          </button>
        )
      }
    >
      {pages.rows.length > 0 && <List endpoints={pages.rows} />}
      {pages.rows.length === 0 && !pages.isLoading && pages.error === undefined && (
        <Empty>
          <p>There is no webhook endpoint yet. An endpoint is a URL that is told what happens here.</p>
        </Empty>
      )}
      <More pages={pages} what="endpoints" />
      {isCreating && <CreateEndpoint session={session} onClose={() => setCreating(false)} />}
    </Page>
  );
}

const List = ({ endpoints }: { endpoints: readonly Endpoint[] }) => (
  <Table label="Webhook endpoints">
    <thead>
      <tr>
        <th scope="col">URL</th>
        <th scope="col">Events</th>
        <th scope="col">State</th>
        <th scope="col">Last delivered</th>
      </tr>
    </thead>
    <tbody>
      {endpoints.map((endpoint) => (
        <tr key={endpoint.endpoint_id}>
          <th scope="row">
            <a href={hrefOf(['webhooks', endpoint.endpoint_id])}>{endpoint.url}</a>
            <br />
            {endpoint.description}
          </th>
          <td>
            <EventPatterns {...endpoint} />
          </td>
          <td>
            <EndpointState {...endpoint} />
          </td>
          <td>{endpoint.last_delivered_at === null ? 'never' : <Age value={endpoint.last_delivered_at} />}</td>
        </tr>
      ))}
    </tbody>
  </Table>
);
