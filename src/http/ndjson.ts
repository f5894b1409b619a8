/**
 * Exec events → NDJSON lines, and the writer that sends them no faster than the caller reads.
 *
 * A line is a string of bytes (one character, one byte), written as latin1: for valid UTF-8, escaping the bytes as they
 * are gives the same line as escaping the characters, at twice the speed, because JSON escapes only ASCII.
 */
import type { Response } from 'express';
import type { SallyportError } from '../errors.ts';
import type { ExecEnd, ExecEvent } from '../exec/frame.ts';
import { UNSENT_MAX_BYTES } from '../limits.ts';
import { createEscaper, ESCAPE_MAX_BYTES } from './json-escape.ts';
import { publicText } from './problem.ts';

/** What is shorter costs less than the way into WebAssembly. */
const ESCAPE_MIN_BYTES = 512;

/** `started` has no line. */
export type FrameEvent = Exclude<ExecEvent, { kind: 'started' }>;

/** `frameLine`, faster for much text. One for the whole process. */
export function createLineMaker(): (event: FrameEvent) => string {
  const escaper = createEscaper();
  return (event) => {
    if (escaper === null || event.kind !== 'output' || !event.text) return frameLine(event);
    const { stream, bytes } = event;
    if (bytes.length < ESCAPE_MIN_BYTES || bytes.length > ESCAPE_MAX_BYTES) return frameLine(event);
    return escaper.wrap(bytes, `{"stream":"${stream}","data":"`, '","truncated":false}\n');
  };
}

/** The line of an event, with its newline. */
export function frameLine(event: FrameEvent): string {
  switch (event.kind) {
    case 'output':
      return event.text
        ? `{"stream":"${event.stream}","data":${JSON.stringify(event.bytes.toString('latin1'))},"truncated":false}\n`
        : `{"stream":"${event.stream}","data":"${event.bytes.toString('base64')}","encoding":"base64","truncated":false}\n`;
    case 'truncated':
      return `{"stream":"${event.stream}","data":"\\n[output truncated at ${event.capBytes} bytes]","truncated":true}\n`;
    case 'end':
      return toBytes(`${JSON.stringify(terminalFrame(event))}\n`);
    default:
      return event satisfies never;
  }
}

export function terminalFrame(end: ExecEnd): object {
  return end.error === null ? exitFrame(end) : errorFrame(end, end.error);
}

/** A stream of this one frame. */
export function sendLine(res: Response, frame: object): void {
  setStreamHeaders(res);
  res.end(toBytes(`${JSON.stringify(frame)}\n`), 'latin1');
}

function exitFrame(end: ExecEnd): object {
  return {
    exit_code: end.exitCode,
    outcome: end.outcome,
    signal: end.signal,
    duration_ms: end.durationMs,
    ...idAndCounts(end),
    complete: end.complete,
    ...survivorsOf(end),
  };
}

function errorFrame(end: ExecEnd, error: SallyportError): object {
  return {
    error: publicText(error),
    code: error.code,
    outcome: end.outcome,
    ...(end.outcome === 'timed_out' ? { timeout_s: end.timeoutS } : {}),
    duration_ms: end.durationMs,
    ...idAndCounts(end),
    complete: false,
    ...(error.details.failedStep === undefined ? {} : { failed_step: error.details.failedStep }),
    ...survivorsOf(end),
  };
}

function idAndCounts(end: ExecEnd): object {
  return {
    exec_id: end.execId,
    stdout_bytes: end.stdoutBytes,
    stderr_bytes: end.stderrBytes,
    stdout_sha256: end.stdoutSha256,
    stderr_sha256: end.stderrSha256,
  };
}

function survivorsOf(end: ExecEnd): { survivors?: ExecEnd['survivors'] } {
  return end.survivors === undefined ? {} : { survivors: end.survivors };
}

function toBytes(text: string): string {
  return Buffer.from(text).toString('latin1');
}

export interface LineWriter {
  /** Begins to send a blank line whenever nothing was sent for a while. */
  startHeartbeat(): void;
  /** Null: go on. Otherwise resolves when the reader has caught up or is gone; to be awaited before the next line. */
  write(line: string): Promise<void> | null;
  end(line: string): void;
  /** Ends the heartbeat. Safe to call twice. */
  stop(): void;
}

export interface WriterOptions {
  heartbeatMs: number;
  /** A reader that takes nothing for this long is cut off. The exec itself ends and is recorded without it. */
  stallMaxMs: number;
}

/** Lines to a closed response are dropped: the caller has gone, the exec is ended by its signal. */
export function createLineWriter(res: Response, { heartbeatMs, stallMaxMs }: WriterOptions): LineWriter {
  let heartbeat: NodeJS.Timeout | null = null;
  let isJoining = false;
  /**
   * All lines of this turn of the event loop leave in one write, and the last one of all takes them along at once. Node by
   * itself writes once for each read of a socket: four times as often, and each write wakes the reader.
   */
  const join = (): void => {
    if (isJoining) return;
    isJoining = true;
    res.cork();
    setImmediate(() => {
      isJoining = false;
      if (!res.writableEnded) res.uncork();
    });
  };
  const send = (line: string): boolean => {
    if (res.closed) return true;
    if (!res.headersSent) setStreamHeaders(res);
    heartbeat?.refresh();
    join();
    // Node's own mark is less than a frame.
    return res.write(line, 'latin1') || res.writableLength < UNSENT_MAX_BYTES;
  };
  const beat = () => {
    if (!res.writableNeedDrain) send('\n');
    heartbeat?.refresh();
  };
  return {
    startHeartbeat() {
      heartbeat = setTimeout(beat, heartbeatMs);
    },
    write(line) {
      return send(line) ? null : drained(res, stallMaxMs);
    },
    end(line) {
      if (!res.headersSent) setStreamHeaders(res);
      res.end(line, 'latin1');
    },
    stop() {
      if (heartbeat !== null) clearTimeout(heartbeat);
      heartbeat = null;
    },
  };
}

function setStreamHeaders(res: Response): void {
  res.statusCode = 200;
  res.setHeader('Content-Type', 'application/x-ndjson');
  // Asks nginx not to collect frames before passing them on.
  res.setHeader('X-Accel-Buffering', 'no');
}

/** Resolves when the reader has caught up, has gone, or has been cut off for standing still. */
function drained(res: Response, stallMaxMs: number): Promise<void> {
  return new Promise((resolve) => {
    const stall = setTimeout(() => res.destroy(), stallMaxMs);
    const done = () => {
      clearTimeout(stall);
      res.off('drain', done).off('close', done);
      resolve();
    };
    res.on('drain', done).on('close', done);
  });
}
