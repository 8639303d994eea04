import type { PropsWithChildren } from 'hono/jsx';
import { connected } from './connection.ts';
import { dismissJob, jobs } from './jobs.ts';
import type { Job } from './jobs.ts';
import { roleText } from './key-state.ts';
import { NewSecretDialog } from './parts/new-secret.tsx';
import { Notice } from './parts/notice.tsx';
import { hrefOf } from './route.ts';
import { signOut } from './session.ts';
import type { Permission, Session } from './session.ts';
import { useStore } from './store.ts';

interface Section {
  path: string;
  name: string;
  permission?: Permission;
}

const sections: Section[] = [
  { path: '', name: 'Overview' },
  { path: 'integrations', name: 'Integrations' },
  { path: 'numbers', name: 'Numbers' },
  { path: 'keys', name: 'Keys', permission: 'api_keys:read' },
  { path: 'webhooks', name: 'Webhooks', permission: 'webhooks:read' },
  { path: 'history', name: 'History', permission: 'audit:read' },
];

/** What stands around every view. */
export function Shell({ session, section, children }: PropsWithChildren<{ session: Session; section: string }>) {
  const { organization, key } = session.who;
  return (
    <div class="shell">
      <header class="top">
        <button type="button" class="skip small" onClick={() => document.querySelector<HTMLElement>('h1')?.focus()}>
          Skip to the content
        </button>
        <p class="brand">
          <strong>Patchbay</strong> {organization.name ?? organization.client_id}
        </p>
        <nav aria-label="Views">
          <ul>
            {sections
              .filter(({ permission }) => permission === undefined || session.can(permission))
              .map(({ path, name }) => (
                <li key={name}>
                  <a href={hrefOf(path === '' ? [] : [path])} {...(path === section ? { 'aria-current': 'page' } : {})}>
                    {name}
                  </a>
                </li>
              ))}
          </ul>
        </nav>
        <div class="who">
          <span>
            {key.name} <small>({roleText(key.role)})</small>
          </span>
          <button type="button" class="small secondary" onClick={() => signOut('asked')}>
            Sign out
          </button>
        </div>
      </header>
      <main id="main">
        <Notice />
        <Jobs />
        {children}
      </main>
      <NewSecretDialog />
    </div>
  );
}

/** Tells that the connection is lost. */
export function Connection() {
  const isConnected = useStore(connected);
  return (
    <div role="status" class="connection">
      {!isConnected && (
        <p>
          <span aria-hidden="true">!</span> The connection is lost. What you asked for is sent again as soon as it is
          back, and is done only once.
        </p>
      )}
    </div>
  );
}

/** The work that goes on, and what ended work came to. */
function Jobs() {
  const list = useStore(jobs);
  return (
    <div class="jobs" role="status">
      {list.map((job) => (
        <JobLine key={String(job.id)} job={job} />
      ))}
    </div>
  );
}

function JobLine({ job: { id, title, done, total, state, result, cancel } }: { job: Job }) {
  const isRunning = state === 'running';
  return (
    <div class={`job ${state}`}>
      <p>
        <strong>{title}</strong>{' '}
        {isRunning ? `${done.toLocaleString()}${total === undefined ? '' : ` of ${total.toLocaleString()}`}` : result}
      </p>
      {isRunning && (
        <progress aria-label={title} {...(total === undefined ? {} : { value: done, max: Math.max(total, 1) })} />
      )}
      <button type="button" class="small secondary" onClick={() => (isRunning ? cancel() : dismissJob(id))}>
        {isRunning ? 'Cancel' : 'Dismiss'}
      </button>
    </div>
  );
}
