/** Waiting for a condition instead of for a time. */
import { setTimeout as sleep } from 'node:timers/promises';

type Falsy = false | null | undefined | 0 | '';

/** Asks every few milliseconds until the answer is truthy and resolves with it; `what` names the wait when it fails. */
export async function waitUntil<T>(
  what: string,
  ask: () => T | Promise<T>,
  withinMs = 5_000,
): Promise<Exclude<T, Falsy>> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer as Exclude<T, Falsy>;
    if (performance.now() > deadline) throw new Error(`waited ${withinMs} ms in vain: ${what}`);
    await sleep(5);
  }
}

/** Resolves with the value once it has been the same for `forMs`: for things that must have come to a stop. */
export async function waitUntilStill<T>(what: string, read: () => T, forMs = 300, withinMs = 10_000): Promise<T> {
  let last = read();
  let since = performance.now();
  return await waitUntil(
    `${what} comes to a stop`,
    () => {
      const now = read();
      if (now !== last) since = performance.now();
      last = now;
      return performance.now() - since >= forMs ? { still: now } : null;
    },
    withinMs,
  ).then(({ still }) => still);
}

/** The promise, or a failure that says what was waited for. */
export async function within<T>(what: string, promise: Promise<T>, ms = 5_000): Promise<T> {
  const late = new AbortController();
  const timer = sleep(ms, null, { signal: late.signal }).then(() => {
    throw new Error(`waited ${ms} ms in vain: ${what}`);
  });
  try {
    return await Promise.race([promise, timer]);
  } finally {
    late.abort();
    timer.catch(() => {
      // The timer was stopped, or has already failed the race.
    });
  }
}
