import { describe, expect, it } from 'vitest';
import { FRAME_MAX_BYTES, JOIN_BELOW_BYTES } from '../../src/limits.ts';
import { createOutputQueue } from '../../src/sessions/output-queue.ts';
import type { OutputChunk } from '../../src/sessions/session.ts';

const chunk = (text: string, stream: OutputChunk['stream'] = 'stdout'): OutputChunk => ({
  stream,
  bytes: Buffer.from(text),
});

function setup() {
  let taken = 0;
  const queue = createOutputQueue((bytes) => {
    taken += bytes;
  });
  const reader = queue.chunks[Symbol.asyncIterator]();
  const next = async (): Promise<string | null> => {
    const { done, value } = await reader.next();
    return done ? null : `${value.stream} ${value.bytes}`;
  };
  return { queue, next, taken: () => taken };
}

describe('output queue', () => {
  it('the first chunk leaves at once', async () => {
    const { queue, next } = setup();
    const waiting = next();
    queue.push(chunk('a'));
    expect(await waiting).toBe('stdout a');
  });

  it('later small chunks of one stream are joined', async () => {
    const { queue, next } = setup();
    queue.push(chunk('first'));
    await next();
    const waiting = next();
    for (const letter of 'abc') {
      queue.push(chunk(letter));
      await Promise.resolve();
    }
    expect(await waiting).toBe('stdout abc');
  });

  it('the end does not wait', async () => {
    const { queue, next } = setup();
    queue.push(chunk('first'));
    await next();
    const waiting = next();
    queue.push(chunk('last'));
    queue.end();
    expect(await waiting).toBe('stdout last');
    expect(await next()).toBeNull();
  });

  it('keeps the order between the streams', async () => {
    const { queue, next } = setup();
    queue.push(chunk('1'));
    queue.push(chunk('2'));
    queue.push(chunk('3', 'stderr'));
    queue.push(chunk('4'));
    queue.end();
    expect([await next(), await next(), await next(), await next()]).toEqual([
      'stdout 12',
      'stderr 3',
      'stdout 4',
      null,
    ]);
  });

  it('joins up to one frame and no further', async () => {
    const { queue, next } = setup();
    const big = 'x'.repeat(FRAME_MAX_BYTES - 1);
    queue.push(chunk(big));
    queue.push(chunk('y'));
    queue.push(chunk('z'));
    queue.end();
    expect(await next()).toBe(`stdout ${big}y`);
    expect(await next()).toBe('stdout z');
  });

  it('what is large does not wait for more', async () => {
    const { queue, next } = setup();
    queue.push(chunk('first'));
    await next();
    const waiting = next();
    const big = 'x'.repeat(JOIN_BELOW_BYTES);
    queue.push(chunk(big));
    expect(await waiting).toBe(`stdout ${big}`);
  });

  it('gives back every byte, read or abandoned', async () => {
    const { queue, next, taken } = setup();
    queue.push(chunk('abc'));
    await next();
    queue.push(chunk('defg'));
    queue.abandon();
    queue.push(chunk('hi'));
    expect(taken()).toBe(9);
    expect(await next()).toBeNull();
    expect(queue.ended).toBe(false);
  });

  it('what is cut off is read to its end, and did not end', async () => {
    const { queue, next } = setup();
    queue.push(chunk('a'));
    queue.cut();
    queue.end();
    expect([await next(), await next(), queue.ended]).toEqual(['stdout a', null, false]);
  });
});
