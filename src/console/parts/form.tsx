import type { PropsWithChildren } from 'hono/jsx';
import { createContext, useContext, useEffect, useId, useMemo, useRef } from 'hono/jsx/dom';
import { PatchbayError } from 'patchbay-client';
import { useState } from '../state.ts';
import { Problem } from './problem.tsx';

/** What the API said of fields, by their paths. */
type FieldErrors = Record<string, string>;

const FieldErrorsContext = createContext<FieldErrors>({});

function fieldErrorsOf(error: unknown): FieldErrors {
  if (!(error instanceof PatchbayError) || error.problem?.code !== 'validation_failed') return {};
  return Object.fromEntries(error.problem.errors.map(({ path, message }) => [path, message]));
}

interface FormProps {
  /** What sends it: whether it is under way, and what refused it. */
  act: { isBusy: boolean; error: unknown };
  onSubmit: (values: FormData) => void;
  /** Text of the button. */
  submit: string;
  /** There is nothing to send yet. */
  isDisabled?: boolean;
  onCancel?: () => void;
}

/** A form whose fields show what the API said of them. The first of those gets the focus. */
export function Form({ act, onSubmit, submit, isDisabled = false, onCancel, children }: PropsWithChildren<FormProps>) {
  const element = useRef<HTMLFormElement>(null);
  const errors = useMemo(() => fieldErrorsOf(act.error), [act.error]);
  useEffect(() => element.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus(), [errors]);
  return (
    <form
      ref={element}
      onSubmit={(event: Event) => {
        event.preventDefault();
        if (element.current && !act.isBusy) onSubmit(new FormData(element.current));
      }}
    >
      <FieldErrorsContext.Provider value={errors}>{children}</FieldErrorsContext.Provider>
      <Problem error={act.error} />
      <div class="actions">
        <button type="submit" disabled={isDisabled} aria-busy={act.isBusy ? 'true' : 'false'}>
          {submit}
        </button>
        {onCancel && (
          <button type="button" class="secondary" disabled={act.isBusy} onClick={onCancel}>
            Cancel
          </button>
        )}
      </div>
    </form>
  );
}

/** A value of a form, as text; without the field, it is empty. */
export function textOf(values: FormData, name: string): string {
  const value = values.get(name);
  return typeof value === 'string' ? value : '';
}

interface FieldProps {
  name: string;
  label: string;
  /** By what the API names it in its errors; its name if absent. */
  path?: string;
  hint?: string;
  isRequired?: boolean;
  /** Its value cannot be given now; the hint says why. */
  isDisabled?: boolean;
}

interface TextFieldProps extends FieldProps {
  type?: 'text' | 'password' | 'datetime-local' | 'number' | 'search';
  /** At the beginning. Never a secret: it is an attribute in the page. */
  value?: string;
  isLong?: boolean;
  /** What is wrong with a text, told while it is entered. */
  check?: (text: string) => string | undefined;
  onType?: (text: string) => void;
  placeholder?: string;
}

/** What is wrong with a field: what was just found, or what the API said and is not yet changed. */
function useFieldError(
  { name, path = name }: FieldProps,
  check?: TextFieldProps['check'],
  onType?: TextFieldProps['onType'],
) {
  const errors = useContext(FieldErrorsContext);
  const [found, setFound] = useState<string | undefined>(undefined);
  const [changed, setChanged] = useState<FieldErrors | undefined>(undefined);
  return {
    error: changed === errors ? found : errors[path],
    onInput: ({ target }: Event) => {
      setChanged(errors);
      if (!(target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement)) return;
      setFound(target.value === '' ? undefined : check?.(target.value));
      onType?.(target.value);
    },
  };
}

/** What is said of a field, below it. */
const Said = ({ id, hint, error }: { id: string; hint: string | undefined; error: string | undefined }) => (
  <small id={id} class={error === undefined ? '' : 'field-error'}>
    {error ?? hint ?? ''}
  </small>
);

/** A line of text, or a secret, which is hidden. */
export function TextField(props: TextFieldProps) {
  const {
    name,
    label,
    hint,
    isRequired = false,
    isDisabled = false,
    type = 'text',
    value,
    isLong,
    placeholder,
  } = props;
  const id = useId();
  const { error, onInput } = useFieldError(props, props.check, props.onType);
  const said = {
    id,
    name,
    'aria-describedby': `${id}-said`,
    ...(error === undefined ? {} : { 'aria-invalid': 'true' as const }),
    // Browsers ignore `off` for passwords, and would fill one saved for this page into another provider's field.
    autocomplete: type === 'password' ? ('new-password' as const) : ('off' as const),
    autocapitalize: 'none' as const,
    spellcheck: false,
    required: isRequired,
    disabled: isDisabled,
    ...(placeholder === undefined ? {} : { placeholder }),
    onInput,
  };
  return (
    <div class="field">
      <label for={id}>
        {label}
        {isRequired || type === 'search' ? '' : <span class="optional"> (optional)</span>}
      </label>
      {isLong === true ? (
        <textarea {...said} rows={4} />
      ) : (
        <input {...said} type={type} {...(value === undefined ? {} : { value })} />
      )}
      <Said id={`${id}-said`} hint={hint} error={error} />
    </div>
  );
}

interface SelectFieldProps extends FieldProps {
  /** Values and their texts. */
  options: readonly (readonly [value: string, text: string])[];
  value?: string;
  onChoose?: (value: string) => void;
}

/** Words that are their own texts. */
export const asOptions = (words: readonly string[]) => words.map((word) => [word, word] as const);

/** These words, or none of them. */
export const anyOr = (words: readonly string[], nameOf = (word: string) => word.replace('_', ' ')) => [
  ['', 'any'] as const,
  ...words.map((word) => [word, nameOf(word)] as const),
];

/** One of several values. */
export function SelectField(props: SelectFieldProps) {
  const { name, label, hint, isRequired = false, isDisabled = false, options, value, onChoose } = props;
  const id = useId();
  const { error, onInput } = useFieldError({ ...props });
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select
        id={id}
        name={name}
        required={isRequired}
        disabled={isDisabled}
        aria-describedby={`${id}-said`}
        onInput={(event: Event) => {
          onInput(event);
          if (event.target instanceof HTMLSelectElement) onChoose?.(event.target.value);
        }}
      >
        {options.map(([optionValue, text]) => (
          <option key={optionValue} value={optionValue} selected={optionValue === value}>
            {text}
          </option>
        ))}
      </select>
      <Said id={`${id}-said`} hint={hint} error={error} />
    </div>
  );
}

interface CheckFieldProps extends FieldProps {
  checked?: boolean;
  onChoose?: (checked: boolean) => void;
}

/** Yes or no. */
export function CheckField({ name, label, hint, checked = false, onChoose }: CheckFieldProps) {
  const id = useId();
  return (
    <div class="field check">
      <label for={id}>
        <input
          type="checkbox"
          id={id}
          name={name}
          checked={checked}
          {...(hint === undefined ? {} : { 'aria-describedby': `${id}-said` })}
          onInput={({ target }: Event) => target instanceof HTMLInputElement && onChoose?.(target.checked)}
        />
        {label}
      </label>
      {hint !== undefined && <small id={`${id}-said`}>{hint}</small>}
    </div>
  );
}
