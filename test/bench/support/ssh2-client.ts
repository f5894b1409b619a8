/** ssh2 with the same settings of the connection as the gateway's, for the peers that have nothing or little around it. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { Client, type ClientChannel, type ConnectConfig } from 'ssh2';

export interface SshLogin {
  port: number;
  username: string;
  privateKey: string;
}

/** Without Nagle's delay, with the key at once and the fastest cipher, as the gateway does it. */
export async function logIn({ port, ...who }: SshLogin): Promise<Client> {
  const sock = connect({ host: '127.0.0.1', port, noDelay: true });
  await once(sock, 'connect');
  const login = { sock, authHandler: [{ type: 'publickey', username: who.username, key: who.privateKey }] };
  return await ready({ ...who, ...login, algorithms: { cipher: ['aes128-gcm@openssh.com'] } } as ConnectConfig);
}

export async function logInByDefault({ port, ...who }: SshLogin): Promise<Client> {
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

const drop = (): void => undefined;

/** Resolves with the exit code when the channel is closed. */
export function run(
  client: Client,
  command: string,
  {
    stdout = drop,
    stderr = drop,
  }: Partial<Record<'stdout' | 'stderr', (chunk: Buffer, channel: ClientChannel) => void>> = {},
): Promise<number> {
  return new Promise((resolve, reject) => {
    client.exec(command, (error: Error | undefined, channel: ClientChannel) => {
      if (error) return reject(error);
      let code: unknown;
      channel.on('exit', (status: unknown) => {
        code = status;
      });
      channel.on('data', (chunk: Buffer) => stdout(chunk, channel));
      channel.stderr.on('data', (chunk: Buffer) => stderr(chunk, channel));
      channel.on('close', () => {
        if (typeof code === 'number') resolve(code);
        else reject(new Error(`expected an exit code, got ${String(code)}`));
      });
    });
  });
}
