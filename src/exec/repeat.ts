/** Work that is done again and again: never twice at once, at once when asked for, and never after `stop`. */

export interface Repeating {
  /** Does it now, or once more when it is under way. */
  now(): void;
  /** Resolves when nothing is under way any more. */
  stop(): Promise<void>;
}

/** `work` handles its own failures. The pause is counted from the end of one run to the start of the next. */
export function repeat(pauseMs: number, work: () => Promise<void>): Repeating {
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | null = null;
  let again = false;
  let stopped = false;

  const run = (): void => {
    clearTimeout(timer);
    again = false;
    running = work().finally(() => {
      running = null;
      if (stopped) return;
      if (again) run();
      else timer = setTimeout(run, pauseMs);
    });
  };
  timer = setTimeout(run, pauseMs);
  return {
    now() {
      again = true;
      if (running === null && !stopped) run();
    },
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}
