/** Path parameters that stay one segment of the path, whatever is in them. Hono puts them into the path as they are. */

interface Input {
  param?: Record<string, unknown>;
}

/**
 * The same client. Its calls encode their path parameters, and refuse those that are missing or that no encoding keeps in
 * their place.
 *
 * @param names the parameters of the path so far
 */
export function encodingParameters<Client extends object>(client: Client, names: string[] = []): Client {
  return new Proxy(client, {
    get(target, key) {
      const member: unknown = Reflect.get(target, key);
      if (typeof member !== 'function' || typeof key !== 'string') return member;
      if (!key.startsWith('$'))
        return encodingParameters(member, key.startsWith(':') ? [...names, key.slice(1)] : names);
      const call = (input?: Input, ...rest: unknown[]): unknown =>
        Reflect.apply(member, undefined, [encoded(names, input), ...rest]);
      return key === '$url' || key === '$path' ? call : async (...input: Parameters<typeof call>) => call(...input);
    },
  });
}

function encoded(names: string[], input: Input | undefined): Input | undefined {
  if (names.length === 0) return input;
  const param = names.map((name) => [name, encodedSegment(name, input?.param?.[name])]);
  return { ...input, param: Object.fromEntries(param) };
}

/** @throws TypeError */
function encodedSegment(name: string, value: unknown): string {
  if (typeof value !== 'string' || ['', '.', '..'].includes(value) || !value.isWellFormed()) {
    throw new TypeError(`The path parameter ${name} must be an id`);
  }
  return encodeURIComponent(value);
}
