/**
 * Which URLs events may be sent to. Whoever chooses a URL could else make the Worker send requests into a network that only
 * it can reach. Names that lead to a private address cannot be seen beforehand: for these, the Worker has the compatibility
 * flag `global_fetch_strictly_public`.
 */
import type { Bindings } from '../env.ts';

const HOST =
  'must not lead to a private, loopback, link-local, reserved or metadata address, or to a name of a private network';

/**
 * Private networks, and addresses that no public server has: IANA's IPv4 special-purpose addresses, multicast, and the
 * metadata of Azure. (`URL` makes dotted decimals of all other notations.)
 *
 * @see https://www.iana.org/assignments/iana-ipv4-special-registry
 */
const privateIpv4 =
  /^(?:0|10|127|22[4-9]|2[345]\d)\.|^100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|^169\.254\.|^172\.(?:1[6-9]|2\d|3[01])\.|^192\.168\.|^192\.0\.[02]\.|^192\.88\.99\.|^198\.1[89]\.|^198\.51\.100\.|^203\.0\.113\.|^168\.63\.129\.16$/;

/**
 * Only 2000::/3 is public. In it, 2001::/23, 2001:db8::/32, 2002::/16 and 3fff::/20 are not, or stand for IPv4 addresses.
 *
 * @see https://www.iana.org/assignments/iana-ipv6-special-registry
 */
const publicIpv6 = /^\[(?!2001:(?::|[\da-f]{1,2}:|1[\da-f]{2}:|db8:)|2002:|3fff:)[23][\da-f]{3}:/;

/** Names without a dot or with an empty label, and names below those that never are on the public internet. */
const privateName =
  /^[^.]*$|^\.|\.\.|\.$|(?:^|\.)(?:localhost|localdomain|local|internal|intranet|private|corp|home|lan|svc|arpa|onion)$|^metadata\.goog$/;

const isIpv4 = /^\d+(?:\.\d+){3}$/;
const isLoopback = /^(?:(?:.+\.)?localhost|127(?:\.\d+){3}|\[::1\])$/;

const isPrivate = (host: string) => {
  if (host.startsWith('[')) return !publicIpv6.test(host);
  return isIpv4.test(host) ? privateIpv4.test(host) : privateName.test(host);
};

/** A dot at the end changes nothing. */
const nameOf = ({ hostname }: URL) => hostname.replace(/\.$/, '');

/**
 * What is wrong with a URL, as the end of a sentence; undefined if events may be sent to it.
 *
 * @param own a URL of this API, to which no event may be sent
 */
export function faultOfUrl({ WEBHOOKS_TO_LOOPBACK }: Bindings, text: string, own?: string): string | undefined {
  const url = /^[!-[\]-~]+$/.test(text) ? URL.parse(text) : null;
  if (!url) return 'must be a URL of ASCII characters; write an international name in its A-label form (xn--…)';
  if (!/^https?:\/\/[^/]/i.test(text)) return 'must begin with https://';
  // `URL` says nothing of an empty user, which has its @ too.
  if (/^\w+:\/\/[^/?]*@/.test(text)) return 'must not contain a user or a password';
  if (text.includes('#')) return 'must not contain a fragment (#)';
  const host = nameOf(url);
  const loopback = WEBHOOKS_TO_LOOPBACK === 'on' && url.protocol === 'http:' && isLoopback.test(host);
  if (url.protocol !== 'https:' && !loopback) return 'must begin with https://';
  if (url.port !== '' && Number(url.port) < 1024) return 'must have port 443, or one above 1023';
  if (!loopback && isPrivate(host)) return HOST;
  const self = own === undefined ? null : URL.parse(own);
  return self && nameOf(self) === host && (!loopback || self.port === url.port)
    ? 'must not lead to this API'
    : undefined;
}
