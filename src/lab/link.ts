/**
 * One direction of a link with a delay and a bandwidth, both asked for anew with every chunk. Chunks leave in the order
 * in which they came. Without faults a chunk goes through in the same turn.
 */

export interface LinkOptions {
  /** One way. */
  delayMs(): number;
  /** Null: no bound. */
  bytesPerSecond(): number | null;
  deliver(bytes: Buffer): void;
  /** True: hold the sender back; false: let it go on. */
  hold(held: boolean): void;
}

/** In flight on a slow line; more would only be a longer queue. */
const NARROW_BYTES = 256 * 1024;
/** Room for 2 MiB windows on their way through a long line. */
const WIDE_BYTES = 8 * 1024 * 1024;
/** A slow line hands over at least this often. */
const SLICE_MS = 20;

export class Link {
  readonly #options: LinkOptions;
  readonly #queue: { bytes: Buffer; atMs: number }[] = [];
  #queuedBytes = 0;
  #lineFreeAtMs = 0;
  #held = false;
  #timer: NodeJS.Timeout | null = null;
  #onEmpty: (() => void) | null = null;

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  send(bytes: Buffer): void {
    const delayMs = this.#options.delayMs();
    const rate = this.#options.bytesPerSecond();
    if (this.#queue.length === 0 && delayMs === 0 && rate === null) {
      this.#options.deliver(bytes);
      return;
    }
    const slice = rate === null ? bytes.length : Math.max(512, Math.ceil((rate * SLICE_MS) / 1000));
    for (let at = 0; at < bytes.length; at += slice) this.#enqueue(bytes.subarray(at, at + slice), { delayMs, rate });
    const most = rate === null ? WIDE_BYTES : NARROW_BYTES;
    if (this.#queuedBytes > most) this.#hold(true);
    this.#arm();
  }

  /** Runs `then` once when everything sent so far has been delivered. */
  whenEmpty(then: () => void): void {
    if (this.#queue.length === 0) then();
    else this.#onEmpty = then;
  }

  /** What is in flight is lost. */
  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#queue.length = 0;
    this.#onEmpty = null;
  }

  #enqueue(bytes: Buffer, line: { delayMs: number; rate: number | null }): void {
    const startMs = Math.max(performance.now(), this.#lineFreeAtMs);
    this.#lineFreeAtMs = line.rate === null ? startMs : startMs + (bytes.length / line.rate) * 1000;
    const atMs = Math.max(this.#lineFreeAtMs + line.delayMs, this.#queue.at(-1)?.atMs ?? 0);
    this.#queue.push({ bytes, atMs });
    this.#queuedBytes += bytes.length;
  }

  #arm(): void {
    const next = this.#queue[0];
    if (this.#timer !== null || next === undefined) return;
    this.#timer = setTimeout(() => this.#due(), Math.max(0, next.atMs - performance.now()));
  }

  #due(): void {
    this.#timer = null;
    const nowMs = performance.now();
    while (this.#queue[0] !== undefined && this.#queue[0].atMs <= nowMs) {
      const { bytes } = this.#queue.shift() as { bytes: Buffer };
      this.#queuedBytes -= bytes.length;
      this.#options.deliver(bytes);
    }
    if (this.#queuedBytes < NARROW_BYTES / 2) this.#hold(false);
    if (this.#queue.length > 0) {
      this.#arm();
      return;
    }
    const then = this.#onEmpty;
    this.#onEmpty = null;
    then?.();
  }

  #hold(held: boolean): void {
    if (held === this.#held) return;
    this.#held = held;
    this.#options.hold(held);
  }
}
