import { SelectField, textOf } from './form.tsx';

const overlaps = [
  ['0', 'None: it ends now'],
  ['3600', '1 hour'],
  ['86400', '1 day'],
  ['604800', '7 days'],
] as const;

/** How long what is rotated still works. @param isNeeded it must not end now */
export const OverlapField = ({ isNeeded = false, hint }: { isNeeded?: boolean; hint: string }) => (
  <SelectField
    name="overlap_seconds"
    label="Overlap"
    value="86400"
    options={isNeeded ? overlaps.slice(1) : overlaps}
    hint={hint}
  />
);

export const overlapOf = (values: FormData) => ({ overlap_seconds: Number(textOf(values, 'overlap_seconds')) });
