/** The peer asyncssh, where this machine has it: Debian's `python3-asyncssh`, for Debian's own Python. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Load } from './load.ts';

const PYTHON = '/usr/bin/python3';
const PROGRAM = fileURLToPath(new URL('asyncssh-worker.py', import.meta.url));

export const ASYNCSSH_MISSING = 'asyncssh: not installed (apt-get install python3-asyncssh)';

export interface Asyncssh {
  once(command: string): Promise<number>;
  load(how: { callers: number; forMs: number; command: string }): Promise<Load>;
  stop(): Promise<void>;
}

/** Null: not installed. */
export async function startAsyncssh(login: {
  port: number;
  username: string;
  keyFile: string;
  connections: number;
}): Promise<Asyncssh | null> {
  const isInstalled = await promisify(execFile)(PYTHON, ['-W', 'ignore', '-c', 'import asyncssh']).then(
    () => true,
    () => false,
  );
  if (!isInstalled) return null;
  const child = spawn(PYTHON, ['-W', 'ignore', PROGRAM], { stdio: ['pipe', 'pipe', 'inherit'], detached: true });
  const ask = createAsk(child);
  await ask({ op: 'connect', ...login });
  return {
    once: async (command) => Number(await ask({ op: 'once', command })),
    load: async (how) => (await ask({ op: 'load', ...how })) as Load,
    async stop() {
      const over = once(child, 'exit');
      child.kill('SIGKILL');
      await over;
    },
  };
}

/** One question at a time. */
function createAsk({ stdin, stdout }: ChildProcess): (ask: object) => Promise<unknown> {
  if (stdin === null || stdout === null) throw new Error('bug: a worker without pipes');
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  return async (ask) => {
    stdin.write(`${JSON.stringify(ask)}\n`);
    const { value: line, done } = await lines.next();
    if (done === true) throw new Error('asyncssh ended before it answered');
    const answer = JSON.parse(line) as { value?: unknown; error?: string };
    if (answer.error !== undefined) throw new Error(`asyncssh: ${answer.error}`);
    return answer.value;
  };
}
