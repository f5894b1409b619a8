/**
 * How often a credential may ask, and how often an address may guess one.
 *
 * Decisions:
 * - All sessions of a person in an org are one credential: a new one costs nothing.
 * - A credential is counted after its signature was verified, so nobody spends the quota of another. All replicas count
 *   together, in the database: exact, at the price of one more round trip. Without a limit, which is the default, nothing
 *   is asked.
 * - Too many wrong credentials from one address: for the rest of the minute new ones from there are not even looked at.
 *   Those that were verified before go on, because behind a proxy that is not trusted everybody has one address.
 */
import { isIP, isIPv6 } from 'node:net';
import type { Response } from 'express';
import type { Caller, RateCounter } from '../access/access.ts';
import { SallyportError } from '../errors.ts';
import { GUESS_ADDRESSES_MAX, GUESSES_PER_MIN } from '../limits.ts';

const WINDOW_S = 60;

/** One item of the fields `RateLimit` and `RateLimit-Policy`. Source: draft-ietf-httpapi-ratelimit-headers. */
export interface Quota {
  policy: 'credential' | 'address' | 'workspace' | 'token' | 'session' | 'org';
  most: number;
  left: number;
  /** Until there is room again, in seconds. */
  resetS: number;
  /** Absent: execs at once, which have no window. */
  windowS?: number;
}

export function showQuota(res: Response, { policy, most, left, resetS, windowS }: Quota): void {
  const unit = windowS === undefined ? 'qu="concurrent-requests"' : `w=${windowS}`;
  res.appendHeader('RateLimit-Policy', `"${policy}";q=${most};${unit}`);
  res.appendHeader('RateLimit', `"${policy}";r=${left};t=${resetS}`);
}

function rateLimited(message: string, retryAfterS: number): SallyportError {
  return new SallyportError('rate_limited', message, { retryable: true, retryAfterS });
}

export interface RateLimit {
  /** Counts one request; throws `rate_limited` when it is one too many. Every answer says what is left. */
  take(caller: Caller, res: Response): Promise<void>;
}

/** Null: no limit. */
export function createRateLimit(counter: RateCounter | null): RateLimit {
  if (counter === null) return { take: async () => {} };
  const { perMin } = counter;
  return {
    async take({ orgId, jti, actor }, res) {
      // People of two orgs may have one name.
      const { isOver, left, resetMs } = await counter.take(JSON.stringify([orgId, jti ?? actor]));
      const resetS = Math.max(1, Math.ceil(resetMs / 1000));
      showQuota(res, { policy: 'credential', most: perMin, left, resetS, windowS: WINDOW_S });
      if (isOver) throw rateLimited(`this credential may make ${perMin} requests per minute`, resetS);
    },
  };
}

export interface GuessLimit {
  /** Throws `rate_limited` when this address has guessed too often, unless `isKnown`: then it is no guess. */
  require(address: string, res: Response, isKnown: () => boolean): void;
  /** A credential from this address was wrong. */
  note(address: string): void;
}

/** `now` in milliseconds. */
export function createGuessLimit({ now = Date.now, most = GUESSES_PER_MIN } = {}): GuessLimit {
  const windows = new Map<string, { count: number; endsMs: number }>();

  function windowOf(address: string): { count: number; endsMs: number } | null {
    const key = networkOf(address);
    const found = windows.get(key);
    if (found !== undefined && found.endsMs > now()) return found;
    windows.delete(key);
    return null;
  }

  return {
    require(address, res, isKnown) {
      const window = windowOf(address);
      if (window === null || window.count < most || isKnown()) return;
      const resetS = Math.ceil((window.endsMs - now()) / 1000);
      showQuota(res, { policy: 'address', most, left: 0, resetS, windowS: WINDOW_S });
      throw rateLimited('too many wrong credentials came from this address', resetS);
    },

    note(address) {
      const window = windowOf(address);
      if (window !== null) {
        window.count += 1;
        return;
      }
      // Windows all have one length, so the first in the map is the first to end.
      const [oldest] = windows.keys();
      if (windows.size >= GUESS_ADDRESSES_MAX && oldest !== undefined) windows.delete(oldest);
      windows.set(networkOf(address), { count: 1, endsMs: now() + WINDOW_S * 1000 });
    },
  };
}

/**
 * One subscriber commonly has a whole /64 of IPv6: its addresses count as one. Where every proxy is trusted, a caller may
 * forward any text at any length: what is no address counts as one too.
 */
function networkOf(address: string): string {
  if (isIP(address) === 0) return '';
  if (!isIPv6(address) || address.includes('.')) return address;
  const [before = '', after] = (address.split('%')[0] ?? '').split('::');
  const head = before === '' ? [] : before.split(':');
  const tail = after === undefined || after === '' ? [] : after.split(':');
  const zeros = after === undefined ? 0 : 8 - head.length - tail.length;
  return [...head, ...Array<string>(zeros).fill('0'), ...tail].slice(0, 4).join(':');
}
