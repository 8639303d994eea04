/**
 * Entity tags, and the headers that name them (RFC 9110 §8.8.3 and §13.1).
 *
 * A tag is `"{revision}-{checked_at}"`. If-None-Match asks for both parts, and If-Match for the revision alone: a check
 * with the provider, which is none of the client's doing, must not fail its update.
 */
import type { Context } from 'hono';
import { invalid } from '../core/errors.ts';
import type { AppEnv } from './app-env.ts';

const tag = '(?:W/)?"[!#-~]*"';
const eachTag = new RegExp(tag, 'g');

/** A list may have empty elements (RFC 9110 §5.6.1), and a tag may have commas. */
export const tagsFormat = new RegExp(String.raw`^(?:\*|[\x09 ,]*${tag}(?:[\x09 ]*,[\x09 ,]*${tag})*[\x09 ,]*)$`);
export const MAX_TAGS_LENGTH = 1000;

/** @param checked_at in unix seconds; 0 for what was not checked, or is not checked apart from its revision */
export const entityTag = (revision: number, checked_at: number) => `"${revision}-${checked_at}"`;

/** @throws DomainError `validation_failed` */
function readTags(c: Context<AppEnv>, header: 'If-Match' | 'If-None-Match'): string[] | '*' | undefined {
  const value = c.req.header(header);
  if (value === undefined) return undefined;
  if (value.length > MAX_TAGS_LENGTH || !tagsFormat.test(value)) {
    throw invalid(
      header,
      `must be * or a list of ETags of at most ${MAX_TAGS_LENGTH} characters, each in double quotes as in "3-1705314600"`,
    );
  }
  return value === '*' ? value : (value.match(eachTag) ?? []);
}

/**
 * The revisions that If-Match names; undefined if it is absent, or accepts any. A weak tag never matches, nor does one
 * that we do not make.
 *
 * @throws DomainError `validation_failed`
 */
export function readIfMatch(c: Context<AppEnv>): number[] | undefined {
  const tags = readTags(c, 'If-Match');
  return tags === undefined || tags === '*' ? undefined : tags.flatMap(revisionOf);
}

function revisionOf(strongTag: string): number[] {
  const [, revision] = /^"([1-9]\d{0,14})-\d{1,15}"$/.exec(strongTag) ?? [];
  return revision === undefined ? [] : [Number(revision)];
}

/**
 * The tags that If-None-Match names. Weak ones count like strong ones (RFC 9110 §13.1.2).
 *
 * @throws DomainError `validation_failed`
 */
export function readIfNoneMatch(c: Context<AppEnv>): string[] | '*' {
  const tags = readTags(c, 'If-None-Match') ?? [];
  return tags === '*' ? tags : tags.map((given) => given.replace(/^W\//, ''));
}
