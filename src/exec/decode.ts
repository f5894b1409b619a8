/**
 * Bytes of one output stream → pieces that can be sent as text, or must go as base64.
 *
 * Never loses, changes or reorders a byte. A character split across chunks is joined: at most 3 bytes are held back. A
 * piece that is not valid UTF-8 goes as base64 as a whole, because finding the good parts of it would help no reader.
 */
import { isUtf8 } from 'node:buffer';

export interface Piece {
  bytes: Buffer;
  /** The bytes are complete valid UTF-8. */
  text: boolean;
}

export interface Decoder {
  /** Null: everything was held back. A piece may share memory with the chunk. */
  push(chunk: Buffer): Piece | null;
  /** What was held back: at end-of-file, or where a cap cuts the stream in the middle of a character. */
  end(): Piece | null;
}

const NOTHING = Buffer.alloc(0);

export function createDecoder(mode: 'auto' | 'base64'): Decoder {
  let held = NOTHING;

  function push(chunk: Buffer): Piece | null {
    const bytes = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    held = NOTHING;
    if (bytes.length === 0) return null;
    if (mode === 'base64') return { bytes, text: false };
    const whole = bytes.length - unfinishedBytes(bytes);
    const head = bytes.subarray(0, whole);
    if (!isUtf8(head)) return { bytes, text: false };
    held = Buffer.from(bytes.subarray(whole)); // a copy: three bytes must not keep a whole chunk alive
    return whole === 0 ? null : { bytes: head, text: true };
  }

  function end(): Piece | null {
    const bytes = held;
    held = NOTHING;
    return bytes.length === 0 ? null : { bytes, text: false };
  }

  return { push, end };
}

/** Length of the character that the bytes begin but do not finish; 0 when they end with a whole one, or with no UTF-8. */
function unfinishedBytes(bytes: Buffer): number {
  for (let length = 1; length <= 3 && length <= bytes.length; length += 1) {
    const byte = bytes[bytes.length - length] ?? 0;
    const isContinuation = byte >= 0x80 && byte <= 0xbf;
    if (!isContinuation) return characterLength(byte) > length ? length : 0;
  }
  return 0;
}

/** By its first byte; 1 also for bytes that begin no character (RFC 3629). */
function characterLength(first: number): number {
  if (first >= 0xf0 && first <= 0xf4) return 4;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  return 1;
}
