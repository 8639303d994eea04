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

/** Files that are missing or may not be read are the operator's to mend, too. Any other error is a fault of ours. */
const isForOperator = (error: Error) => error instanceof CommandError || 'syscall' in error;

/** From now on an error that nothing catches ends the command with 1. One for the operator is shown without its stack. */
export function tellErrors(): void {
  process.on('uncaughtException', (error) => {
    console.error(isForOperator(error) ? inOneLine(error.message) : error);
    process.exit(1);
  });
}
