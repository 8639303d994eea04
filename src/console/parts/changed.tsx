import { Table } from './list.tsx';

interface ChangedProps {
  /** What both sides say of each field that differs. */
  fields: readonly { name: string; mine: string; theirs: string }[];
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
    <Table label="Your values and those of now">
      <thead>
        <tr>
          <th scope="col">Field</th>
          <th scope="col">Yours</th>
          <th scope="col">Now</th>
        </tr>
      </thead>
      <tbody>
        {fields.map(({ name, mine, theirs }) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{mine}</td>
            <td>{theirs}</td>
          </tr>
        ))}
      </tbody>
    </Table>
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
