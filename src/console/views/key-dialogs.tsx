import { unwrap } from 'patchbay-client';
import { isAbove } from '../../worker/core/permissions.ts';
import { roles } from '../../worker/core/vocabulary.ts';
import type { Role } from '../../worker/core/vocabulary.ts';
import { useAct } from '../act.ts';
import { hasEnded, isNoLater, roleText } from '../key-state.ts';
import type { ApiKey } from '../key-state.ts';
import { toUtc } from '../local-time.ts';
import { ActButton } from '../parts/act-button.tsx';
import { Dialog } from '../parts/dialog.tsx';
import { CheckField, Form, SelectField, textOf, TextField } from '../parts/form.tsx';
import { showNewSecret } from '../parts/new-secret.tsx';
import { notify } from '../parts/notice.tsx';
import { OverlapField, overlapOf } from '../parts/overlap.tsx';
import { Problem } from '../parts/problem.tsx';
import { Time } from '../parts/time.tsx';
import { signOut } from '../session.ts';
import type { Session } from '../session.ts';
/** What is done with API keys. */
import { useState } from '../state.ts';

interface DialogProps {
  session: Session;
  onClose: () => void;
  onDone: () => void;
}

interface KeyDialogProps extends DialogProps {
  apiKey: ApiKey;
}

const roleHints: Record<Role, string> = {
  admin: 'It may make every call.',
  agent_manager: 'It may make every call, but not read the history.',
  user: 'It may read integrations and numbers.',
};

function wrongExpiry(local: string, limit: string | null): string | undefined {
  const time = toUtc(local);
  if (Date.parse(time) <= Date.now()) return 'must be in the future';
  return isNoLater(time, limit) ? undefined : 'must not be later than your own key expires';
}

function showKey({ key, raw_key }: { key: ApiKey; raw_key?: string | undefined }, withoutIt: string) {
  const { name, role, prefix, expires_at } = key;
  showNewSecret({
    what: `key ${name}`,
    secret: raw_key,
    withoutSecret: `${withoutIt} Its prefix is ${prefix}.`,
    about: (
      <>
        Role: {roleText(role)}. {expires_at === null ? 'It does not expire.' : 'It expires: '}
        {expires_at !== null && <Time value={expires_at} />}
      </>
    ),
  });
}

export function CreateKey({ session: { api, who }, onClose, onDone }: DialogProps) {
  const [role, setRole] = useState<Role>('user');
  const act = useAct(
    async (json: { name: string; role: Role; expires_at?: string }, headers) =>
      (await unwrap(api['api-keys'].$post({ json }, { headers }))).data,
  );
  async function create(values: FormData) {
    const expiry = textOf(values, 'expires_at');
    const made = await act.run({
      name: textOf(values, 'name'),
      role,
      ...(expiry !== '' && { expires_at: toUtc(expiry) }),
    });
    if (!made) return;
    showKey(made, 'Revoke this key, and create another one.');
    onDone();
  }
  return (
    <Dialog title="Create a key" onClose={onClose} isBusy={act.isBusy}>
      <Form act={act} submit="Create key" onSubmit={(values) => void create(values)} onCancel={onClose}>
        <TextField name="name" label="Name" hint="Who or what uses it. The history shows it." isRequired />
        <SelectField
          name="role"
          label="Role"
          value={role}
          options={roles
            .filter((offered) => !isAbove(offered, who.key.role))
            .map((offered) => [offered, roleText(offered)])}
          hint={roleHints[role]}
          onChoose={(chosen) => setRole(roles.find((known) => known === chosen) ?? 'user')}
        />
        <TextField
          name="expires_at"
          type="datetime-local"
          label="Expires"
          hint={
            who.key.expires_at === null
              ? 'In your time zone. Without a time, it does not expire.'
              : 'In your time zone. Without a time, it expires with your own key. It cannot be later than that.'
          }
          check={(local) => wrongExpiry(local, who.key.expires_at)}
        />
      </Form>
    </Dialog>
  );
}

