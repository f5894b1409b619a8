/**
 * The body of a streaming exec as frames, in order, pulled one by one: a caller that does not read slows the gateway.
 *
 * What was received before a break is still given; then the break is thrown. Decisions: the body is pulled by hand and
 * not through its async iterator, which drops what it holds as soon as the connection breaks; and lines are cut here
 * and not by a package, because loading one was a fifth of what a remote exec costs over an empty node.
 */
import type { IncomingMessage } from 'node:http';
import { UnfinishedStreamError } from './problem.ts';
import type { WireFrame } from './wire.ts';

/** 48 KiB of payload is 64 KiB as base64 and at most 288 KiB as escaped text; a longer line is no frame of ours. */
const LINE_MAX_BYTES = 1024 * 1024;
/** The gateway sends a blank line every 15 s; four missed ones mean that the link is dead. */
const SILENCE_MAX_MS = 60_000;
/** After the terminal frame only the end of the body is left; a keep-alive connection is worth this much patience. */
const TAIL_MAX_MS = 1_000;
const LINE_FEED = 0x0a;

/** Ends after the terminal frame. Throws UnfinishedStreamError when none came, the signal's reason when aborted. */
export async function* readFrames(
  response: IncomingMessage,
  how: { execId: string | null; signal?: AbortSignal },
): AsyncGenerator<WireFrame, void> {
  const unfinished = (why: string) => new UnfinishedStreamError(how.execId, why);
  const source = startReading(response);
  const lines = createLines((why) => unfinished(`a line cannot be read: ${why}`));
  let finished = false;
  try {
    for (;;) {
      const chunk = source.read();
      if (chunk === null && !source.isOver()) {
        await source.more();
        continue;
      }
      for (const value of chunk === null ? lines.rest() : lines.cut(chunk)) {
        const frame = asFrame(value);
        if (frame === null) throw unfinished(`a line is not a frame: ${excerpt(value)}`);
        finished = !('stream' in frame);
        yield frame;
        if (finished) return;
      }
      if (chunk !== null) continue;
      how.signal?.throwIfAborted();
      throw unfinished(source.whyOver());
    }
  } finally {
    source.stop(finished);
  }
}

/** Bytes in, the values of whole lines out. Blank lines, and `null`, which says as little, are left out. */
function createLines(unreadable: (why: string) => Error) {
  let held: Buffer[] = [];
  let heldBytes = 0;

  function take(end: Buffer): unknown {
    const line = (held.length === 0 ? end : Buffer.concat([...held, end])).toString('utf8');
    held = [];
    heldBytes = 0;
    try {
      return line.trim() === '' ? null : JSON.parse(line);
    } catch {
      throw unreadable(`Could not parse row ${line.slice(0, 50)}...`);
    }
  }

  return {
    /** The lines that end in this chunk; behind them throws when a line is no JSON, or one without an end too long. */
    *cut(chunk: Buffer): Generator<unknown, void> {
      let from = 0;
      for (let to = chunk.indexOf(LINE_FEED); to >= 0; to = chunk.indexOf(LINE_FEED, from)) {
        const value = take(chunk.subarray(from, to));
        from = to + 1;
        if (value !== null) yield value;
      }
      if (from < chunk.length) held.push(chunk.subarray(from));
      heldBytes += chunk.length - from;
      if (heldBytes > LINE_MAX_BYTES) throw unreadable('maximum buffer reached');
    },
    /** What stands behind the last line end, if it is whole: half a line is what a break leaves behind. */
    rest(): unknown[] {
      try {
        const value = take(Buffer.alloc(0));
        return value === null ? [] : [value];
      } catch {
        // Reported as the break that it is.
        return [];
      }
    },
  };
}

/** The response is watched until `stop`. */
function startReading(response: IncomingMessage) {
  let breakReason = 'it was closed';
  let wake = () => {};

  const silence = setTimeout(() => {
    // Nothing comes while we hold the sender back ourselves.
    if (response.readableLength > 0) silence.refresh();
    else response.destroy(new Error(`nothing came for ${SILENCE_MAX_MS / 1000} s, not even a heartbeat`));
  }, SILENCE_MAX_MS);
  const onReadable = () => {
    silence.refresh();
    wake();
  };
  response.on('readable', onReadable);
  response.on('error', (error) => {
    breakReason = error.message;
  });
  response.on('end', () => wake());
  response.on('close', () => wake());

  return {
    /** Null: nothing now. */
    read: (): Buffer | null => response.read(),
    /** Nothing will come any more. */
    isOver: () => response.readableEnded || response.closed,
    whyOver: () =>
      response.complete ? 'the stream ended without a terminal frame' : `the connection broke (${breakReason})`,
    /** Resolves when it is worth looking again. */
    more: () =>
      new Promise<void>((resolve) => {
        wake = resolve;
      }),
    stop(finished: boolean) {
      clearTimeout(silence);
      if (!finished) return void response.destroy();
      response.off('readable', onReadable);
      response.resume();
      const tail = setTimeout(() => response.destroy(), TAIL_MAX_MS).unref();
      response.once('close', () => clearTimeout(tail));
    },
  };
}

/** Null: no frame that we know. */
function asFrame(value: unknown): WireFrame | null {
  if (typeof value !== 'object' || value === null) return null;
  const frame = value as Record<string, unknown>;
  if ('stream' in frame) {
    const known = frame.stream === 'stdout' || frame.stream === 'stderr';
    return known && typeof frame.data === 'string' ? (value as WireFrame) : null;
  }
  if (typeof frame.exit_code === 'number' || typeof frame.error === 'string') return value as WireFrame;
  return null;
}

function excerpt(value: unknown): string {
  return JSON.stringify(value).slice(0, 80);
}
