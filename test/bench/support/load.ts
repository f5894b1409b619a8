/** So many callers at once, each with the next call as soon as the last one is answered, for a time or a number of calls. */

export interface Load {
  elapsedMs: number;
  /** One per call. */
  latenciesMs: number[];
}

/** `call` rejects when its answer was a wrong one, and so ends all. */
export async function runLoad(
  { callers, forMs }: { callers: number; forMs: number },
  call: (caller: number) => Promise<void>,
): Promise<Load> {
  const latenciesMs: number[] = [];
  const from = performance.now();
  const until = from + forMs;
  const loop = async (caller: number): Promise<void> => {
    for (let now = performance.now(); now < until; ) {
      await call(caller);
      const after = performance.now();
      latenciesMs.push(after - now);
      now = after;
    }
  };
  await inParallel(callers, loop);
  return { elapsedMs: performance.now() - from, latenciesMs };
}

/** `calls` of them in all, however they spread over the callers. Rejects as `runLoad` does. */
export async function runCalls(
  { callers, calls }: { callers: number; calls: number },
  call: (caller: number) => Promise<void>,
): Promise<void> {
  let left = calls;
  await inParallel(callers, async (caller) => {
    while (left > 0) {
      left -= 1;
      await call(caller);
    }
  });
}

async function inParallel(callers: number, loop: (caller: number) => Promise<void>): Promise<void> {
  await Promise.all(Array.from({ length: callers }, (_, caller) => loop(caller)));
}

export function perSecond({ elapsedMs, latenciesMs }: Load): number {
  return (latenciesMs.length / elapsedMs) * 1000;
}
