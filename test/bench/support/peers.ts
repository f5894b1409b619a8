/** The peers that several rows measure against, ready to run. */
import { join } from 'node:path';
import { EXECS_PER_SESSION } from '../../../src/limits.ts';
import type { CommandOps } from './command-worker.ts';
import type { HttpOps } from './http-worker.ts';
import type { Worker } from './worker.ts';
import type { SshHost, World } from './world.ts';

/** Where many call at once. */
export const CALLERS = 100;
/** As many as the gateway needs for them. */
export const CONNECTIONS = Math.ceil(CALLERS / EXECS_PER_SESSION);

export async function startHttpCaller(world: World): Promise<Worker<HttpOps>> {
  return await world.worker<HttpOps>('http-worker.ts');
}

/** A ControlMaster that stays until the end; resolves with the words for an `ssh` that uses it. */
export async function startControlMaster(
  world: World,
  host: SshHost,
  { name, commands }: { name: string; commands: Worker<CommandOps> },
): Promise<string[]> {
  const words = ['-S', join(world.folder, `${name}.sock`), ...(await world.sshArgs(host))];
  await commands.ask('time', { file: 'ssh', args: ['-M', '-f', '-N', '-o', 'ControlPersist=900', ...words] });
  world.atEnd(async () => {
    await commands.ask('time', { file: 'ssh', args: ['-O', 'exit', ...words] });
  });
  return words;
}
