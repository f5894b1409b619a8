/**
 * The body of a streaming exec as frames, in order, pulled one by one: a caller that does not read slows the gateway.
 *
 * What was received before a break is still given; then the break is thrown. Decision: the parser is pulled by hand and
 * not through its async iterator, which drops what it holds as soon as the connection breaks.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { UnfinishedStreamError } from './problem.ts';
import type { WireFrame } from './wire.ts';

/** 48 KiB of payload is 64 KiB as base64 and at most 288 KiB as escaped text; a longer line is no frame of ours. */
const LINE_MAX_CHARS = 1024 * 1024;
/** The gateway sends a blank line every 15 s; four missed ones mean that the link is dead. */
const SILENCE_MAX_MS = 60_000;
/** After the terminal frame only the end of the body is left; a keep-alive connection is worth this much patience. */
const TAIL_MAX_MS = 1_000;

/** Loading the parser takes a tenth of the command line's whole run, so callers start it while they wait for an answer. */
export const loadParser = () => import('ndjson');

/** Ends after the terminal frame. Throws UnfinishedStreamError when none came, the signal's reason when aborted. */
export async function* readFrames(
  response: IncomingMessage,
  how: { execId: string | null; signal?: AbortSignal },
): AsyncGenerator<WireFrame, void> {
  const { default: ndjson } = await loadParser();
  const lines = ndjson.parse({ maxLength: LINE_MAX_CHARS } as object) as unknown as Duplex;
  const source = startReading(response, lines);
  let finished = false;
  try {
    for (;;) {
      const value: unknown = lines.read();
      if (value !== null) {
        const frame = asFrame(value);
        if (frame === null) throw new UnfinishedStreamError(how.execId, `a line is not a frame: ${excerpt(value)}`);
        finished = !('stream' in frame);
        yield frame;
        if (finished) return;
      } else if (source.why() !== null) {
        how.signal?.throwIfAborted();
        throw new UnfinishedStreamError(how.execId, source.why() ?? '');
      } else {
        await source.more();
      }
    }
  } finally {
    source.stop(finished);
  }
}

/** Wires the response into the parser; both are watched until `stop`. */
function startReading(response: IncomingMessage, lines: Duplex) {
  let why: string | null = null;
  let breakReason = 'it was closed';
  let inputOver = false;
  let wake = () => {};

  const endInput = () => {
    inputOver = true;
    lines.end();
  };
  const stopFor = (reason: string) => {
    why ??= reason;
    wake();
  };
  const silence = setTimeout(() => {
    // Nothing comes while we hold the sender back ourselves.
    if (lines.readableLength > 0 || response.readableLength > 0) silence.refresh();
    else response.destroy(new Error(`nothing came for ${SILENCE_MAX_MS / 1000} s, not even a heartbeat`));
  }, SILENCE_MAX_MS);

  response.on('data', () => silence.refresh());
  response.on('error', (error) => {
    breakReason = error.message;
  });
  response.on('end', endInput);
  response.on('close', endInput);
  lines.on('readable', () => wake());
  lines.on('end', () => {
    stopFor(response.complete ? 'the stream ended without a terminal frame' : `the connection broke (${breakReason})`);
  });
  lines.on('error', (error) => {
    // Half a line at the end is what a break leaves behind, and is reported as the break.
    if (!inputOver) stopFor(`a line cannot be read: ${error.message}`);
  });
  response.pipe(lines, { end: false });
  // It broke before anybody looked, so its events are over.
  if (response.destroyed) endInput();

  return {
    /** Why no frame will come any more; null while some may. */
    why: () => why,
    /** Resolves when it is worth looking again. */
    more: () =>
      new Promise<void>((resolve) => {
        wake = resolve;
      }),
    stop(finished: boolean) {
      clearTimeout(silence);
      if (!finished) return void response.destroy();
      response.unpipe(lines);
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
