/** The engine's frames, and the wrapper's lines in them, wherever the bytes happen to be cut. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createFrameReader, type EngineStream, FrameError } from '../../src/drivers/docker-frames.ts';
import { createMarkReader, endOfExitCode } from '../../src/drivers/docker-wrapper.ts';

function frame(stream: number, payload: Buffer): Buffer {
  const header = Buffer.from([stream, 0, 0, 0, 0, 0, 0, 0]);
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

/** Pieces of at most `sizes` bytes, in turn. */
function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const end = at + (sizes[turn % sizes.length] ?? 1);
    pieces.push(bytes.subarray(at, end));
    at = end;
  }
  return pieces;
}

const someBytes = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
const someSizes = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 8 });

describe('frames', () => {
  function read(pieces: readonly Buffer[]): Record<EngineStream, Buffer> {
    const reader = createFrameReader();
    const seen: Record<EngineStream, Buffer[]> = { stdout: [], stderr: [] };
    for (const piece of pieces) reader.push(piece, (stream, bytes) => seen[stream].push(Buffer.from(bytes)));
    return { stdout: Buffer.concat(seen.stdout), stderr: Buffer.concat(seen.stderr) };
  }

  test('any frames, cut anywhere, give each stream its bytes', () => {
    const someFrames = fc.array(fc.tuple(fc.constantFrom(1, 2), someBytes), { maxLength: 12 });
    fc.assert(
      fc.property(someFrames, someSizes, (frames, sizes) => {
        const whole = Buffer.concat(frames.map(([stream, payload]) => frame(stream, payload)));
        const of = (wanted: number) =>
          Buffer.concat(frames.filter(([stream]) => stream === wanted).map(([, payload]) => payload));
        expect(read(cut(whole, sizes))).toEqual({ stdout: of(1), stderr: of(2) });
      }),
      { numRuns: 500 },
    );
  });

  test('a payload is given on before its frame is whole', () => {
    const pieces: string[] = [];
    createFrameReader().push(frame(1, Buffer.from('abcdef')).subarray(0, 11), (_, bytes) => pieces.push(String(bytes)));
    expect(pieces).toEqual(['abc']);
  });

  test.each([
    ['stream 3, the word of an engine that failed', frame(3, Buffer.from('broken'))],
    ['stream 0', frame(0, Buffer.from('x'))],
    ['text', Buffer.from('HTTP/1.1 500 Internal')],
    ['a terminal without frames', Buffer.from('\u0001abcdefgh')],
  ])('%s is no output', (_what, bytes) => {
    expect(() => read([bytes])).toThrow(FrameError);
  });
});

describe('marks', () => {
  const mark = 'a1b2c3d4e5f60718293a4b5c6d7e8f90';

  function read(pieces: readonly Buffer[]) {
    const reader = createMarkReader(mark);
    const all = { output: [] as Buffer[], ends: [] as unknown[], eofs: 0 };
    for (const piece of pieces) {
      const { output, end, eof } = reader.push(piece);
      all.output.push(...output.map((bytes) => Buffer.from(bytes)));
      if (end !== null) all.ends.push(end);
      if (eof) all.eofs += 1;
    }
    return { output: Buffer.concat([...all.output, reader.rest()]), ends: all.ends, eofs: all.eofs };
  }

  test('lines of the wrapper are taken out of any bytes, cut anywhere, and the rest is as it was', () => {
    const nearMiss = fc.integer({ min: 1, max: 31 }).map((length) => Buffer.from(mark.slice(0, length)));
    const someOutput = fc
      .array(fc.oneof(someBytes, nearMiss), { maxLength: 5 })
      .map((parts) => Buffer.concat(parts))
      .filter((bytes) => !bytes.includes(mark));
    fc.assert(
      fc.property(someOutput, someOutput, someOutput, someSizes, (before, between, after, sizes) => {
        const lines = [Buffer.from(`${mark} end 3\n`), Buffer.from(`${mark} eof\n`)] as const;
        const whole = Buffer.concat([before, lines[0], between, lines[1], after]);
        fc.pre(whole.indexOf(mark) === before.length);
        expect(read(cut(whole, sizes))).toEqual({
          output: Buffer.concat([before, between, after]),
          ends: [{ kind: 'exited', code: 3 }],
          eofs: 1,
        });
      }),
      { numRuns: 500 },
    );
  });

  test('bytes that begin no line of the wrapper do not wait', () => {
    expect(createMarkReader(mark).push(Buffer.from('done.')).output).toEqual([Buffer.from('done.')]);
  });

  test('a mark without its line is the program’s own', () => {
    const odd = Buffer.from(`${mark}${'x'.repeat(100)}`);
    expect(read([odd]).output).toEqual(odd);
  });

  test.each([
    [0, { kind: 'exited', code: 0 }],
    [137, { kind: 'exited', code: 137 }],
    [255, { kind: 'exited', code: 255 }],
    [256 + 9, { kind: 'signaled', signal: 'KILL' }],
    [256 + 6, { kind: 'signaled', signal: 'ABRT' }],
    [512 + 11, { kind: 'signaled', signal: 'SEGV' }],
    [256 + 34, { kind: 'signaled', signal: '34' }],
  ])('status %i', (status, end) => {
    expect(read([Buffer.from(`${mark} end ${status}\n`)]).ends).toEqual([end]);
  });

  test.each([
    [0, { kind: 'exited', code: 0 }],
    [127, { kind: 'exited', code: 127 }],
    [137, { kind: 'signaled', signal: 'KILL' }],
    [255, { kind: 'exited', code: 255 }],
  ])('the engine’s exit code %i', (code, end) => {
    expect(endOfExitCode(code)).toEqual(end);
  });
});
