/** What a SIP trunk needs: the address of its server, to which the platform connects, and its user. */
import * as z from 'zod/mini';
import { secretFormat, secretText, text, userName, visibleName } from '../core/text.ts';
import type { TextRule } from '../core/text.ts';
import { mediaEncryptions, sipTransports } from '../core/vocabulary.ts';

const FORM =
  'must be a host name, an IPv4 address or an [IPv6] address, which may be followed by : and a port from 1 to 65535';
const FORBIDDEN = 'must not be a loopback, link-local, multicast, metadata or unspecified address';

const MAX_HOST_LENGTH = 253;
const MAX_PORT = 65_535;

/**
 * RFC 1123 §2.1. The last label is not a number, because programs take such a name for an IPv4 address
 * (https://url.spec.whatwg.org/#ends-in-a-number-checker).
 */
const hostName = /^(?:[a-z\d](?:[a-z\d-]{0,61}[a-z\d])?\.)*(?!(?:\d+|0x[\da-f]*)$)[a-z\d](?:[a-z\d-]{0,61}[a-z\d])?$/i;

const ipv4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;

/**
 * Names and addresses that lead a machine to itself, or to where a cloud gives it its secrets (metadata). The metadata of
 * most clouds is at the link-local 169.254.169.254; the others are those of AWS, Google, Azure, Alibaba, Oracle and
 * Scaleway.
 */
const forbidden = {
  names:
    /^(?:(?:.*\.)?localhost|localhost\.localdomain|localhost6|ip6-(?:localhost|loopback)|metadata|instance-data|metadata\.goog|metadata\.google\.internal)$/i,
  ipv4: /^(?:0|127|22[4-9]|23\d)\.|^169\.254\.|^(?:255\.255\.255\.255|168\.63\.129\.16|100\.100\.100\.200|192\.0\.0\.192)$/,
  ipv6: /^(?:::1?|fe[89ab].:.*|ff..:.*|fd00:ec2::(?:254|23)|fd20:ce::254|fd00:42::42)$/,
};

/**
 * IPv6 addresses that stand for IPv4 addresses, and so for forbidden ones too: ::/96, ::ffff:0:0/96, ::ffff:0:0:0/96,
 * 64:ff9b::/96, 2002::/16 and 2001::/32.
 */
const ipv4InIpv6 = /^(?:::(?:ffff:(?:0:)?)?[\da-f]+(?::[\da-f]+)?|64:ff9b:.*|2002:.*|2001:(?::|0:).*)$/;

/** A host with an optional port (docs/contract.md, Phone numbers). */
export const isServerAddress: TextRule = (address) => {
  if (address.includes('@')) return 'must be a host; put the user in sip_username and the password in sip_password';
  if (!/^\p{ASCII}*$/u.test(address)) return `${FORM}; write an international name in its A-label form (xn--…)`;
  const [, ipv6, host = '', port] = /^(?:\[([^[\]]*)\]|([^:]*))(?::(.*))?$/.exec(address) ?? [];
  if (port !== undefined && !(/^[1-9]\d{0,4}$/.test(port) && Number(port) <= MAX_PORT)) return FORM;
  return ipv6 === undefined ? faultOfHost(host) : faultOfIpv6(ipv6);
};

function faultOfHost(host: string): string | undefined {
  if (ipv4.test(host)) return forbidden.ipv4.test(host) ? FORBIDDEN : undefined;
  if (!hostName.test(host) || host.length > MAX_HOST_LENGTH) return FORM;
  return forbidden.names.test(host) ? FORBIDDEN : undefined;
}

/** A URL has the address in its shortest form (RFC 5952), whatever form it was given in. */
function faultOfIpv6(address: string): string | undefined {
  const { hostname = '' } = URL.parse(`http://[${address}]`) ?? {};
  const [, shortest] = /^\[(.+)\]$/.exec(hostname) ?? [];
  if (shortest === undefined || !/^[\da-f:.]+$/i.test(address)) return FORM;
  if (forbidden.ipv6.test(shortest)) return FORBIDDEN;
  return address.includes('.') || ipv4InIpv6.test(shortest)
    ? 'must have an IPv4 address in its own form, not inside an IPv6 address'
    : undefined;
}

/** The user of SIP's authentication. A colon ends it in SIP URIs and in digests (RFC 3261 §19.1.1, RFC 7616 §3.4.2). */
export const isSipUser: TextRule = (user) => {
  if (/:|%3a/i.test(user)) return 'must not contain a colon; put the password in sip_password';
  return /\s/.test(user) ? 'must not contain white space' : undefined;
};

/** The fields that only SIP numbers have. */
export const sipFields = () => ({
  sip_trunk_name: visibleName(100),
  sip_username: userName(100, isSipUser),
  sip_password: secretText(256),
  sip_server_address: text(1, 259, isServerAddress).check(z.toLowerCase()),
  sip_transport: z.enum(sipTransports),
  inbound_room_name: visibleName(100),
  inbound_pin: z
    .string()
    .check(z.regex(/^\d{4,10}$/, 'must be 4 to 10 digits, 0 to 9'))
    .register(z.globalRegistry, secretFormat),
  media_encryption: z.enum(mediaEncryptions),
});
