import { env } from 'cloudflare:workers';
import { describe, expect, it } from 'vitest';
import { call, newClient } from '../fixtures.ts';
import { createEndpoint, deliveriesOf, endpointAt, newReceiver, rename, verifiedEndpoint, wake } from './receivers.ts';

/** Where no event may go, whoever asks for it. */
const forbidden = [
  // Loopback, in every notation of IPv4.
  'https://127.0.0.1/',
  'https://127.0.0.1./',
  'https://127.1/',
  'https://127.0.1/',
  'https://2130706433/',
  'https://017700000001/',
  'https://0177.0.0.1/',
  'https://0177.0.0.01/',
  'https://0x7f000001/',
  'https://0x7f.0.0.1/',
  'https://0X7F.0x0.0x0.0x1/',
  'https://0x7f.1/',
  'https://127.0.0.1:8443/',
  'https://%31%32%37.0.0.1/',
  'https://127%2e0%2e0%2e1/',
  'https://127.255.255.254/',
  'https://0.0.0.0/',
  'https://0/',
  'https://0x0/',
  // Private, link-local, shared, reserved and multicast networks, and the metadata of clouds.
  'https://10.0.0.1/',
  'https://10.255.255.255/',
  'https://167772161/',
  'https://012.0.0.1/',
  'https://172.16.0.1/',
  'https://172.31.255.255/',
  'https://192.168.1.1/',
  'https://0xc0a80101/',
  'https://169.254.169.254/latest/meta-data/',
  'https://2852039166/',
  'https://0xa9fea9fe/',
  'https://0251.0376.0251.0376/',
  'https://100.64.0.1/',
  'https://100.100.100.200/',
  'https://192.0.0.192/',
  'https://192.0.2.1/',
  'https://192.88.99.1/',
  'https://198.18.0.1/',
  'https://198.51.100.1/',
  'https://203.0.113.1/',
  'https://168.63.129.16/',
  'https://224.0.0.1/',
  'https://239.255.255.255/',
  'https://240.0.0.1/',
  'https://255.255.255.255/',
  // IPv6: loopback, unspecified, unique local, link-local, multicast, and IPv4 inside of it.
  'https://[::1]/',
  'https://[0:0:0:0:0:0:0:1]/',
  'https://[::]/',
  'https://[::ffff:127.0.0.1]/',
  'https://[::ffff:7f00:1]/',
  'https://[::ffff:a9fe:a9fe]/',
  'https://[::127.0.0.1]/',
  'https://[64:ff9b::7f00:1]/',
  'https://[64:ff9b:1::1]/',
  'https://[2002:7f00:1::]/',
  'https://[2001::1]/',
  'https://[2001:0:7f00:1::]/',
  'https://[2001:db8::1]/',
  'https://[2001:10::1]/',
  'https://[3fff::1]/',
  'https://[fc00::1]/',
  'https://[fd00:ec2::254]/',
  'https://[fe80::1]/',
  'https://[fec0::1]/',
  'https://[ff02::1]/',
  'https://[100::1]/',
  // Names of the machine itself and of private networks.
  'https://localhost/',
  'https://LOCALHOST/',
  'https://localhost./',
  'https://localhost../',
  'https://api.localhost/',
  'https://localhost.localdomain/',
  'https://printer.local/',
  'https://metadata.google.internal/computeMetadata/v1/',
  'https://metadata.google.internal./',
  'https://metadata.goog/',
  'https://metadata/',
  'https://instance-data/',
  'https://intranet/',
  'https://router.lan/',
  'https://nas.home.arpa/',
  'https://kubernetes.default.svc/',
  'https://db.corp/',
  // International names and digits that mean one of these.
  'https://１２７.０.０.１/',
  'https://①②⑦.⓪.⓪.①/',
  'https://127。0。0。1/',
  'https://ｌｏｃａｌｈｏｓｔ/',
  'https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/',
  'https://bücher.example/',
  // A user, a password, or what looks like one.
  'https://user@hooks.example.com/',
  'https://user:password@hooks.example.com/',
  'https://:password@hooks.example.com/',
  'https://@hooks.example.com/',
  'https:user@hooks.example.com/',
  'https:/user:password@hooks.example.com/',
  'https:///user@hooks.example.com/',
  'https:127.0.0.1/',
  'https:/10.0.0.1/',
  'https://hooks.example.com@127.0.0.1/',
  'https://hooks.example.com\\@127.0.0.1/',
  'https:\\\\127.0.0.1/',
  'https://hooks.example.com:443@127.0.0.1/',
  // Other schemes and ports, and what is no URL.
  'http://hooks.example.com/',
  'http://10.0.0.1:8080/',
  'ftp://hooks.example.com/',
  'file:///etc/passwd',
  'javascript:alert(1)',
  'data:text/plain,x',
  'wss://hooks.example.com/',
  'https://hooks.example.com:22/',
  'https://hooks.example.com:80/',
  'https://hooks.example.com:1023/',
  'https://hooks.example.com:0/',
  'https://hooks.example.com:65536/',
  'https://',
  'https:///',
  'https://.../',
  'https://hooks .example.com/',
  ' https://hooks.example.com/',
  'https://hooks.example.com/#part',
  '//hooks.example.com/',
  'hooks.example.com',
  '/hook',
  // This API.
  'https://patchbay.test/',
  'https://PATCHBAY.test./hook',
  'https://patchbay.test:8443/hook',
];

