import { expect, it } from 'vitest';
import * as z from 'zod';
import kept from '../../public/openapi.json' with { type: 'json' };
import { breakingChanges } from '../../src/dev/breaking-changes.ts';

const record = z.record(z.string(), z.any());

/** The object itself, and not a copy of it. */
const object = z.custom<z.output<typeof record>>((value) => typeof value === 'object' && value !== null);

/** The document after a change of the object at this path. */
function changed(path: string[], change: (found: z.output<typeof object>) => void): unknown {
  const document: unknown = structuredClone(kept);
  change(path.reduce((found: z.output<typeof object>, name) => object.parse(found[name]), object.parse(document)));
  return document;
}

const schema = (name: string) => ['components', 'schemas', name];
const properties = (name: string) => [...schema(name), 'properties'];
const operation = (path: string, method: string) => ['paths', path, method];
const without = (list: string[], name: string) => list.filter((one) => one !== name);

it('finds nothing in a document that did not change', () => {
  expect(breakingChanges(kept, structuredClone(kept))).toEqual([]);
});

it.each([
  ['a path', ['paths'], (paths) => delete paths['/api/audit-events'], 'GET /api/audit-events: is gone'],
  [
    'a method',
    ['paths', '/api/integrations/{integration_id}'],
    (path) => delete path['delete'],
    'DELETE /api/integrations/{integration_id}: is gone',
  ],
  [
    'a status',
    [...operation('/api/integrations', 'get'), 'responses'],
    (responses) => delete responses['200'],
    'GET /api/integrations: 200 is gone',
  ],
  [
    'a query parameter',
    operation('/api/integrations', 'get'),
    (call) => call['parameters'].splice(1, 1),
    'GET /api/integrations: query parameter provider is gone',
  ],
  [
    'that a header is optional',
    [...operation('/api/integrations', 'post'), 'parameters', '2'],
    (header) => (header['required'] = true),
    'POST /api/integrations: header parameter Idempotency-Key is required now',
  ],
  [
    'a certain header of an answer',
    ['components', 'headers', 'X-Request-Id'],
    (header) => delete header['required'],
    'GET /health: 200 may lack the header X-Request-Id now',
  ],
  [
    'what secures a call',
    operation('/health', 'get'),
    (call) => delete call['security'],
    'GET /health: security is another',
  ],
  [
    'that a field may be left out',
    schema('NewApiKey'),
    (body) => body['required'].push('expires_at'),
    'POST /api/api-keys: the body, expires_at is required now',
  ],
  [
    'a field that was accepted',
    properties('NewApiKey'),
    (fields) => delete fields['expires_at'],
    'POST /api/api-keys: the body, expires_at is refused now',
  ],
  [
    'a value that was accepted',
    [...properties('NewApiKey'), 'role'],
    (role) => (role['enum'] = without(role['enum'], 'user')),
    'POST /api/api-keys: the body, role user is refused now',
  ],
  [
    'null for a field',
    [...properties('NewApiKey'), 'expires_at'],
    (time) => (time['type'] = 'string'),
    'POST /api/api-keys: the body, expires_at null is refused now',
  ],
  [
    'the length that is accepted',
    [...properties('NewApiKey'), 'name'],
    (name) => (name['maxLength'] = 50),
    'POST /api/api-keys: the body, name has a stricter maxLength',
  ],
  [
    'the form that is accepted',
    [...properties('NewApiKey'), 'name'],
    (name) => (name['pattern'] = '^a'),
    'POST /api/api-keys: the body, name has a stricter pattern',
  ],
  [
    'an alternative of a body',
    schema('IntegrationCredentials'),
    (union) => union['oneOf'].pop(),
    'POST /api/integrations: the body, credentials “Plivo” is gone or changed',
  ],
  [
    'a field of an answer',
    schema('Integration'),
    (answer) => (answer['required'] = without(answer['required'], 'name')),
    'GET /api/integrations/{integration_id}: 200, data, name may be absent now',
  ],
  [
    'the type of a field of an answer',
    [...properties('Integration'), 'name'],
    (name) => (name['type'] = 'integer'),
    'GET /api/integrations/{integration_id}: 200, data, name integer is possible now',
  ],
  [
    'the values of a field of an answer',
    [...properties('Integration'), 'status'],
    (status) => status['enum'].push('new'),
    'GET /api/integrations/{integration_id}: 200, data, status new is possible now',
  ],
  [
    'a field of a problem',
    schema('IntegrationInUseProblem'),
    (body) => (body['required'] = without(body['required'], 'references')),
    'DELETE /api/integrations/{integration_id}: 409 “Integration is in use” is gone or changed',
  ],
] satisfies [string, string[], (found: z.output<typeof object>) => unknown, string][])(
  'finds a change of %s',
  (_, path, change, sentence) => {
    expect(breakingChanges(kept, changed(path, change))).toContain(sentence);
  },
);

it.each([
  ['a new call', ['paths'], (paths) => (paths['/api/new'] = paths['/health'])],
  [
    'a new optional parameter',
    operation('/api/integrations', 'get'),
    (call) => call['parameters'].push({ name: 'new', in: 'query', schema: { type: 'string' } }),
  ],
  ['a new optional field', properties('NewApiKey'), (fields) => (fields['new'] = { type: 'string' })],
  ['a new value that is accepted', [...properties('NewApiKey'), 'role'], (role) => role['enum'].push('new')],
  ['a new alternative of a body', schema('IntegrationCredentials'), (union) => union['oneOf'].push({ title: 'New' })],
  [
    'a new field of an answer',
    schema('Integration'),
    (answer) => {
      answer['properties']['new'] = { type: 'string' };
      answer['required'].push('new');
    },
  ],
  [
    'a new status',
    [...operation('/api/integrations', 'get'), 'responses'],
    (responses) => (responses['418'] = responses['500']),
  ],
  ['another description', schema('Integration'), (answer) => (answer['description'] = 'New.')],
] satisfies [string, string[], (found: z.output<typeof object>) => unknown][])(
  'does not mind %s',
  (_, path, change) => {
    expect(breakingChanges(kept, changed(path, change))).toEqual([]);
  },
);
