/** The way to a lab instance with nothing but the real clients: AWS SDK, Smithy's signer, ws, ssh2. */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { Sha256 } from '@aws-crypto/sha256-js';
import { EC2Client } from '@aws-sdk/client-ec2';
import { EC2InstanceConnectClient, SendSSHPublicKeyCommand } from '@aws-sdk/client-ec2-instance-connect';
import { HttpRequest } from '@smithy/protocol-http';
import { SignatureV4 } from '@smithy/signature-v4';
import ssh2, { type ClientChannel } from 'ssh2';
import WebSocket, { createWebSocketStream } from 'ws';
import type { Lab } from '../../src/lab/lab.ts';
import { newKeyPair } from '../support/ssh-keys.ts';

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

export const credentialsOf = (lab: Lab): Credentials => ({
  accessKeyId: lab.accessKeyId,
  secretAccessKey: lab.secretAccessKey,
});

export function ec2Client(lab: Lab, credentials = credentialsOf(lab)): EC2Client {
  return new EC2Client({ region: lab.region, endpoint: lab.url, credentials, maxAttempts: 1 });
}

export function eicClient(lab: Lab, credentials = credentialsOf(lab)): EC2InstanceConnectClient {
  return new EC2InstanceConnectClient({ region: lab.region, endpoint: lab.url, credentials, maxAttempts: 1 });
}

export interface TunnelAsk {
  endpointId: string;
  dnsName: string;
  privateIp: string;
  port?: string;
  maxDurationS?: string;
  expiresInS?: number;
  signedAt?: Date;
  credentials?: Credentials;
}

/** Path and query of a presigned openTunnel request. */
export async function presign(lab: Lab, ask: TunnelAsk): Promise<string> {
  const signer = new SignatureV4({
    service: 'ec2-instance-connect',
    region: lab.region,
    credentials: ask.credentials ?? credentialsOf(lab),
    sha256: Sha256,
  });
  const request = new HttpRequest({
    method: 'GET',
    protocol: 'wss:',
    hostname: ask.dnsName,
    path: '/openTunnel',
    headers: { host: ask.dnsName },
    query: {
      instanceConnectEndpointId: ask.endpointId,
      remotePort: ask.port ?? '22',
      privateIpAddress: ask.privateIp,
      maxTunnelDuration: ask.maxDurationS ?? '3600',
    },
  });
  const signed = await signer.presign(request, {
    expiresIn: ask.expiresInS ?? 60,
    signingDate: ask.signedAt ?? new Date(),
  });
  const query = Object.entries(signed.query ?? {}).map(
    ([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(String(value))}`,
  );
  return `/openTunnel?${query.join('&')}`;
}

export interface Refused {
  status: number;
  requestId: string | undefined;
  ErrorCode: string;
  Message: string;
}

/** Resolves with the open socket, or with the refusal. */
export async function openWebSocket(lab: Lab, target: string, host: string): Promise<WebSocket | Refused> {
  const websocket = new WebSocket(lab.tunnelUrl + target, { headers: { host }, perMessageDeflate: false });
  return new Promise((resolve, reject) => {
    websocket.once('open', () => resolve(websocket));
    websocket.once('error', reject);
    websocket.once('unexpected-response', (_request, response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const body = JSON.parse(Buffer.concat(chunks).toString()) as { ErrorCode: string; Message: string };
        resolve({
          status: response.statusCode ?? 0,
          requestId: response.headers['x-amzn-requestid'] as string | undefined,
          ...body,
        });
      });
    });
  });
}

export async function openTunnel(lab: Lab, ask: TunnelAsk): Promise<WebSocket> {
  const websocket = await openWebSocket(lab, await presign(lab, ask), ask.dnsName);
  if (!(websocket instanceof WebSocket)) throw new Error(`refused: ${websocket.ErrorCode}`);
  return websocket;
}

export function newUserKey(kind: 'ed25519' | 'rsa' = 'ed25519'): { publicKey: string; privateKey: string } {
  if (kind === 'ed25519') return newKeyPair();
  const pair = ssh2.utils.generateKeyPairSync('rsa', { bits: 2048 });
  return { publicKey: pair.public, privateKey: pair.private };
}

export async function pushKey(
  lab: Lab,
  push: { instanceId: string; osUser: string; publicKey: string },
): Promise<void> {
  const client = eicClient(lab);
  try {
    await client.send(
      new SendSSHPublicKeyCommand({
        InstanceId: push.instanceId,
        InstanceOSUser: push.osUser,
        SSHPublicKey: push.publicKey,
      }),
    );
  } finally {
    client.destroy();
  }
}

export interface Login {
  sock?: Duplex;
  port?: number;
  username: string;
  privateKey: string;
  /** Gets the wire form of the host key that was shown. */
  onHostKey?: (wire: Buffer) => void;
}

export async function sshConnect(login: Login): Promise<ssh2.Client> {
  const client = new ssh2.Client();
  const ready = once(client, 'ready');
  client.connect({
    sock: login.sock ?? connect({ host: '127.0.0.1', port: login.port ?? 0, noDelay: true }),
    username: login.username,
    privateKey: login.privateKey,
    authHandler: ['publickey'],
    hostVerifier: (wire: Buffer) => {
      login.onHostKey?.(wire);
      return true;
    },
  });
  await ready;
  // What comes later is the connection's end, which tests watch for themselves.
  client.on('error', () => undefined);
  return client;
}

export async function overTunnel(lab: Lab, ask: TunnelAsk, login: Omit<Login, 'sock' | 'port'>): Promise<ssh2.Client> {
  const websocket = await openTunnel(lab, ask);
  return sshConnect({ ...login, sock: createWebSocketStream(websocket) });
}

export interface Ended {
  stdout: Buffer;
  stderr: Buffer;
  code: number | null | undefined;
  signal: string | undefined;
}

export function execChannel(client: ssh2.Client, command: string): Promise<ClientChannel> {
  return new Promise((resolve, reject) => {
    client.exec(command, (error, channel) => (error ? reject(error) : resolve(channel)));
  });
}

/** Runs to the channel's close. */
export async function exec(client: ssh2.Client, command: string, stdin: Buffer | null = null): Promise<Ended> {
  const channel = await execChannel(client, command);
  const collected = collect(channel);
  if (stdin === null) channel.end();
  else channel.end(stdin);
  return collected;
}

export async function collect(channel: ClientChannel): Promise<Ended> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  let end: [code: number | null | undefined, signal: string | undefined] = [undefined, undefined];
  channel.on('data', (chunk: Buffer) => stdout.push(chunk));
  channel.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  channel.on('exit', (code: number | null, signal?: string) => {
    end = [code, signal];
  });
  await once(channel, 'close');
  return { stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr), code: end[0], signal: end[1] };
}

/** Pushes a fresh key for the instance and logs in at its own port. */
export async function loginTo(lab: Lab, index = 0, onHostKey?: (wire: Buffer) => void): Promise<ssh2.Client> {
  const instance = lab.instances[index];
  if (instance === undefined) throw new Error(`bug: no instance ${index}`);
  const key = newUserKey();
  await pushKey(lab, { instanceId: instance.id, osUser: instance.osUser, publicKey: key.publicKey });
  return sshConnect({
    port: instance.sshPort,
    username: instance.osUser,
    privateKey: key.privateKey,
    ...(onHostKey && { onHostKey }),
  });
}
