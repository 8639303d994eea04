import { Table } from './list.tsx';

/** What both sides say of a field that differs. */
interface Difference {
  name: string;
  mine: string;
  theirs: string;
}

/** @param mine the heading of that side */
const Sides = ({ fields, mine }: { fields: readonly Difference[]; mine: string }) => (
  <Table label="What differs">
    <thead>
      <tr>
        <th scope="col">Field</th>
        <th scope="col">{mine}</th>
        <th scope="col">Now</th>
      </tr>
    </thead>
    <tbody>
      {fields.map((field) => (
        <tr key={field.name}>
          <th scope="row">{field.name}</th>
          <td>{field.mine}</td>
          <td>{field.theirs}</td>
        </tr>
      ))}
    </tbody>
  </Table>
);

interface ChangedProps {
  fields: readonly Difference[];
  isBusy: boolean;
  /** Sends the same change again, now that the other one is known. */
  onKeepMine: () => void;
  /** Drops the change. */
  onTakeTheirs: () => void;
}

/** For a 412: somebody else changed the same thing, and nothing was done. */
export const Changed = ({ fields, isBusy, onKeepMine, onTakeTheirs }: ChangedProps) => (
  <section class="panel warning" role="alert">
    <p>
      <strong>Somebody changed this meanwhile.</strong> Nothing of your change was done.
    </p>
    <Sides fields={fields} mine="Yours" />
    <div class="actions">
      <button type="button" onClick={onTakeTheirs}>
        Leave it as it is now
      </button>
      <button type="button" class="secondary" aria-busy={isBusy ? 'true' : 'false'} onClick={onKeepMine}>
        Use my values
      </button>
    </div>
  </section>
);

/** For the 412 of a delete: what is there now is not what was seen. */
export const ChangedSince = ({ fields }: { fields: readonly Difference[] }) => (
  <section class="panel warning" role="alert">
    <p>
      <strong>Somebody changed this meanwhile.</strong> Nothing was deleted. Look at what is here now, and decide anew.
    </p>
    {fields.length > 0 && <Sides fields={fields} mine="Then" />}
  </section>
);
