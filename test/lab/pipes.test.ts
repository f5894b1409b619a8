import { closeSync, readSync, writeSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Pipes } from '../../src/lab/pipes.ts';

it('many programs get pipes of their own', async () => {
  const pipes = new Pipes();
  const opened = await Promise.all(Array.from({ length: 40 }, () => pipes.open()));
  for (const [index, program] of opened.entries()) {
    if (program === null) throw new Error('no pipes on this machine');
    const { stdout, fds } = program;
    writeSync(fds[1], `program ${index}`);
    closeSync(fds[1]);
    const text: string[] = [];
    for await (const chunk of stdout) text.push(String(chunk));
    expect(text.join('')).toBe(`program ${index}`);
    program.stdin.end('in');
    const bytes = Buffer.alloc(8);
    expect(bytes.toString('latin1', 0, readSync(fds[0], bytes))).toBe('in');
    closeSync(fds[0]);
    closeSync(fds[2]);
    program.stderr.destroy();
  }
  pipes.close();
});

it('without the program that makes them there are none, and nothing fails', async () => {
  const pipes = new Pipes('no-such-program');
  expect(await pipes.open()).toBeNull();
  expect(await pipes.open()).toBeNull();
});

it('after the end none are given', async () => {
  const pipes = new Pipes();
  pipes.close();
  await expect(pipes.open()).rejects.toThrow('the lab has stopped');
});
