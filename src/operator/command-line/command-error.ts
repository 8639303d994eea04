/** Errors of commands: those that the operator can mend are told in one line. */

/** Why a command cannot go on, as a sentence for the operator. */
export class CommandError extends Error {}

/** The text in one line, without characters that a terminal would obey. */
export function inOneLine(text: string): string {
  return text.replaceAll(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16) ?? ''}}`,
  );
}

/** What Node's words for a file mean to the operator. */
const meanings = new Map<unknown, string>([
  ['ENOENT', 'does not exist'],
  ['EEXIST', 'exists already'],
  ['ENOTDIR', 'is in something that is not a directory'],
  ['EACCES', 'may not be used by this user'],
]);

/** Files that are missing or may not be read are the operator's to mend, too. Any other error is a fault of ours. */
function messageForOperator(error: Error): string | undefined {
  if (error instanceof CommandError) return error.message;
  if (!('syscall' in error)) return undefined;
  const meaning = 'code' in error ? meanings.get(error.code) : undefined;
  return meaning !== undefined && 'path' in error ? `${String(error.path)} ${meaning}` : error.message;
}

/**
 * From now on an error that nothing catches ends the command. One for the operator is shown in one line, and the exit
 * code is 2, as for wrong options; any other is shown with its stack, and the exit code is 1.
 */
export function tellErrors(): void {
  process.on('uncaughtException', (error) => {
    const message = messageForOperator(error);
    console.error(message === undefined ? error : inOneLine(message));
    process.exit(message === undefined ? 1 : 2);
  });
}
