/**
 * Output on its way from a host to one reader, in order of arrival. Drivers fill it, exec/run.ts reads it.
 *
 * It has no limit of its own: the driver must let the host send only as much as `taken` has given back. The first chunk
 * leaves at once; later small ones wait JOIN_MAX_MS at most to be joined, so that a program that writes byte by byte
 * does not cost a frame a byte.
 */
import { FRAME_MAX_BYTES, JOIN_BELOW_BYTES, JOIN_MAX_MS } from '../limits.ts';
import type { OutputChunk } from './session.ts';

export interface OutputQueue {
  /** For one reader. Ends when the output ended or was abandoned. */
  readonly chunks: AsyncIterable<OutputChunk>;
  /** Both streams reached end-of-file, and nobody abandoned them. */
  readonly ended: boolean;
  push(chunk: OutputChunk): void;
  end(): void;
  /** Nothing more will come, and nobody knows what was missed: a reader gets what is queued, then the end. */
  cut(): void;
  /** Nobody will read on: what is queued and what still comes is dropped; a waiting reader sees the end. */
  abandon(): void;
}

/** `taken` is told of every byte that left the queue, read or dropped. */
export function createOutputQueue(taken: (bytes: number) => void): OutputQueue {
  let queue: OutputChunk[] = [];
  let ended = false;
  let whole = false;
  let abandoned = false;
  let wake: (() => void) | null = null;
  const notify = (): void => {
    wake?.();
    wake = null;
  };
  const woken = (): Promise<void> =>
    new Promise((resolve) => {
      wake = resolve;
    });

  /** Little of one stream may get company; anything else, or an end, goes at once. */
  const worthWaiting = (): boolean =>
    !ended &&
    !abandoned &&
    queue.every(({ stream }) => stream === queue[0]?.stream) &&
    queue.reduce((sum, { bytes }) => sum + bytes.length, 0) < JOIN_BELOW_BYTES;
  const waitForCompany = async (): Promise<void> => {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      notify();
    }, JOIN_MAX_MS);
    while (!late && worthWaiting()) await woken();
    clearTimeout(timer);
  };

  async function* read(): AsyncGenerator<OutputChunk> {
    let first = true;
    while (!abandoned) {
      if (queue.length > 0) {
        const chunk = takeJoined(queue);
        first = false;
        taken(chunk.bytes.length);
        yield chunk;
      } else if (ended) return;
      else {
        await woken();
        if (!first && worthWaiting()) await waitForCompany();
      }
    }
  }

  return {
    chunks: read(),
    get ended() {
      return whole && !abandoned;
    },
    push(chunk) {
      if (abandoned) {
        taken(chunk.bytes.length);
        return;
      }
      queue.push(chunk);
      notify();
    },
    end() {
      whole ||= !ended;
      ended = true;
      notify();
    },
    cut() {
      ended = true;
      notify();
    },
    abandon() {
      abandoned = true;
      for (const chunk of queue) taken(chunk.bytes.length);
      queue = [];
      notify();
    },
  };
}

/** The first chunk with those behind it that belong to the same stream and fit into one frame. */
function takeJoined(queue: OutputChunk[]): OutputChunk {
  const [first] = queue;
  if (first === undefined) throw new Error('bug: an empty queue has no chunk');
  let count = 1;
  let bytes = first.bytes.length;
  for (const next of queue.slice(1)) {
    if (next.stream !== first.stream || bytes + next.bytes.length > FRAME_MAX_BYTES) break;
    bytes += next.bytes.length;
    count += 1;
  }
  const joined = queue.splice(0, count);
  return count === 1 ? first : { stream: first.stream, bytes: Buffer.concat(joined.map((chunk) => chunk.bytes)) };
}
