/**
 * What ssh2's server side does otherwise than OpenSSH, put right in one place. Every use of its private fields is here.
 * Written against ssh2 1.17 (lib/server.js, lib/Channel.js).
 */
import type { ServerChannel, Session } from 'ssh2';

interface ChannelPrivates {
  _chunk: unknown;
  _chunkcb: unknown;
  _chunkErr: unknown;
  _chunkcbErr: unknown;
  _client: { _protocol: { channelEOF(id: number): void } };
  outgoing: { id: number; state: string };
}

/**
 * Writes one chunk to stdout or stderr; `done` runs when the window has taken all of it, and never when the channel is
 * closed. Only one write may be under way on a channel: ssh2 keeps one flag for both streams, and what it kept of an
 * earlier write would be sent a second time with the next window.
 */
export function writeOne(channel: ServerChannel, stream: 'stdout' | 'stderr', bytes: Buffer, done: () => void): void {
  const target = stream === 'stdout' ? channel : channel.stderr;
  target.write(bytes, () => {
    const privates = privatesOf(channel);
    privates._chunk = undefined;
    privates._chunkcb = undefined;
    privates._chunkErr = undefined;
    privates._chunkcbErr = undefined;
    done();
  });
}

/** Tells the client that no more output comes, and leaves the channel open for the exit status. */
export function sendEof(channel: ServerChannel): void {
  const { _client: client, outgoing } = privatesOf(channel);
  if (outgoing.state === 'open') client._protocol.channelEOF(outgoing.id);
}

/** ssh2 refuses every request after the client's end-of-file; OpenSSH goes on to take signals. */
export function keepTakingRequests(session: Session): void {
  session.on('eof', () => {
    (session as unknown as { _ending: boolean })._ending = false;
  });
}

function privatesOf(channel: ServerChannel): ChannelPrivates {
  return channel as unknown as ChannelPrivates;
}
