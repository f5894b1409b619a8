/** The peers that several rows measure against, ready to run. */
import { join } from 'node:path';
import type { BashServerOps } from './bash-server.ts';
import type { CommandOps } from './command-worker.ts';
import type { HttpOps } from './http-worker.ts';
import type { HttpTarget } from './raw-http.ts';
import type { Ssh2Ops } from './ssh2-worker.ts';
import type { Worker } from './worker.ts';
import type { SshHost, World } from './world.ts';

export async function startHttpCaller(world: World): Promise<Worker<HttpOps>> {
  return await world.worker<HttpOps>('http-worker.ts');
}

export async function startBareSsh2(world: World, host: SshHost, connections = 1): Promise<Worker<Ssh2Ops>> {
  const worker = await world.worker<Ssh2Ops>('ssh2-worker.ts');
  await worker.ask('connect', { ...host, connections });
  return worker;
}

/** What to send to a server that runs bash on this machine. */
export async function startBashServer(world: World): Promise<(command: string) => HttpTarget> {
  const server = await world.worker<BashServerOps>('bash-server.ts');
  const { url } = await server.ask('listen', {});
  return (command) => ({ url, path: '/exec', token: 'none', body: { command } });
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
