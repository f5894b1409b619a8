/** What a driver is given to open a session, where no pool is needed. */
import type { Opening } from '../../src/sessions/session.ts';
import { ConnectTrace } from '../../src/sessions/trace.ts';

export function anOpening(part: Partial<Opening> = {}): Opening {
  return {
    signal: AbortSignal.timeout(15_000),
    trace: new ConnectTrace(),
    // Places are the pool's business; here every opening has one.
    reserve: async () => undefined,
    ...part,
  };
}
