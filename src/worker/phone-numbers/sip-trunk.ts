/** What a SIP trunk needs: the address of its server, to which the platform connects, and its user. */
import ipaddr from 'ipaddr.js';
import type { TextRule } from '../core/text.ts';

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

const forbiddenNames = /^(?:.*\.)?(?:localhost|localhost\.localdomain|metadata\.google\.internal)$/i;

const forbiddenRanges = new Set(['unspecified', 'loopback', 'linkLocal', 'multicast', 'broadcast']);

/** Where clouds give a machine its secrets. The usual 169.254.169.254 is link-local. */
const metadataAddresses = new Set(['fd00:ec2::254', '100.100.100.200', '192.0.0.192']);

/** Ranges that stand for IPv4 addresses, so for forbidden ones too. */
const ipv4InIpv6 = new Set(['ipv4Mapped', 'rfc6145', 'rfc6052', '6to4', 'teredo']);
const ipv4Compatible = ipaddr.IPv6.parseCIDR('::/96');

/** A host with an optional port (docs/contract.md, Phone numbers). */
export const isServerAddress: TextRule = (address) => {
  if (address.includes('@')) return 'must be a host; put the user in sip_username and the password in sip_password';
  if (!/^\p{ASCII}*$/u.test(address)) return `${FORM}; write an international name in its A-label form (xn--…)`;
  const [, ipv6, host = '', port] = /^(?:\[([^[\]]*)\]|([^:]*))(?::(.*))?$/.exec(address) ?? [];
  if (port !== undefined && !(/^[1-9]\d{0,4}$/.test(port) && Number(port) <= MAX_PORT)) return FORM;
  return ipv6 === undefined ? faultOfHost(host) : faultOfIpv6(ipv6);
};

function faultOfHost(host: string): string | undefined {
  if (ipaddr.IPv4.isValidFourPartDecimal(host)) return faultOfAddress(ipaddr.IPv4.parse(host));
  if (!hostName.test(host) || host.length > MAX_HOST_LENGTH) return FORM;
  return forbiddenNames.test(host) ? FORBIDDEN : undefined;
}

function faultOfIpv6(text: string): string | undefined {
  if (!ipaddr.IPv6.isValid(text) || text.includes('%')) return FORM;
  const address = ipaddr.IPv6.parse(text);
  const fault = faultOfAddress(address);
  if (fault !== undefined) return fault;
  const isIpv4 = text.includes('.') || ipv4InIpv6.has(address.range()) || address.match(ipv4Compatible);
  return isIpv4 ? 'must have an IPv4 address in its own form, not inside an IPv6 address' : undefined;
}

const faultOfAddress = (address: ipaddr.IPv4 | ipaddr.IPv6) =>
  forbiddenRanges.has(address.range()) || metadataAddresses.has(address.toString()) ? FORBIDDEN : undefined;

/** The user of SIP's authentication. A colon ends the user in SIP URIs and in digests (RFC 3261 §19.1.1, RFC 7616 §3.4.2). */
export const isSipUser: TextRule = (user) => {
  if (/:|%3a/i.test(user)) return 'must not contain a colon; put the password in sip_password';
  return /\s/.test(user) ? 'must not contain white space' : undefined;
};
