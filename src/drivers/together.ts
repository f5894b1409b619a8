/** Work that several wait for, and work that runs side by side: who stops it, and which failure is the one told. */
import type { SallyportError } from '../errors.ts';

/** Somebody who waits for a piece of work: may leave, and hears of failed attempts that are being retried. */
export interface Waiter {
  signal: AbortSignal;
  retried(error: SallyportError): void;
}

/** Settles as `work` does, or rejects with the signal's reason as soon as it aborts. Does not stop the work. */
export function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true });
    const done = () => signal.removeEventListener('abort', leave);
    work.then(
      (value) => {
        done();
        resolve(value);
      },
      (error: unknown) => {
        done();
        reject(error);
      },
    );
  });
}

/** Many who wait for one piece of work. It runs as `waiter`, whose signal aborts when the last of them has left. */
export interface Crowd {
  readonly waiter: Waiter;
  join<T>(work: Promise<T>, member: Waiter): Promise<T>;
}

export function createCrowd(): Crowd {
  const members = new Set<Waiter>();
  const empty = new AbortController();
  return {
    waiter: {
      signal: empty.signal,
      retried(error) {
        for (const member of members) member.retried(error);
      },
    },
    async join(work, member) {
      // A copy, so that one caller who joins twice counts twice.
      const seat = { signal: member.signal, retried: (error: SallyportError) => member.retried(error) };
      members.add(seat);
      try {
        return await untilAborted(work, member.signal);
      } finally {
        members.delete(seat);
        if (members.size === 0) empty.abort(new Error('nobody waits for this any more'));
      }
    },
  };
}

export interface Group {
  /** Aborts with the caller's signal, or when a part failed. */
  signal: AbortSignal;
  /** Counts the work's failure as the group's, at once and not only when somebody awaits it. */
  part<T>(work: Promise<T>): Promise<T>;
  fail(error: unknown): void;
}

/**
 * Runs parts side by side. The first failure stops the others and is the one that is thrown; the caller's abort goes
 * before any of them.
 */
export async function together<T>(signal: AbortSignal, run: (group: Group) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const causes: unknown[] = [];
  const fail = (error: unknown) => {
    causes.push(error);
    stop.abort(new Error('stopped: another step failed first'));
  };
  const part = <P>(work: Promise<P>) => {
    work.catch(fail);
    return work;
  };
  const leave = () => stop.abort(signal.reason);
  signal.addEventListener('abort', leave, { once: true });
  try {
    signal.throwIfAborted();
    return await run({ signal: stop.signal, part, fail });
  } catch (error) {
    fail(error);
    throw signal.aborted ? signal.reason : causes[0];
  } finally {
    signal.removeEventListener('abort', leave);
  }
}
