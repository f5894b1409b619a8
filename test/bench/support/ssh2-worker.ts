/** The peer `bare ssh2`: the same library as the gateway's, with the same settings of the connection, and nothing around it. */
import type { Client } from 'ssh2';
import { runCalls, runLoad } from './load.ts';
import { logIn, logInByDefault, run, type SshLogin } from './ssh2-client.ts';
import { answerAsks } from './worker.ts';

let open: Client[] = [];

const ops = {
  /** To this host from now on; connections to the one before are ended. */
  async connect({ connections, ...login }: SshLogin & { connections: number }): Promise<void> {
    for (const client of open) client.end();
    open = [];
    for (let count = 0; count < connections; count += 1) open.push(await logIn(login));
  },

  /** One command on the first open connection. ms */
  async once({ command }: { command: string }): Promise<number> {
    const from = performance.now();
    await succeed(clientOf(0), command);
    return performance.now() - from;
  },

  /** Connect, log in, one command, all from nothing. ms */
  async cold({ command, tuned, ...login }: SshLogin & { command: string; tuned: boolean }): Promise<number> {
    const from = performance.now();
    const client = await (tuned ? logIn(login) : logInByDefault(login));
    await succeed(client, command);
    const ms = performance.now() - from;
    client.end();
    return ms;
  },

  async load({ callers, forMs, command }: { callers: number; forMs: number; command: string }) {
    return await runLoad({ callers, forMs }, (caller) => succeed(clientOf(caller % open.length), command));
  },

  async warm({ callers, calls, command }: { callers: number; calls: number; command: string }): Promise<void> {
    await runCalls({ callers, calls }, (caller) => succeed(clientOf(caller % open.length), command));
  },

  async drain({ command }: { command: string }): Promise<{ bytes: number; ms: number }> {
    const from = performance.now();
    let bytes = 0;
    await succeed(clientOf(0), command, (chunk) => {
      bytes += chunk.length;
    });
    return { bytes, ms: performance.now() - from };
  },
};

function clientOf(index: number): Client {
  const client = open[index];
  if (client === undefined) throw new Error('bug: not connected');
  return client;
}

async function succeed(client: Client, command: string, stdout?: (chunk: Buffer) => void): Promise<void> {
  const code = await run(client, command, stdout === undefined ? {} : { stdout });
  if (code !== 0) throw new Error(`expected exit code 0, got ${code}`);
}

export type Ssh2Ops = typeof ops;
answerAsks(ops);
