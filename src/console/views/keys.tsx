import { unwrap } from 'patchbay-client';
import { hasEnded, mayChange, mayRotate, roleText, stateOf } from '../key-state.ts';
import type { ApiKey, KeyState } from '../key-state.ts';
import { usePages } from '../load.ts';
import type { PageQuery, ReadOptions } from '../load.ts';
import { CheckField } from '../parts/form.tsx';
import { More, Table } from '../parts/list.tsx';
import { Page } from '../parts/page.tsx';
import { Badge } from '../parts/status.tsx';
import type { Tone } from '../parts/status.tsx';
import { Age, Time } from '../parts/time.tsx';
import { hrefOf, setQuery } from '../route.ts';
import type { Api, Session } from '../session.ts';
import { useState } from '../state.ts';
import type { ViewProps } from '../view.ts';
import { CreateKey, RenameKey, RevokeKey, RotateKey } from './key-dialogs.tsx';

type Verb = 'rename' | 'rotate' | 'revoke';

type Open = { dialog: 'create' } | { dialog: Verb; key: ApiKey };

export function Keys({ session, query }: ViewProps) {
  const isEndedShown = query.get('ended') === 'shown';
  const [open, setOpen] = useState<Open | undefined>(undefined);
  const pages = usePages(
    (page, options) => (isEndedShown ? listKeys(session.api, page, options) : listAlive(session.api, page, options)),
    [isEndedShown],
  );
  const close = () => setOpen(undefined);
  const done = () => {
    close();
    pages.reload();
  };
  return (
    <Page
      title="Keys"
      actions={
        session.can('api_keys:create') && (
          <button type="button" onClick={() => setOpen({ dialog: 'create' })}>
            Create a key
          </button>
        )
      }
    >
      <CheckField
        name="ended"
        label="Show ended keys"
        hint="Revoked and expired keys are listed for 90 days."
        checked={isEndedShown}
        onChoose={(chosen) => setQuery({ ended: chosen ? 'shown' : undefined })}
      />
      <KeyTable session={session} keys={pages.rows} onOpen={setOpen} />
      <More pages={pages} what="keys" />
      {open?.dialog === 'create' && <CreateKey session={session} onClose={close} onDone={done} />}
      {open?.dialog === 'rename' && <RenameKey session={session} apiKey={open.key} onClose={close} onDone={done} />}
      {open?.dialog === 'rotate' && <RotateKey session={session} apiKey={open.key} onClose={close} onDone={done} />}
      {open?.dialog === 'revoke' && <RevokeKey session={session} apiKey={open.key} onClose={close} onDone={done} />}
    </Page>
  );
}

const listKeys = (api: Api, page: PageQuery, options: ReadOptions) =>
  unwrap(api['api-keys'].$get({ query: { ...page, order: 'desc' } }, options));

/** A page of keys that have not ended. The API has no such filter: it takes as many of its pages as fill this one. */
async function listAlive(api: Api, page: PageQuery, options: ReadOptions) {
  const data: ApiKey[] = [];
  let next = page;
  for (;;) {
    const { data: keys, pagination } = await listKeys(api, next, options);
    data.push(...keys.filter((key) => !hasEnded(key)));
    const { next_cursor } = pagination;
    if (next_cursor === null || data.length >= page.page_size) return { data, pagination: { next_cursor } };
    next = { ...page, cursor: next_cursor };
  }
}

const tones: Record<KeyState, Tone> = { active: 'good', 'ends soon': 'warning', expired: 'neutral', revoked: 'bad' };

interface KeyTableProps {
  session: Session;
  keys: readonly ApiKey[];
  onOpen: (open: Open) => void;
}

const KeyTable = ({ session, keys, onOpen }: KeyTableProps) => (
  <Table label="Keys">
    <thead>
      <tr>
        <th scope="col">Name</th>
        <th scope="col">Status</th>
        <th scope="col">Role</th>
        <th scope="col">Created</th>
        <th scope="col">Last used</th>
        <th scope="col">Expires</th>
        <th scope="col">Actions</th>
      </tr>
    </thead>
    <tbody>
      {keys.map((key) => (
        <KeyRow key={key.key_id} session={session} apiKey={key} onOpen={onOpen} />
      ))}
    </tbody>
  </Table>
);

interface KeyRowProps {
  session: Session;
  apiKey: ApiKey;
  onOpen: (open: Open) => void;
}

function KeyRow({ session, apiKey, onOpen }: KeyRowProps) {
  const { key_id, name, role, prefix, created_at, last_used_at, expires_at } = apiKey;
  const state = stateOf(apiKey);
  const verbs: [verb: Verb, text: string, isOffered: boolean][] = [
    ['rename', 'Rename', session.can('api_keys:update') && mayChange(session, apiKey)],
    ['rotate', 'Rotate', session.can('api_keys:rotate') && mayRotate(session, apiKey)],
    [
      'revoke',
      hasEnded(apiKey) ? 'Revoke what it made' : 'Revoke',
      session.can('api_keys:revoke') && mayChange(session, apiKey),
    ],
  ];
  return (
    <tr>
      <th scope="row">
        {name} {key_id === session.who.key.key_id && <Badge tone="neutral" text="this key" />}
        <br />
        <code>{prefix}…</code>
      </th>
      <td>
        <Badge tone={tones[state]} text={state} />
      </td>
      <td>{roleText(role)}</td>
      <td>
        <Age value={created_at} />
      </td>
      <td>{last_used_at === null ? 'never' : <Age value={last_used_at} />}</td>
      <td>{expires_at === null ? 'never' : <Time value={expires_at} />}</td>
      <td>
        <div class="actions">
          {verbs
            .filter(([, , isOffered]) => isOffered)
            .map(([verb, text]) => (
              <button
                key={verb}
                type="button"
                class={`small ${verb === 'revoke' ? 'danger' : 'secondary'}`}
                aria-label={`${text} ${name} ${prefix}`}
                onClick={() => onOpen({ dialog: verb, key: apiKey })}
              >
                {text}
              </button>
            ))}
          {session.can('audit:read') && (
            <a href={hrefOf(['history'], { actor_key_id: key_id })} aria-label={`What it did: ${name} ${prefix}`}>
              What it did
            </a>
          )}
          {session.can('audit:read') && (
            <a href={hrefOf(['history'], { target_id: key_id })} aria-label={`Its history: ${name} ${prefix}`}>
              Its history
            </a>
          )}
        </div>
      </td>
    </tr>
  );
}
