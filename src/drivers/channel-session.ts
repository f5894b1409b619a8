/**
 * A Session over the channels to one host: room, the moment of sending, the program, its kill over a channel of its own.
 *
 * Shared by every driver. It does not know how a channel is opened (a Carrier does) nor what is said on it (program.ts).
 */
import { SallyportError } from '../errors.ts';
import { ANSWER_GRACE_MS, EXECS_PER_SESSION } from '../limits.ts';
import { deferred } from '../sessions/deferred.ts';
import type { Session, StartSpec } from '../sessions/session.ts';
import { type Carrier, type Channel, ChannelRefused } from './channel.ts';
import { createControl } from './control.ts';
import { type Program, prepareProgram } from './program.ts';

/** Nothing of the request was sent yet. */
interface Ready {
  channel: Channel;
  run(): Promise<Program>;
}

export function createChannelSession(carrier: Carrier): Session {
  const { closed } = carrier;
  let capacity = EXECS_PER_SESSION;
  let running = 0;
  let dead = false;
  void closed.then(() => {
    dead = true;
  });

  /** `fits`: how many channels the host took. One of those is kept for control. */
  const learnCapacity = (fits: number): void => {
    capacity = Math.max(1, Math.min(capacity, fits - 1));
  };

  const open = async (signal: AbortSignal): Promise<Channel> => {
    if (dead) throw new Error('the session is closed');
    return await carrier.open(signal);
  };

  const control = createControl({ ...carrier, open }, (error) => {
    if (error instanceof ChannelRefused) learnCapacity(running);
  });

  /**
   * The channel is opened and the request made ready while the row is being committed; a refused commit is told as it is.
   */
  const prepare = async (spec: StartSpec, signal: AbortSignal, committed: Promise<unknown>): Promise<Ready> => {
    const opened = open(signal);
    const ready = opened.then((channel) => ({ channel, run: prepareProgram(channel, spec, carrier) }));
    ready.catch(() => undefined); // Thrown below, after `committed` has had its say.
    try {
      await committed;
      await opened.catch((error: unknown) => {
        if (error === signal.reason || error instanceof SallyportError) throw error;
        if (error instanceof ChannelRefused) learnCapacity(running - 1);
        throw notSent(error);
      });
      return await ready;
    } catch (error) {
      opened.then(
        (channel) => channel.close(),
        () => undefined,
      ); // Not opened: nothing to close.
      throw error;
    }
  };

  return {
    get capacity() {
      return capacity;
    },
    closed,
    close: () => carrier.close(),
    reap: (marker) => control('kill', marker),
    async start(spec, { signal, committed, sending }) {
      running += 1;
      try {
        const ready = await prepare(spec, signal, committed);
        const sweep = (): Promise<unknown> => control('kill', { execId: spec.execId, session: null });
        const process = await startOrSweep(ready, { signal, sending, sweep });
        void process.ended.then(() => {
          running -= 1;
        });
        return Object.assign(process, {
          kill: () => control('kill', process.marker),
          look: () => control('look', process.marker),
        });
      } catch (error) {
        running -= 1;
        throw error;
      }
    },
  };
}

/** The request never left: the caller may try again on another session. */
function notSent(cause: unknown): SallyportError {
  return new SallyportError(
    'connection_lost',
    'the connection to the host was lost before the program was asked to start',
    {
      failedStep: 'channel',
      outcome: 'unreachable',
      retryable: true,
      cause,
    },
  );
}

/**
 * Starts the program. When `signal` aborts before the request is sent, it is not sent. Afterwards the preamble is on
 * its way and the program may start: its answer is waited for a little longer, so that the caller holds what it has to
 * end. A host that stays silent gets its channel closed and is searched for the marker.
 */
async function startOrSweep(
  { channel, run }: Ready,
  { signal, sending, sweep }: { signal: AbortSignal; sending?: () => void; sweep(): Promise<unknown> },
): Promise<Program> {
  if (signal.aborted) {
    channel.close();
    throw signal.reason;
  }
  const silent = deferred<never>();
  let patience: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    patience = setTimeout(() => silent.reject(signal.reason), ANSWER_GRACE_MS);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    sending?.();
    return await Promise.race([run(), silent.promise]);
  } catch (error) {
    if (error !== signal.reason) throw error;
    channel.close();
    await sweep();
    throw error;
  } finally {
    clearTimeout(patience);
    signal.removeEventListener('abort', onAbort);
  }
}
