/**
 * Ends the programs of a lab that was killed: a machine that dies takes its programs along, and nobody else would.
 *
 * A shell holds a pipe from us. It leaves when it reads a line; when the pipe closes without one, we are gone, and it
 * kills what was started with a home below ours. What has thrown its environment away is not found. Needs /proc.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** $1: the folder of the homes. A program may fork while it is looked for, so it is looked for until there is none. */
const KEEPER = `
read -r line && exit
for round in 1 2 3 4 5 6 7 8 9 10; do
  files=$(grep -lsF -- "HOME=$1/" /proc/[0-9]*/environ)
  [ -n "$files" ] || exit
  for file in $files; do
    file=\${file#/proc/}
    kill -KILL "\${file%/environ}" 2>/dev/null
  done
done`;

export interface Keeper {
  /** Lets it go without a kill. */
  stop(): Promise<void>;
}

export function startKeeper(homesDir: string): Keeper {
  // Detached: Ctrl-C in a terminal is for us alone.
  const child = spawn('/bin/sh', ['-c', KEEPER, 'sh', homesDir], {
    detached: true,
    env: { PATH: '/usr/bin:/bin' },
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const ended = once(child, 'exit').catch(() => undefined);
  // That it could not be started, or has closed its end, costs nothing but what it was for.
  child.on('error', () => undefined);
  child.stdin.on('error', () => undefined);
  return {
    async stop() {
      child.stdin.end('\n');
      await ended;
    },
  };
}
