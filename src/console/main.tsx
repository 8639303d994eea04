import { ErrorBoundary, render } from 'hono/jsx/dom';
import { Empty, Loading, Page } from './parts/page.tsx';
import { hrefOf, useRoute } from './route.ts';
import type { Route } from './route.ts';
import { restoreSession, sessionState } from './session.ts';
import type { Session } from './session.ts';
import { Connection, Shell } from './shell.tsx';
import { SignIn } from './sign-in.tsx';
import { useStore } from './store.ts';
import { HistoryView } from './views/history.tsx';
import { CreateIntegration } from './views/integration-create.tsx';
import { DeleteIntegration } from './views/integration-delete.tsx';
import { IntegrationView } from './views/integration.tsx';
import { Integrations } from './views/integrations.tsx';
import { Keys } from './views/keys.tsx';
import { AddNumber } from './views/number-add.tsx';
import { NumberView } from './views/number.tsx';
import { Numbers } from './views/numbers.tsx';
import { Overview } from './views/overview.tsx';
import { WebhookView } from './views/webhook.tsx';
import { Webhooks } from './views/webhooks.tsx';

function View({ session, route: { path, query } }: { session: Session; route: Route }) {
  const [section = '', id, part] = path;
  const props = { session, query };
  switch (section) {
    case '':
      return <Overview {...props} />;
    case 'integrations':
      if (id === undefined) return <Integrations {...props} />;
      if (id === 'new') return <CreateIntegration {...props} />;
      if (part === 'delete') return <DeleteIntegration {...props} id={id} />;
      return <IntegrationView {...props} id={id} />;
    case 'numbers':
      if (id === undefined) return <Numbers {...props} />;
      if (id === 'new') return <AddNumber {...props} />;
      return <NumberView {...props} id={id} />;
    case 'keys':
      return <Keys {...props} />;
    case 'webhooks':
      return id === undefined ? <Webhooks {...props} /> : <WebhookView {...props} id={id} />;
    case 'history':
      return <HistoryView {...props} />;
    default:
      return (
        <Page title="No such view">
          <Empty>
            <p>
              Nothing is at this address. <a href={hrefOf([])}>Go to the overview</a>
            </p>
          </Empty>
        </Page>
      );
  }
}

function App() {
  return (
    <>
      <Connection />
      <Content />
    </>
  );
}

function Content() {
  const { session, ended, isRestoring } = useStore(sessionState);
  const route = useRoute();
  if (isRestoring) {
    return (
      <main id="main">
        <Loading what="the console" />
      </main>
    );
  }
  if (!session) return <SignIn ended={ended} />;
  return (
    <Shell session={session} section={route.path[0] ?? ''}>
      <ErrorBoundary key={route.path.join('/')} fallback={<Failed />}>
        <View session={session} route={route} />
      </ErrorBoundary>
    </Shell>
  );
}

/** In place of a view that has a fault of ours. */
const Failed = () => (
  <section class="problem" role="alert">
    <p>
      <strong>This view failed</strong>
    </p>
    <p>That is a fault of the console. Nothing was done by it. Reload the page, and tell us if it happens again.</p>
  </section>
);

const place = document.getElementById('console');
if (place) render(<App />, place);
await restoreSession();
