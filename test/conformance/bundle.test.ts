/** What is deployed, counted: an isolate starts by reading all of it. */
import { beforeAll, describe, expect, it } from 'vitest';
import { deployed } from '../bench/bundle.ts';
import type { Bundle } from '../bench/bundle.ts';

const MAX_GZIP_BYTES = 100 * 1024;

let worker: Bundle;

beforeAll(async () => {
  worker = await deployed();
});

describe('the bundle', () => {
  it('is at most 100 KiB, minified and compressed', () => {
    expect(worker.gzipBytes).toBeLessThanOrEqual(MAX_GZIP_BYTES);
  });

  it.each([
    ['messages in other languages', 'Eingabe: erwartet'],
    ['what makes JSON Schema of schemas', 'json-schema.org'],
    ['the OpenAPI document', 'Delete an integration and its credentials'],
    ['the reference page', 'swagger'],
    ['what is written in package.json', 'devDependencies'],
  ])('has no %s in it', (_, text) => {
    expect(worker.code.includes(text)).toBe(false);
  });

  it('can be searched for such text: it has the sentence of the 409', () => {
    expect(worker.code.includes('Integration is still referenced by phone numbers')).toBe(true);
  });
});
