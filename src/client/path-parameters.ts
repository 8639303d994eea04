/** Path parameters that stay one segment of the path, whatever is in them. Hono puts them into the path as they are. */

interface Input {
  param?: Record<string, unknown>;
}

/** The same client. Its calls encode their path parameters, and refuse those that no encoding keeps in their place. */
export function encodingParameters<Client extends object>(client: Client): Client {
  return new Proxy(client, {
    get(target, key) {
      const member: unknown = Reflect.get(target, key);
      if (typeof member !== 'function' || typeof key !== 'string') return member;
      if (!key.startsWith('$')) return encodingParameters(member);
      const call = (input?: Input, ...rest: unknown[]): unknown =>
        Reflect.apply(member, undefined, [encoded(input), ...rest]);
      return key === '$url' || key === '$path' ? call : async (...input: Parameters<typeof call>) => call(...input);
    },
  });
}

function encoded(input: Input | undefined): Input | undefined {
  if (input?.param === undefined) return input;
  const param = Object.entries(input.param).map(([name, value]) => [name, encodedSegment(name, value)]);
  return { ...input, param: Object.fromEntries(param) };
}

/** @throws TypeError */
function encodedSegment(name: string, value: unknown): string {
  if (typeof value !== 'string' || ['', '.', '..'].includes(value) || !value.isWellFormed()) {
    throw new TypeError(`The path parameter ${name} must be an id`);
  }
  return encodeURIComponent(value);
}
