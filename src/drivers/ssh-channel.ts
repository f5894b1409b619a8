/**
 * One SSH session channel for one command, below ssh2's own `exec()`. With sign-at-once.ts the only place that uses ssh2's
 * private parts.
 *
 * Why not the public call: it sends `exec` as soon as the channel is open (ours waits for the audit row), it lets data
 * follow only after the reply (one round trip more), and it grants receive window whenever either output stream is read,
 * so a stalled stdout grows without bound while stderr trickles. Here window is granted only for bytes that our reader
 * took, so what a stalled reader costs is OUTPUT_BUFFER_MAX_BYTES and no more. ssh2 is pinned to one version for this; a missing
 * member throws at the first channel, and test/drivers/ssh-channel.test.ts notices first.
 */
import type { Client } from 'ssh2';
import { OUTPUT_BUFFER_MAX_BYTES } from '../limits.ts';
import { type ChannelEvents, ChannelRefused, type Ended } from './channel.ts';

/** What may be sent with the exec request, before the host has said how much it takes. Every server takes this. */
const EARLY_MAX_BYTES = 16 * 1024;
/** RFC 4253, section 6.1: every implementation handles packets of this payload. */
const PACKET_BYTES = 32 * 1024;

export interface SshChannel {
  /** Asks the host to run `command` and sends `input`, then end-of-file. Once. */
  exec(command: Buffer, input: readonly Buffer[], events: ChannelEvents): void;
  /** The reader took this many bytes. */
  grant(bytes: number): void;
  close(): void;
  /** Neither side has closed it. */
  readonly isOpen: boolean;
}

interface PrivateChannel {
  incoming: { window: number; state: string };
  outgoing: { id: number; window: number; packetSize: number; state: string };
  stderr: { push(data: Buffer | null): boolean };
  push(data: Buffer | null): boolean;
  _callbacks: ((failed: unknown) => void)[];
  on(event: 'exit', listener: (code: number | null, signal?: string) => void): void;
  write(data: Buffer): boolean;
  end(): void;
  close(): void;
}

interface PrivateClient {
  _chanMgr: {
    add(
      opened: ((error: (Error & { reason?: unknown }) | undefined, channel: PrivateChannel) => void) & {
        type?: string;
      },
    ): number;
  };
  _protocol: {
    session(channel: number, windowBytes: number, packetBytes: number): void;
    exec(channel: number, command: Buffer, wantReply: boolean): void;
    channelData(channel: number, data: Buffer): void;
    channelEOF(channel: number): void;
    channelWindowAdjust(channel: number, bytes: number): void;
  };
}

/**
 * Opens a channel. Rejects with ChannelRefused when the host has no room on this connection (RFC 4254, section 5.1), with
 * another error when the connection is gone. What is opened after `signal` aborted is closed at once. `gone` is told once
 * of a channel that was handed out, when it has been closed by both sides.
 */
export function openChannel(client: Client, signal: AbortSignal, gone = () => {}): Promise<SshChannel> {
  const ssh = client as unknown as PrivateClient;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const opened: Parameters<PrivateClient['_chanMgr']['add']>[0] = (error, channel) => {
      signal.removeEventListener('abort', onAbort);
      if (error)
        return reject(error.reason === undefined || error.reason === '' ? error : new ChannelRefused(error.reason));
      if (signal.aborted) return channel.close();
      resolve(wrap(ssh, channel, gone));
    };
    opened.type = 'session';
    const id = ssh._chanMgr.add(opened);
    if (id === -1) return reject(new ChannelRefused('no free channel number'));
    ssh._protocol.session(id, OUTPUT_BUFFER_MAX_BYTES, PACKET_BYTES);
  });
}

function wrap(ssh: PrivateClient, channel: PrivateChannel, gone: () => void): SshChannel {
  const remote = channel.outgoing.id;
  let owed = 0;
  let listener: ChannelEvents | null = null;
  let finished = false;
  const finish = (refused: boolean): void => {
    if (finished) return;
    finished = true;
    listener?.closed(refused);
    gone();
  };
  channel.incoming.window = OUTPUT_BUFFER_MAX_BYTES;
  receive(channel, () => listener, finish);

  return {
    exec(command, input, events) {
      if (listener !== null) throw new Error('bug: a channel runs one command');
      listener = events;
      const bytes = Buffer.concat(input);
      const early = channel.outgoing.state === 'open' && bytes.length <= EARLY_MAX_BYTES;
      channel._callbacks.push((failed) => {
        if (failed) return finish(true);
        if (channel.outgoing.window < 0) channel.outgoing.window = 0;
        if (early || channel.outgoing.state !== 'open') return;
        channel.write(bytes);
        channel.end();
      });
      ssh._protocol.exec(remote, command, true);
      if (!early) return;
      // The host sees these after the request, when it has opened its window; our count catches up with its answer.
      ssh._protocol.channelData(remote, bytes);
      channel.outgoing.window -= bytes.length;
      channel.end();
    },
    grant(bytes) {
      owed += bytes;
      if (
        owed < OUTPUT_BUFFER_MAX_BYTES / 2 ||
        channel.outgoing.state === 'closed' ||
        channel.incoming.state !== 'open'
      )
        return;
      ssh._protocol.channelWindowAdjust(remote, owed);
      channel.incoming.window += owed;
      owed = 0;
    },
    close: () => channel.close(),
    get isOpen() {
      return channel.outgoing.state === 'open' && channel.incoming.state === 'open';
    },
  };
}

/**
 * Takes data before ssh2's own streams see it. A null after the channel's state went to `closed` is the end of the
 * channel, one before is end-of-file. Returning false keeps ssh2 from granting window by itself.
 */
function receive(
  channel: PrivateChannel,
  listener: () => ChannelEvents | null,
  finish: (refused: boolean) => void,
): void {
  let ended = false;
  const end = (): void => {
    if (!ended) listener()?.eof();
    ended = true;
  };
  channel.push = (data) => {
    if (data !== null) listener()?.data('stdout', data);
    else if (channel.incoming.state !== 'closed') end();
    else {
      end();
      finish(false);
    }
    return false;
  };
  channel.stderr.push = (data) => {
    if (data !== null) listener()?.data('stderr', data);
    return false;
  };
  channel.on('exit', (code, signal) => listener()?.exit(toEnded(code, signal)));
}

function toEnded(code: number | null, signal: string | undefined): Ended | null {
  if (signal) return { kind: 'signaled', signal: signal.replace(/^SIG/, '') };
  return code === null ? null : { kind: 'exited', code };
}
