/**
 * The channels of one SSH connection, one of them opened before anybody asks, so that an exec need not wait for a round
 * trip first.
 *
 * The one ahead carries nothing until it is taken, and a host starts nothing for it: sshd forks at the exec request only.
 * It counts among the EXECS_PER_SESSION of the connection, and whoever needs a channel takes it, control too: it is never
 * in anybody's way. When the host refuses it, nobody is told; whoever then needs one opens it and hears why not.
 */
import type { Client } from 'ssh2';
import { CHANNEL_AHEAD_MAX_MS, CHANNEL_REFILL_MS, EXECS_PER_SESSION } from '../limits.ts';
import { openChannel, type SshChannel } from './ssh-channel.ts';
import { untilAborted } from './together.ts';

export interface SshChannels {
  /** Rejects as `openChannel` does. */
  open(signal: AbortSignal): Promise<SshChannel>;
  /** Opens none ahead from now on. */
  stop(): void;
}

/** `ahead` false: each is opened when it is asked for. */
export function createSshChannels(client: Client, { ahead }: { ahead: boolean }): SshChannels {
  const stopping = new AbortController();
  let open = 0;
  /** As many as the host took when it refused one. */
  let most = EXECS_PER_SESSION;
  /** Null inside: the host refused it. */
  let spare: Promise<SshChannel | null> | null = null;
  /** The same, once it is open. */
  let idle: SshChannel | null = null;
  let expiry: NodeJS.Timeout | undefined;
  let refill: NodeJS.Timeout | undefined;

  /** One that the host has closed for being idle is not replaced before another has been used. */
  const gone = (channel: SshChannel): void => {
    open -= 1;
    if (channel === idle) forget();
    else if (ahead) setImmediate(keepOne);
  };

  async function openOne(signal: AbortSignal): Promise<SshChannel> {
    const channel: SshChannel = await openChannel(client, signal, () => gone(channel));
    open += 1;
    return channel;
  }

  function forget(): void {
    spare = null;
    idle = null;
    clearTimeout(expiry);
  }

  function keepOne(): void {
    if (spare !== null || stopping.signal.aborted || open >= most) return;
    const opening = openOne(stopping.signal).catch(() => {
      most = Math.max(1, open);
      return null;
    });
    spare = opening;
    void opening.then((channel) => {
      if (spare !== opening) return;
      if (channel === null) forget();
      else idle = channel;
    });
    // Who sends a request at the moment in which the host closes an idle channel would lose the connection.
    expiry = setTimeout(drop, CHANNEL_AHEAD_MAX_MS).unref();
  }

  function drop(): void {
    const opening = spare;
    forget();
    void opening?.then((channel) => channel?.close());
  }

  /** Null: there is none. */
  async function takeSpare(signal: AbortSignal): Promise<SshChannel | null> {
    const taken = spare;
    if (taken === null) return null;
    forget();
    try {
      const channel = await untilAborted(taken, signal);
      return channel?.isOpen ? channel : null;
    } catch (error) {
      void taken.then((channel) => channel?.close());
      throw error;
    }
  }

  return {
    async open(signal) {
      if (!ahead) return await openOne(signal);
      // A program that runs on does not keep the next one waiting; a short one has ended before.
      refill ??= setTimeout(() => {
        refill = undefined;
        keepOne();
      }, CHANNEL_REFILL_MS).unref();
      return (await takeSpare(signal)) ?? (await openOne(signal));
    },
    stop() {
      stopping.abort(new Error('the connection is closed'));
      clearTimeout(expiry);
      clearTimeout(refill);
    },
  };
}
