/** The peer `bare ssh2`: the same library as the gateway's, with the same settings of the connection, and nothing around it. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { Client, type ClientChannel, type ConnectConfig } from 'ssh2';
import { runLoad } from './load.ts';
import { answerAsks } from './worker.ts';

export interface SshLogin {
  port: number;
  username: string;
  privateKey: string;
}

const open: Client[] = [];

const ops = {
  async connect({ connections, ...login }: SshLogin & { connections: number }): Promise<void> {
    for (let count = 0; count < connections; count += 1) open.push(await logIn(login));
  },

  /** One command on the first open connection. ms */
  async once({ command }: { command: string }): Promise<number> {
    const from = performance.now();
    await run(clientOf(0), command);
    return performance.now() - from;
  },

  /** Connect, log in, one command, all from nothing. ms */
  async cold({ command, tuned, ...login }: SshLogin & { command: string; tuned: boolean }): Promise<number> {
    const from = performance.now();
    const client = await (tuned ? logIn(login) : logInByDefault(login));
    await run(client, command);
    const ms = performance.now() - from;
    client.end();
    return ms;
  },

  async load({ callers, forMs, command }: { callers: number; forMs: number; command: string }) {
    return await runLoad({ callers, forMs }, (caller) => run(clientOf(caller % open.length), command));
  },

  async drain({ command }: { command: string }): Promise<{ bytes: number; ms: number }> {
    const from = performance.now();
    let bytes = 0;
    await run(clientOf(0), command, (chunk) => {
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

/** Without Nagle's delay, with the key at once and the fastest cipher, as the gateway does it. */
async function logIn({ port, ...who }: SshLogin): Promise<Client> {
  const sock = connect({ host: '127.0.0.1', port, noDelay: true });
  await once(sock, 'connect');
  const login = { sock, authHandler: [{ type: 'publickey', username: who.username, key: who.privateKey }] };
  return await ready({ ...who, ...login, algorithms: { cipher: ['aes128-gcm@openssh.com'] } } as ConnectConfig);
}

async function logInByDefault({ port, ...who }: SshLogin): Promise<Client> {
  return await ready({ host: '127.0.0.1', port, ...who });
}

function ready(config: ConnectConfig): Promise<Client> {
  const client = new Client();
  return new Promise((resolve, reject) => {
    client.once('ready', () => resolve(client));
    client.on('error', reject);
    client.connect(config);
  });
}

function run(client: Client, command: string, take: (chunk: Buffer) => void = () => undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    client.exec(command, (error: Error | undefined, channel: ClientChannel) => {
      if (error) return reject(error);
      let code: unknown;
      channel.on('exit', (status: unknown) => {
        code = status;
      });
      channel.on('data', take);
      channel.stderr.resume();
      channel.on('close', () => {
        if (code === 0) resolve();
        else reject(new Error(`expected exit code 0, got ${String(code)}`));
      });
    });
  });
}

export type Ssh2Ops = typeof ops;
answerAsks(ops);
