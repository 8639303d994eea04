import { run } from '../processes.ts';

/** Runs a printed line in a shell, as it was printed. */
export async function shell(line: string): Promise<{ status: number; body: unknown }> {
  const { stdout } = await run('sh', ['-c', `${line} --silent --show-error --write-out '\\n%{http_code}'`]);
  const [body = '', status] = stdout.split('\n');
  return { status: Number(status), body: JSON.parse(body) };
}
