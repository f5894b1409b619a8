import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createDecoder, type Piece } from '../../src/exec/decode.ts';

/** All pieces of a stream that arrives in these chunks. */
function decode(chunks: readonly Buffer[], mode: 'auto' | 'base64' = 'auto'): Piece[] {
  const decoder = createDecoder(mode);
  return [...chunks.map((chunk) => decoder.push(chunk)), decoder.end()].filter((piece) => piece !== null);
}
const bytesOf = (pieces: readonly Piece[]) => Buffer.concat(pieces.map((piece) => piece.bytes));

/** Splits at the given places, which may be equal: then a chunk is empty. */
function split(bytes: Buffer, places: readonly number[]): Buffer[] {
  const cuts = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return cuts.slice(1).map((cut, index) => bytes.subarray(cuts[index], cut));
}
const places = fc.array(fc.nat(), { maxLength: 12 });
const anyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.array(fc.constantFrom(0x61, 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xff), { maxLength: 40 }),
);

describe('whatever the bytes and wherever they are split', () => {
  test('none is lost, changed or reordered', () => {
    fc.assert(
      fc.property(anyBytes, places, fc.constantFrom('auto', 'base64'), (raw, cuts, mode) => {
        const bytes = Buffer.from(raw);
        expect(bytesOf(decode(split(bytes, cuts), mode))).toEqual(bytes);
      }),
      { numRuns: 3000 },
    );
  });

  test('what is called text is complete valid UTF-8, and no piece is empty', () => {
    fc.assert(
      fc.property(anyBytes, places, (raw, cuts) => {
        for (const piece of decode(split(Buffer.from(raw), cuts))) {
          expect(piece.bytes.length).toBeGreaterThan(0);
          if (piece.text) expect(Buffer.from(piece.bytes.toString('utf8'))).toEqual(piece.bytes);
        }
      }),
      { numRuns: 3000 },
    );
  });

  test('valid UTF-8 gives only text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 30 }), places, (text, cuts) => {
        const pieces = decode(split(Buffer.from(text), cuts));
        expect(pieces.filter((piece) => !piece.text)).toEqual([]);
        expect(pieces.map((piece) => piece.bytes.toString()).join('')).toBe(text);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('auto', () => {
  test.each(['é', '€', '😀'])('holds %s back until its last byte is there', (character) => {
    const decoder = createDecoder('auto');
    const bytes = Buffer.from(character);
    for (const byte of bytes.subarray(0, -1)) expect(decoder.push(Buffer.of(byte))).toBeNull();
    expect(decoder.push(bytes.subarray(-1))).toEqual({ bytes, text: true });
    expect(decoder.end()).toBeNull();
  });

  test('sends the whole characters before an unfinished one at once', () => {
    const decoder = createDecoder('auto');
    expect(decoder.push(Buffer.from('abé').subarray(0, 3))).toEqual({ bytes: Buffer.from('ab'), text: true });
  });

  test('a stream that is cut in the middle of a character ends with those bytes as base64', () => {
    expect(decode([Buffer.from('a€').subarray(0, 3)])).toEqual([
      { bytes: Buffer.from('a'), text: true },
      { bytes: Buffer.of(0xe2, 0x82), text: false },
    ]);
  });

  test('a piece that is not valid UTF-8 goes whole, with what was held back for it', () => {
    expect(decode([Buffer.of(0x61, 0xe2), Buffer.of(0x62)])).toEqual([
      { bytes: Buffer.from('a'), text: true },
      { bytes: Buffer.of(0xe2, 0x62), text: false },
    ]);
  });

  test.each([0x80, 0xc0, 0xc1, 0xf5, 0xff])('byte %i begins no character and is not held back', (byte) => {
    expect(createDecoder('auto').push(Buffer.of(byte))).toEqual({ bytes: Buffer.of(byte), text: false });
  });

  test('text after bytes that are none is text again', () => {
    expect(decode([Buffer.of(0xff), Buffer.from('ok')]).map((piece) => piece.text)).toEqual([false, true]);
  });

  test('a chunk without an unfinished character is not copied', () => {
    const chunk = Buffer.from('no tail');
    const piece = createDecoder('auto').push(chunk);
    chunk.write('NO');
    expect(piece?.bytes.toString()).toBe('NO tail');
  });

  test('what is held back is copied, so that the chunk may be reused', () => {
    const decoder = createDecoder('auto');
    const chunk = Buffer.of(0xc3);
    decoder.push(chunk);
    chunk.fill(0);
    expect(decoder.push(Buffer.of(0xa9))?.bytes.toString()).toBe('é');
  });

  test('an empty chunk gives nothing', () => {
    expect(createDecoder('auto').push(Buffer.alloc(0))).toBeNull();
  });
});

test('base64 holds nothing back and calls nothing text', () => {
  expect(decode([Buffer.of(0xc3), Buffer.of(0xa9), Buffer.from('ok')], 'base64')).toEqual([
    { bytes: Buffer.of(0xc3), text: false },
    { bytes: Buffer.of(0xa9), text: false },
    { bytes: Buffer.from('ok'), text: false },
  ]);
});
