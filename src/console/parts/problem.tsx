import { PatchbayError } from 'patchbay-client';
import type { Problem as ProblemBody } from 'patchbay-client';
import { Copy } from './copy.tsx';

const advices: Partial<Record<ProblemBody['code'], string>> = {
  permission_denied: 'Ask somebody with a key of a higher role.',
  credentials_refused:
    'Copy the credentials anew from the provider’s own console. A token may have been replaced there, or belong to another account or region.',
  credentials_limited: 'Look at the provider’s own console: the key may be restricted, or the account suspended.',
  credentials_missing: 'Replace the credentials of this integration.',
  provider_unavailable: 'Try again in a moment. If it goes on, look at the provider’s status page.',
  quota_exceeded: 'Delete what is no longer needed, or ask the operator of this service for more.',
  integration_in_use: 'Move or remove the numbers first.',
  phone_number_assigned: 'Free the numbers first: take them from their agents.',
  internal_error: 'Try again. If it goes on, tell the operator of this service the request id.',
  idempotency_key_reused: 'Reload the page, and look whether it has been done.',
};

/** What the reader can do about an error, where its own sentence does not say so. */
function adviceFor(problem: ProblemBody): string | undefined {
  if ('retry_after_seconds' in problem) return `Wait ${problem.retry_after_seconds} seconds, and try again.`;
  if (problem.code !== 'temporarily_unavailable') return advices[problem.code];
  return problem.outcome === 'not_done'
    ? 'Nothing was done. Try again in a moment.'
    : 'Try again: the same request is never carried out twice.';
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : 'The console failed.');

/** What went wrong, what to do about it, and the id by which the request is found in the log. */
export function Problem({ error, retry }: { error: unknown; retry?: () => void }) {
  if (error === undefined) return null;
  const known = error instanceof PatchbayError ? error : undefined;
  // The only thing that the client throws where there is no answer.
  const isLost = error instanceof DOMException;
  const advice = known?.problem && adviceFor(known.problem);
  const faults = known?.problem?.code === 'validation_failed' ? known.problem.errors : [];
  return (
    <section class="problem" role="alert">
      <p>
        <strong>{known?.problem?.title ?? (isLost ? 'No answer' : 'Unexpected answer')}</strong>
      </p>
      <p>{known?.detail ?? (isLost ? 'There was no answer in time.' : messageOf(error))}</p>
      {faults.length > 0 && (
        <ul>
          {faults.map(({ path, message }) => (
            <li key={path}>
              {path === '' ? '' : <code>{path}</code>} {message}
            </li>
          ))}
        </ul>
      )}
      {advice !== undefined && <p>{advice}</p>}
      {isLost && <p>Try again when you are connected: the same request is never carried out twice.</p>}
      <div class="actions">
        {known?.request_id !== undefined && (
          <span class="request">
            Request <code>{known.request_id}</code> <Copy value={known.request_id} what="request id" />
          </span>
        )}
        {retry && (
          <button type="button" class="secondary" onClick={retry}>
            Try again
          </button>
        )}
      </div>
    </section>
  );
}
