import { expect, test } from 'vitest';
import { exitCodeOfSignal } from '../../src/exec/signals.ts';

test.each([
  ['TERM', 143],
  ['KILL', 137],
  ['34', 162],
  ['@openssh.com', 128],
  ['', 128],
])('a program killed by %j has the exit code %i', (name, code) => {
  expect(exitCodeOfSignal(name)).toBe(code);
});