export function RenameKey({ session: { api }, apiKey, onClose, onDone }: KeyDialogProps) {
  const { key_id } = apiKey;
  const act = useAct((json: { name: string }, headers) =>
    unwrap(api['api-keys'][':key_id'].$put({ param: { key_id }, json }, { headers })),
  );
  async function rename(values: FormData) {
    const name = textOf(values, 'name');
    if (!(await act.run({ name }))) return;
    notify(`Key ${apiKey.name} is now called ${name}.`);
    onDone();
  }
  return (
    <Dialog title={`Rename key ${apiKey.name}`} onClose={onClose} isBusy={act.isBusy}>
      <Form act={act} submit="Rename" onSubmit={(values) => void rename(values)} onCancel={onClose}>
        <TextField
          name="name"
          label="Name"
          value={apiKey.name}
          hint="Events of before keep the name that the key had then."
          isRequired
        />
      </Form>
    </Dialog>
  );
}

export function RotateKey({ session: { api, who }, apiKey, onClose, onDone }: KeyDialogProps) {
  const { key_id } = apiKey;
  const isOwn = key_id === who.key.key_id;
  const act = useAct(
    async (json: { overlap_seconds: number }, headers) =>
      (await unwrap(api['api-keys'][':key_id'].rotate.$post({ param: { key_id }, json }, { headers }))).data,
  );
  async function rotate(values: FormData) {
    const made = await act.run(overlapOf(values));
    if (!made) return;
    showKey(made, 'Revoke this key, and rotate the old one again while it works.');
    onDone();
  }
  return (
    <Dialog title={`Rotate key ${apiKey.name}`} onClose={onClose} isBusy={act.isBusy}>
      <p>A new key with the same name, role and expiry takes its place. The old one works until the overlap is over.</p>
      {isOwn && (
        <p>
          You are signed in with this key. The console goes on with the old key until the overlap is over: sign in with
          the new one before that.
        </p>
      )}
      <Form act={act} submit="Rotate key" onSubmit={(values) => void rotate(values)} onCancel={onClose}>
        <OverlapField
          isNeeded={isOwn}
          hint={
            isOwn
              ? 'Your own key needs one: if the answer were lost, nobody would have the new key.'
              : 'Long enough to bring the new key to all that use the old one.'
          }
        />
      </Form>
    </Dialog>
  );
}

export function RevokeKey({ session: { api, who }, apiKey, onClose, onDone }: KeyDialogProps) {
  const { key_id, name } = apiKey;
  const isOwn = key_id === who.key.key_id;
  const isEnded = hasEnded(apiKey);
  const [withDescendants, setWithDescendants] = useState(isEnded);
  const act = useAct(
    async (descendants: boolean, headers) =>
      (await unwrap(api['api-keys'][':key_id'].$delete({ param: { key_id }, query: { descendants } }, { headers })))
        .data,
  );
  async function revoke() {
    const revoked = await act.run(withDescendants);
    if (!revoked) return;
    const descendants = ('revoked_descendants' in revoked && revoked.revoked_descendants) || [];
    // A replica may let it read for a while, but it can do no more.
    if (isOwn || descendants.some((descendant) => descendant.key_id === who.key.key_id)) return signOut('key_ended');
    const others = `${descendants.length.toLocaleString()} ${descendants.length === 1 ? 'key' : 'keys'} that came from it`;
    notify(withDescendants ? `Key ${name} and ${others} are revoked.` : `Key ${name} is revoked.`);
    onDone();
  }
  return (
    <Dialog title={`Revoke key ${name}`} onClose={onClose} isBusy={act.isBusy}>
      {isEnded ? (
        <p>It has ended already. What is revoked are all keys that come from it and still work.</p>
      ) : (
        <p>
          It changes nothing from now on, and reads nothing after a minute. Whoever uses it gets errors. A revoked key
          never works again.
        </p>
      )}
      {isOwn && (
        <p>
          <strong>You are signed in with this key: you will be signed out.</strong>
        </p>
      )}
      {!isEnded && (
        <CheckField
          name="descendants"
          label="And all keys that come from it"
          hint="Those that it created or rotated, and those that they made. Choose it if the key has leaked."
          onChoose={setWithDescendants}
        />
      )}
      <Problem error={act.error} />
      <div class="actions">
        <button type="button" class="secondary" disabled={act.isBusy} onClick={onClose}>
          Cancel
        </button>
        <ActButton act={act} kind="danger" onAct={revoke}>
          {isEnded ? 'Revoke the keys that come from it' : 'Revoke key'}
        </ActButton>
      </div>
    </Dialog>
  );
}
