/**
 * A leak fails the test file: what it opened and did not close.
 *
 * Looks at sockets, servers and child processes of this process, and at programs anywhere below it. Timers are left
 * out: the runner has its own, and unref'ed ones hold nothing.
 */
import { afterAll, beforeAll } from 'vitest';
import { processTable } from './processes.ts';
import { waitUntil } from './wait.ts';

const COUNTED = [
  'TCPSocketWrap',
  'TCPServerWrap',
  'PipeWrap',
  'PipeServerWrap',
  'ProcessWrap',
  'UDPWrap',
  'FSEventWrap',
];

/**
 * Call once at the top of a test file, before its other hooks: hooks run backwards at the end, so this looks last.
 * Closing takes the kernel a moment; a leak is what is still there after `withinMs`.
 */
export function failOnLeaks(withinMs = 3_000): void {
  let before: string[] = [];
  beforeAll(() => {
    before = holdings();
  });
  afterAll(async () => {
    const leaked = (): string[] => beyond(before, holdings());
    await waitUntil('nothing is left open', () => leaked().length === 0, withinMs).catch((error: Error) => {
      throw new Error(`left open at the end of the file: ${leaked().join(', ')}`, { cause: error });
    });
  });
}

/** One word per thing held, sorted. */
function holdings(): string[] {
  const handles = process.getActiveResourcesInfo().filter((kind) => COUNTED.includes(kind));
  return [
    ...handles,
    ...descendants().map(({ pid, args }) => `process ${pid} (${args.join(' ').slice(0, 80)})`),
  ].sort();
}

function descendants(): { pid: number; args: string[] }[] {
  const table = processTable();
  const found: typeof table = [];
  let parents = [process.pid];
  while (parents.length > 0) {
    const children = table.filter(({ parent }) => parents.includes(parent));
    found.push(...children);
    parents = children.map(({ pid }) => pid);
  }
  return found;
}

/** What `now` holds more often than `before` did. */
function beyond(before: readonly string[], now: readonly string[]): string[] {
  const rest = [...before];
  return now.filter((item) => {
    const index = rest.indexOf(item);
    if (index >= 0) rest.splice(index, 1);
    return index < 0;
  });
}
