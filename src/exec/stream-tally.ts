/**
 * One output stream of one exec: counts and digests every byte read, cuts at the cap, decodes what is sent.
 *
 * Bytes past the cap are counted and digested but not sent; in their place comes one `truncated` event, right after byte
 * number `capBytes`.
 */
import { createHash, type Hash } from 'node:crypto';
import { createDecoder, type Piece } from './decode.ts';
import { SHA256_OF_NOTHING } from './end.ts';
import type { ExecEvent, StreamName } from './frame.ts';

export interface StreamTally {
  /** Events to send for these bytes, in order. */
  add(bytes: Buffer): ExecEvent[];
  /** What the decoder still held back. */
  end(): ExecEvent[];
  readonly bytes: number;
  readonly truncated: boolean;
  sha256(): string;
}

export function createStreamTally(stream: StreamName, encoding: 'auto' | 'base64', capBytes: number): StreamTally {
  const decoder = createDecoder(encoding);
  /** Null until the first byte: most programs leave one stream empty. */
  let hash: Hash | null = null;
  let bytes = 0;
  let truncated = false;
  const toEvents = (piece: Piece | null): ExecEvent[] =>
    piece === null ? [] : [{ kind: 'output', stream, bytes: piece.bytes, text: piece.text }];

  return {
    add(chunk) {
      hash ??= createHash('sha256');
      hash.update(chunk);
      const room = Math.max(0, capBytes - bytes);
      bytes += chunk.length;
      if (truncated) return [];
      if (chunk.length <= room) return toEvents(decoder.push(chunk));
      truncated = true;
      const head = room > 0 ? decoder.push(chunk.subarray(0, room)) : null;
      return [...toEvents(head), ...toEvents(decoder.end()), { kind: 'truncated', stream, capBytes }];
    },
    end: () => (truncated ? [] : toEvents(decoder.end())),
    get bytes() {
      return bytes;
    },
    get truncated() {
      return truncated;
    },
    sha256: () => hash?.copy().digest('hex') ?? SHA256_OF_NOTHING,
  };
}
