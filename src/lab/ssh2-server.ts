/**
 * One session channel of an SSH server, as OpenSSH serves it. Puts right in one place what ssh2's server side does
 * otherwise, and holds every use of its private fields. Written against ssh2 1.17 (lib/server.js, lib/Channel.js):
 *
 * - it answers the client's close at once, and the exit status is lost; sshd closes when the program has ended;
 * - it never answers the close of a session in which nothing was started;
 * - it refuses every request after the client's end-of-file; sshd goes on to take signals;
 * - it keeps one flag for the window of both outputs, and sends what it kept of an earlier write a second time.
 */
import type { Connection, ServerChannel, Session } from 'ssh2';

interface Protocol {
  channelEOF(id: number): void;
  channelClose(id: number): void;
  exitStatus(id: number, code: number): void;
  exitSignal(id: number, name: string, coreDumped: boolean, message: string): void;
}

interface SessionPrivates {
  _ending: boolean;
  _chanInfo: { incoming: { id: number }; outgoing: { id: number } };
}

interface ConnectionPrivates {
  _protocol: Protocol;
  _chanMgr: { remove(id: number): void };
}

interface ChannelPrivates {
  _chunk: unknown;
  _chunkcb: unknown;
  _chunkErr: unknown;
  _chunkcbErr: unknown;
}

export class SessionChannel {
  readonly #session: SessionPrivates;
  readonly #connection: ConnectionPrivates;
  #channel: ServerChannel | null = null;
  #connectionLost = false;
  #clientClosed = false;
  #closed = false;
  #onGone: () => void = () => undefined;
  #onFreed: () => void;

  /** `freed` runs once, when both sides have closed; not when the connection is lost. */
  constructor(session: Session, connection: Connection, freed: () => void) {
    this.#session = session as unknown as SessionPrivates;
    this.#connection = connection as unknown as ConnectionPrivates;
    this.#onFreed = freed;
    session.on('eof', () => {
      this.#session._ending = false;
    });
    session.once('close', () => this.#takeClose());
  }

  /** To be called when the connection has closed. */
  lose(): void {
    this.#connectionLost = true;
    this.#onGone();
  }

  /** The client has closed or is lost: nobody sends input or takes output. */
  get gone(): boolean {
    return this.#clientClosed || this.#connectionLost;
  }

  /** `then` runs when `gone` becomes true. */
  whenGone(then: () => void): void {
    this.#onGone = then;
  }

  /** Answers an `exec` request. What the client sends comes out of the stream. */
  open(accept: () => ServerChannel): NodeJS.ReadableStream {
    const channel = accept();
    // When the stream ends, ssh2 would send both, also after a close of ours; OpenSSH's client hangs up on that.
    Object.assign(channel, { close: () => undefined, eof: () => undefined });
    this.#channel = channel;
    return channel;
  }

  /** `done` runs when the window has taken all bytes, and never once the client is gone. One write at a time. */
  write(stream: 'stdout' | 'stderr', bytes: Buffer, done: () => void): void {
    const channel = this.#channel;
    if (channel === null) throw new Error('bug: a write to a session in which nothing was started');
    const target = stream === 'stdout' ? channel : channel.stderr;
    target.write(bytes, () => {
      const kept = channel as unknown as ChannelPrivates;
      kept._chunk = undefined;
      kept._chunkcb = undefined;
      kept._chunkErr = undefined;
      kept._chunkcbErr = undefined;
      done();
    });
  }

  sendEof(): void {
    this.#send((protocol, id) => protocol.channelEOF(id));
  }

  sendExitCode(code: number): void {
    this.#send((protocol, id) => protocol.exitStatus(id, code));
  }

  /** `name` without SIG. Throws for a signal that RFC 4254 does not name. */
  sendExitSignal(name: string): void {
    this.#send((protocol, id) => protocol.exitSignal(id, name, false, ''));
  }

  close(): void {
    if (this.#closed) return;
    this.#send((protocol, id) => protocol.channelClose(id));
    this.#closed = true;
    this.#freeWhenBothClosed();
  }

  #takeClose(): void {
    this.#clientClosed = true;
    if (this.#channel === null) {
      this.#connection._chanMgr.remove(this.#session._chanInfo.incoming.id);
      this.close();
    }
    this.#onGone();
    this.#freeWhenBothClosed();
  }

  #freeWhenBothClosed(): void {
    if (!this.#closed || !this.#clientClosed) return;
    const freed = this.#onFreed;
    this.#onFreed = () => undefined;
    freed();
  }

  #send(packet: (protocol: Protocol, channelId: number) => void): void {
    if (!this.#connectionLost && !this.#closed) packet(this.#connection._protocol, this.#session._chanInfo.outgoing.id);
  }
}
