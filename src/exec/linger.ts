/**
 * How long output may stay open after the program itself has exited: LINGER_MS of waiting for it.
 *
 * Only time in which the reader waits for output counts, so that a slow reader loses nothing of what the program left
 * in the pipes.
 */
import { LINGER_MS } from '../limits.ts';

export interface Linger {
  programExited(): void;
  /** The reader begins or stops to wait for output. */
  waiting(is: boolean): void;
  stop(): void;
}

export function startLinger(expired: () => void): Linger {
  let exited = false;
  let leftMs = LINGER_MS;
  let waitingSinceMs: number | null = null;
  let timer: NodeJS.Timeout | undefined;

  const arm = (): void => {
    if (exited && waitingSinceMs !== null) timer = setTimeout(expired, leftMs);
  };
  return {
    programExited() {
      exited = true;
      if (waitingSinceMs !== null) waitingSinceMs = performance.now();
      arm();
    },
    waiting(is) {
      clearTimeout(timer);
      if (!is && exited && waitingSinceMs !== null) leftMs = Math.max(0, leftMs - (performance.now() - waitingSinceMs));
      waitingSinceMs = is ? performance.now() : null;
      arm();
    },
    stop: () => clearTimeout(timer),
  };
}
