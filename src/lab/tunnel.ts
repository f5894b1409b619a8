/** One open tunnel: bytes between a websocket and an instance, with the faults of the link between them. */
import type { Socket } from 'node:net';
import type { RawData, WebSocket } from 'ws';
import type { Faults } from './faults.ts';
import { Link } from './link.ts';

export interface TunnelOptions {
  websocket: WebSocket;
  /** The connection below the websocket. */
  tcp: Socket;
  instanceId: string | null;
  maxDurationMs: number;
  /** Null: nobody answers. */
  dial(): Socket | null;
  faults: Faults;
}

const FRAME_BYTES = 65_000;
/** Sent to the client and not yet taken by the kernel. */
const UNSENT_MAX_BYTES = 256 * 1024;
const CLOSE_ORDERLY = 1000;
const CLOSE_AT_DEADLINE = 1001;
const CLOSE_NO_TARGET = 1011;

export class Tunnel {
  readonly instanceId: string | null;
  readonly #options: TunnelOptions;
  readonly #shape: Pick<ConstructorParameters<typeof Link>[0], 'delayMs' | 'bytesPerSecond'>;

  constructor(options: TunnelOptions) {
    this.#options = options;
    this.instanceId = options.instanceId;
    this.#shape = shapeOf(options.faults, options.instanceId);
    // A broken frame or a reset; `close` follows.
    options.websocket.on('error', () => undefined);
    this.#limitLife();
    const target = options.dial();
    if (target === null) options.websocket.close(CLOSE_NO_TARGET, 'Unable to connect to target');
    else this.#join(target);
  }

  /** As if the network between had gone: no close frame. */
  cut(): void {
    this.#options.tcp.destroy();
  }

  #limitLife(): void {
    const { websocket, faults, instanceId, maxDurationMs } = this.#options;
    const cutAfter = faults.take('tunnel_cut_after_ms', instanceId);
    const timers = [
      setTimeout(() => websocket.close(CLOSE_AT_DEADLINE, 'Maximum tunnel duration reached'), maxDurationMs),
      ...(cutAfter === null ? [] : [setTimeout(() => this.cut(), cutAfter.value)]),
    ];
    websocket.once('close', () => timers.forEach(clearTimeout));
  }

  #join(target: Socket): void {
    const { websocket } = this.#options;
    let connected = false;
    target.once('connect', () => {
      connected = true;
    });
    const inward = this.#inward(target);
    const outward = this.#outward(target);
    target.on('end', () => outward.whenEmpty(() => websocket.close(CLOSE_ORDERLY)));
    target.on('error', () => {
      if (connected) websocket.close(CLOSE_ORDERLY);
      else websocket.close(CLOSE_NO_TARGET, 'Unable to connect to target');
    });
    websocket.on('close', () => {
      outward.close();
      inward.whenEmpty(() => target.destroySoon());
    });
  }

  #inward(target: Socket): Link {
    const { websocket } = this.#options;
    const holding = new Set<'link' | 'target'>();
    const hold = (by: 'link' | 'target', held: boolean) => {
      if (held) holding.add(by);
      else holding.delete(by);
      // ws throws when a socket that is closed is paused.
      if (websocket.readyState !== websocket.OPEN) return;
      if (holding.size > 0) websocket.pause();
      else websocket.resume();
    };
    const link = new Link({
      ...this.#shape,
      deliver: (bytes) => {
        if (target.writable && !target.write(bytes)) hold('target', true);
      },
      hold: (held) => hold('link', held),
    });
    target.on('drain', () => hold('target', false));
    websocket.on('message', (data: RawData, isBinary: boolean) => {
      if (!isBinary) return websocket.close(1003, 'Only binary frames');
      link.send(data as Buffer);
    });
    return link;
  }

  #outward(target: Socket): Link {
    const { websocket } = this.#options;
    const holding = new Set<'link' | 'client'>();
    const hold = (by: 'link' | 'client', held: boolean) => {
      if (held) holding.add(by);
      else holding.delete(by);
      if (holding.size > 0) target.pause();
      else target.resume();
    };
    const deliver = (bytes: Buffer) => {
      for (let at = 0; at < bytes.length; at += FRAME_BYTES) {
        websocket.send(bytes.subarray(at, at + FRAME_BYTES), { binary: true }, () => {
          if (websocket.bufferedAmount < UNSENT_MAX_BYTES) hold('client', false);
        });
      }
      if (websocket.bufferedAmount >= UNSENT_MAX_BYTES) hold('client', true);
    };
    const link = new Link({ ...this.#shape, deliver, hold: (held) => hold('link', held) });
    target.on('data', (bytes: Buffer) => link.send(bytes));
    return link;
  }
}

/** A counted fault is taken once and holds for this tunnel's life; an uncounted one holds for as long as it is set. */
function shapeOf(
  faults: Faults,
  instanceId: string | null,
): Pick<ConstructorParameters<typeof Link>[0], 'delayMs' | 'bytesPerSecond'> {
  const readValue = (name: 'latency_ms' | 'bandwidth_kbps') => {
    const taken = faults.take(name, instanceId);
    if (taken !== null && taken.timesLeft !== null) return () => taken.value;
    return () => faults.peek(name, instanceId)?.value ?? 0;
  };
  const latencyMs = readValue('latency_ms');
  const kbps = readValue('bandwidth_kbps');
  return {
    delayMs: () => latencyMs() / 2,
    bytesPerSecond: () => (kbps() > 0 ? kbps() * 125 : null),
  };
}
