const ORGANIZATION_HEADER = 'X-Organization-Id';

const caller = document.getElementById('caller');
const apiKey = document.getElementById('api-key');
const organization = document.getElementById('organization');
caller.hidden = false;

const dark = matchMedia('(prefers-color-scheme: dark)');
const followColorScheme = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', followColorScheme);
followColorScheme();

// The page takes no settings from its URL, and sends calls to its own host alone: its Content-Security-Policy allows no other.
SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#reference',
  deepLinking: true,
  displayRequestDuration: true,
  queryConfigEnabled: false,
  tryItOutEnabled: true,
  validatorUrl: null,
  requestInterceptor: addCaller,
  plugins: [{ statePlugins: { spec: { wrapActions: { updateJsonSpec } } } }],
});

function updateJsonSpec(update) {
  return (document) => update(simplify(document));
}

function addCaller(request) {
  if (!new URL(request.url, location.href).pathname.startsWith('/api/')) return request;
  if (apiKey.value) request.headers['X-API-Key'] = apiKey.value;
  if (organization.value) request.headers[ORGANIZATION_HEADER] = organization.value;
  return request;
}

/** Takes out what the form above asks for once, and other servers than this one. */
function simplify(document) {
  delete document.servers;
  delete document.security;
  delete document.components.securitySchemes;
  for (const operation of Object.values(document.paths).flatMap((methods) => Object.values(methods))) {
    delete operation.security;
    operation.parameters = (operation.parameters ?? []).filter(({ name }) => name !== ORGANIZATION_HEADER);
  }
  return document;
}