describe('a URL to which no event may be sent', () => {
  it.each(forbidden)('is refused when an endpoint is created or changed: %s', async (url) => {
    const client = await newClient();
    const refusal = { status: 422, body: { code: 'validation_failed', errors: [{ path: 'url' }] } };
    const creation = { body: { url, events: ['*'] } };
    expect(await call(client, 'POST', '/api/webhook-endpoints', creation)).toMatchObject(refusal);
    const { body } = await call(client, 'GET', '/api/webhook-endpoints');
    expect(body).toMatchObject({ data: [] });

    const endpoint = await createEndpoint(client);
    expect(await call(client, 'PUT', endpoint.path, { body: { url } })).toMatchObject(refusal);
    expect(await endpointAt(client, endpoint)).toMatchObject({ url: endpoint.url });
  });

  // Which hosts are the API's own is known only while it is called.
  const unsent = forbidden.filter((url) => !/patchbay\.test/i.test(url));
  it.each(unsent)('is not called, if a row has it all the same: %s', async (url) => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await env.DB.prepare('UPDATE webhook_endpoints SET url = ? WHERE endpoint_id = ?')
      .bind(url, endpoint.endpoint_id)
      .run();
    await rename(client, 'Renamed');
    await wake([client.organization_id]);
    const [delivery] = await deliveriesOf(client, endpoint);
    expect(delivery).toMatchObject({ status: 'retrying', response_status: null, duration_ms: 0 });
    expect(delivery?.last_error).toMatch(/^The URL must /);
  });

  it('is one of the loopback too, unless development allows it', async () => {
    const client = await newClient();
    const bindings = { ...env, WEBHOOKS_TO_LOOPBACK: '' };
    const creation = { bindings, body: { url: newReceiver(), events: ['*'] } };
    const answer = await call(client, 'POST', '/api/webhook-endpoints', creation);
    expect(answer).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'url', message: 'must begin with https://' }] },
    });

    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'Renamed');
    await wake([client.organization_id], bindings);
    expect(await deliveriesOf(client, endpoint)).toMatchObject([
      { status: 'retrying', response_status: null, last_error: 'The URL must begin with https://.' },
    ]);
  });
});

describe('a URL to which events may be sent', () => {
  it.each([
    'https://hooks.example.com/',
    'https://hooks.example.com',
    'https://HOOKS.example.com:443/path?query=1',
    'https://hooks.example.com:1024/',
    'https://hooks.example.com:65535/',
    'https://hooks.example.com./',
    'https://xn--bcher-kva.example/',
    'https://hooks.example.com/a@b',
    'https://hooks.example.com/?to=a@b',
    'https://93.184.215.14/',
    'https://172.32.0.1/',
    'https://100.128.0.1/',
    'https://[2606:4700:4700::1111]/',
    'https://[2001:4860:4860::8888]/',
    'https://local.example.com/',
    'https://localhost.example.com/',
    'https://10.example.com/',
    'http://127.0.0.1:8788/',
    'http://localhost:8788/',
    'http://[::1]:8788/',
  ])('is stored as it was given: %s', async (url) => {
    const client = await newClient();
    const { status, body } = await call(client, 'POST', '/api/webhook-endpoints', { body: { url, events: ['*'] } });
    expect(status).toBe(201);
    expect(body).toMatchObject({ data: { endpoint: { url } } });
  });
});
