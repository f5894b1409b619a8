/** The endpoint's websocket as a stream, against a websocket server of our own. */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';
import type { AwsCredentials } from '../../src/drivers/aws.ts';
import { openTunnel, presignTunnelUrl, type Tunnel, type TunnelRequest } from '../../src/drivers/eice-tunnel.ts';
import {
  nameClosedTunnel,
  nameFailedHandshake,
  nameRefusedUpgrade,
  TunnelLostError,
} from '../../src/drivers/tunnel-errors.ts';
import type { SallyportError } from '../../src/errors.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { waitUntil, waitUntilStill, within } from '../support/wait.ts';

failOnLeaks();

interface Vector {
  date: string;
  credentials: AwsCredentials;
  request: TunnelRequest;
  url: string;
}
const vectors = JSON.parse(readFileSync(new URL('../vectors/presign.json', import.meta.url), 'utf8')) as Vector[];
const request: TunnelRequest = {
  region: 'eu-west-1',
  endpointId: 'eice-0123',
  dnsName: 'eice-0123.a1b2c3d4.ec2-instance-connect-endpoint.eu-west-1.amazonaws.com',
  address: '10.0.1.23',
  port: 22,
  maxDurationS: 3600,
};
const credentials = { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'secret', sessionToken: 'a+token/with=signs' };

interface TestEndpoint {
  /** The websocket of the tunnel that was opened last. */
  socket(): Promise<WebSocket>;
  upgrades: IncomingMessage[];
  open(options?: { signal?: AbortSignal; clockOffsetMs?: number }): Promise<Tunnel>;
  openSockets(): Promise<number>;
}

const servers: { server: Server; sockets: WebSocketServer }[] = [];
afterEach(async () => {
  for (const { server, sockets } of servers.splice(0)) {
    for (const client of sockets.clients) client.terminate();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

/** `onUpgrade` answers instead of the websocket; `onOpen` runs in the turn of the upgrade. */
async function startEndpoint(how: {
  onUpgrade?: (request: IncomingMessage, socket: Duplex) => void;
  onRequest?: (request: IncomingMessage, response: ServerResponse) => void;
  onOpen?: (socket: WebSocket) => void;
}): Promise<TestEndpoint> {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: 65_000 });
  const server = createServer(how.onRequest);
  servers.push({ server, sockets });
  const upgrades: IncomingMessage[] = [];
  const opened: WebSocket[] = [];
  server.on('upgrade', (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
    upgrades.push(incoming);
    if (how.onUpgrade !== undefined) return how.onUpgrade(incoming, socket);
    sockets.handleUpgrade(incoming, socket, head, (websocket) => {
      opened.push(websocket);
      how.onOpen?.(websocket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const tunnelUrl = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    upgrades,
    socket: () => waitUntil('a tunnel was opened', () => opened.at(-1)),
    open: ({ signal = AbortSignal.timeout(10_000), clockOffsetMs = 0 } = {}) =>
      openTunnel({ ...request, credentials, clockOffsetMs, lab: { tunnelUrl }, signal }),
    openSockets: () =>
      new Promise((resolve, reject) =>
        server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
      ),
  };
}

/** What ended the stream: its error, or null for an orderly end. */
function endOf(tunnel: Tunnel): Promise<Error | null> {
  return within(
    'the tunnel ends',
    new Promise((resolve) => {
      if (tunnel.closed) resolve(tunnel.errored);
      tunnel.on('close', () => resolve(tunnel.errored));
    }),
  );
}

const refusal = (code: string, message: unknown = expect.any(String)) =>
  expect.objectContaining({ code, message, details: expect.objectContaining({ failedStep: 'tunnel' }) });

/** Refuses every upgrade with this answer. */
const refusing = (status: number, body: string) => (_: IncomingMessage, socket: Duplex) => {
  socket.end(`HTTP/1.1 ${status} x\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`);
};

describe('the presigned URL', () => {
  it.each(vectors)('equals that of the AWS CLI', async ({ date, credentials: signer, request: asked, url }) => {
    expect(await presignTunnelUrl(asked, signer, new Date(date))).toBe(url);
  });

  it('carries the session token, the duration and an IPv6 address, escaped', async () => {
    const url = new URL(await presignTunnelUrl({ ...request, address: '2600:1f10::1' }, credentials, new Date()));
    expect(url.searchParams.get('X-Amz-Security-Token')).toBe(credentials.sessionToken);
    expect(url.searchParams.get('maxTunnelDuration')).toBe('3600');
    expect(url.search).toContain('privateIpAddress=2600%3A1f10%3A%3A1');
    expect(url.search).toContain('X-Amz-SignedHeaders=host');
  });
});

describe('the handshake', () => {
  it('sends what the AWS CLI sends: no extension, no subprotocol, no authorization', async () => {
    const endpoint = await startEndpoint({});
    const tunnel = await endpoint.open();
    const headers = endpoint.upgrades[0]?.headers ?? {};
    expect(Object.keys(headers).sort()).toEqual([
      'connection',
      'host',
      'sec-websocket-key',
      'sec-websocket-version',
      'upgrade',
    ]);
    expect(headers.host).toBe(request.dnsName);
    tunnel.destroy();
  });

  it("signs with AWS's clock, anew for every tunnel", async () => {
    const endpoint = await startEndpoint({});
    const early = await endpoint.open({ clockOffsetMs: -3_600_000 });
    const late = await endpoint.open({ clockOffsetMs: 3_600_000 });
    const [first, second] = endpoint.upgrades.map(({ url }) =>
      new URL(url ?? '', 'ws://x').searchParams
        .get('X-Amz-Date')
        ?.replace(/^(.{4})(..)(..)T(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z'),
    );
    expect(Date.parse(second ?? '') - Date.parse(first ?? '')).toBeGreaterThan(7_190_000);
    early.destroy();
    late.destroy();
  });

  it('has the banner that came with the 101', async () => {
    const endpoint = await startEndpoint({ onOpen: (socket) => socket.send(Buffer.from('SSH-2.0-test\r\n')) });
    const tunnel = await endpoint.open();
    const [banner] = await within(
      'the banner',
      new Promise<Buffer[]>((resolve) => tunnel.once('data', (chunk) => resolve([chunk]))),
    );
    expect(String(banner)).toBe('SSH-2.0-test\r\n');
    tunnel.destroy();
  });

  it.each([
    ['AccessDeniedException', 400, 'aws_denied'],
    ['ServiceQuotaExceededException', 400, 'capacity'],
    ['TooManyConnections', 429, 'capacity'],
    ['ThrottlingException', 400, 'aws_throttled'],
    ['InvalidParameter', 400, 'host_unreachable'],
    ['InvalidSignatureException', 403, 'aws_denied'],
    ['ExpiredTokenException', 400, 'aws_denied'],
    ['InternalError', 500, 'aws_unavailable'],
  ])('reads the body of a refused upgrade: %s', async (code, status, expected) => {
    const endpoint = await startEndpoint({
      onUpgrade: refusing(status, JSON.stringify({ ErrorCode: code, Message: 'no' })),
    });
    await expect(endpoint.open()).rejects.toEqual(refusal(expected, expect.stringContaining(code)));
  });

  it.each([
    [403, 'aws_denied'],
    [429, 'capacity'],
    [503, 'aws_unavailable'],
    [404, 'host_unreachable'],
  ])('falls back to status %d where the body says nothing', async (status, expected) => {
    const endpoint = await startEndpoint({ onUpgrade: refusing(status, '<html>a proxy</html>') });
    await expect(endpoint.open()).rejects.toEqual(refusal(expected));
  });

  it('names action and resource of a denial, and not who asked', async () => {
    const message =
      'User: arn:aws:iam::1:user/me is not authorized to perform: ec2-instance-connect:OpenTunnel on resource: arn:aws:ec2:eu-west-1:1:instance-connect-endpoint/eice-0123 because';
    const error = nameRefusedUpgrade(403, JSON.stringify({ ErrorCode: 'AccessDeniedException', Message: message }));
    expect(error.message).toContain('OpenTunnel on arn:aws:ec2:eu-west-1:1:instance-connect-endpoint/eice-0123');
    expect(error.message).not.toContain('user/me');
  });

  it('reads a bounded part of an endless refusal', async () => {
    const endpoint = await startEndpoint({
      onUpgrade: (_, socket) => {
        socket.on('error', () => {});
        socket.write('HTTP/1.1 400 x\r\nconnection: close\r\n\r\n');
        const chunk = Buffer.alloc(64 * 1024, 'x');
        const pour = () => {
          while (!socket.destroyed && socket.write(chunk));
        };
        socket.on('drain', pour);
        pour();
      },
    });
    await expect(within('the refusal', endpoint.open())).rejects.toEqual(refusal('host_unreachable'));
    await waitUntil('the connection is closed', async () => (await endpoint.openSockets()) === 0);
  });

  it('takes a refused connection, and one that is cut, for a network error', async () => {
    const gone = await startEndpoint({ onUpgrade: (_, socket) => socket.destroy() });
    await expect(gone.open()).rejects.toBeInstanceOf(TunnelLostError);
    const nobody = openTunnel({
      ...request,
      credentials,
      clockOffsetMs: 0,
      lab: { tunnelUrl: 'ws://127.0.0.1:1' },
      signal: AbortSignal.timeout(5_000),
    });
    await expect(nobody).rejects.toMatchObject({
      message: expect.stringContaining('ECONNREFUSED'),
      afterFirstByte: false,
    });
  });

  it('tells a certificate that is not trusted from a network error', () => {
    const error = nameFailedHandshake(Object.assign(new Error('x'), { code: 'SELF_SIGNED_CERT_IN_CHAIN' }));
    expect(error).not.toBeInstanceOf(TunnelLostError);
    expect(error.details.remedy).toContain('NODE_EXTRA_CA_CERTS');
  });

  it('ends with the reason of an abort and leaves no socket', async () => {
    const endpoint = await startEndpoint({
      onUpgrade: (_, socket) =>
        socket
          .on('error', () => {})
          .on('end', () => socket.end())
          .resume(),
    });
    const controller = new AbortController();
    const opening = endpoint.open({ signal: controller.signal });
    await waitUntil('the upgrade arrived', () => endpoint.upgrades.length > 0);
    const reason = new Error('the caller left');
    controller.abort(reason);
    await expect(opening).rejects.toBe(reason);
    await waitUntil('the connection is closed', async () => (await endpoint.openSockets()) === 0);
    await expect(endpoint.open({ signal: controller.signal })).rejects.toBe(reason);
    expect(endpoint.upgrades).toHaveLength(1);
  });

  it('says nothing of the query in any error', async () => {
    const endpoint = await startEndpoint({ onUpgrade: refusing(400, '{}') });
    const error = (await endpoint.open().catch((caught: unknown) => caught)) as SallyportError;
    expect(`${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`).not.toContain('X-Amz-');
  });
});

describe('the stream', () => {
  it('carries every byte both ways, in frames of at most 65,000', async () => {
    const bytes = randomBytes(3 * 1024 * 1024);
    const frames: number[] = [];
    const endpoint = await startEndpoint({
      onOpen: (socket) => {
        // Echoes; the server refuses frames above 65,000 by its maxPayload.
        socket.on('message', (data: Buffer) => {
          frames.push(data.length);
          socket.send(data);
        });
      },
    });
    const tunnel = await endpoint.open();
    const back = createHash('sha256');
    let count = 0;
    tunnel.on('data', (chunk: Buffer) => {
      back.update(chunk);
      count += chunk.length;
    });
    for (let at = 0; at < bytes.length; at += 100_001) tunnel.write(bytes.subarray(at, at + 100_001));
    await waitUntil('all came back', () => count === bytes.length);
    expect(back.digest('hex')).toBe(createHash('sha256').update(bytes).digest('hex'));
    expect(Math.max(...frames)).toBe(65_000);
    expect(tunnel.bytesIn).toBe(bytes.length);
    tunnel.destroy();
  });

  it('joins small writes that wait for each other', async () => {
    let frames = 0;
    let text = '';
    const endpoint = await startEndpoint({
      onOpen: (socket) =>
        socket.on('message', (data: Buffer) => {
          frames += 1;
          text += String(data);
        }),
    });
    const tunnel = await endpoint.open();
    for (let index = 0; index < 1000; index += 1) tunnel.write('x');
    await waitUntil('all arrived', () => text.length === 1000);
    expect(frames).toBeLessThan(10);
    tunnel.destroy();
  });

  it('passes over frames without bytes', async () => {
    const endpoint = await startEndpoint({});
    const tunnel = await endpoint.open();
    const socket = await endpoint.socket();
    const seen: Buffer[] = [];
    tunnel.on('data', (chunk: Buffer) => seen.push(chunk));
    for (let index = 0; index < 5_000; index += 1) socket.send(Buffer.alloc(0));
    socket.send(Buffer.from('end'));
    await waitUntil('the last frame came', () => seen.length > 0);
    expect(Buffer.concat(seen).toString()).toBe('end');
    tunnel.destroy();
  });

  it('breaks at a text frame', async () => {
    const endpoint = await startEndpoint({ onOpen: (socket) => socket.send('text') });
    const error = await endOf(await endpoint.open());
    expect(error).toEqual(refusal('host_unreachable', expect.stringContaining('text frame')));
  });

  it('says that the target does not answer, and what to look at', async () => {
    // In the same packet as the 101: the error comes before anybody can listen.
    const endpoint = await startEndpoint({ onOpen: (socket) => socket.close(1011, 'Unable to connect to target') });
    const tunnel = await endpoint.open();
    await waitUntil('the tunnel is closed', () => tunnel.destroyed);
    expect(tunnel.failure).toEqual(refusal('host_unreachable', expect.stringContaining('port 22')));
    expect(tunnel.failure?.details.remedy).toMatch(/security group.*sshd.*booting/);
    expect(tunnel.failure).not.toBeInstanceOf(TunnelLostError);
  });

  it.each([
    [4001, 'Concurrent connection quota exceeded', 'capacity'],
    [1001, 'Maximum tunnel duration reached', 'host_unreachable'],
    [1011, '', 'host_unreachable'],
  ])('carries the reason of close code %d', async (code, reason, expected) => {
    const endpoint = await startEndpoint({});
    const tunnel = await endpoint.open();
    (await endpoint.socket()).close(code, reason);
    expect(await endOf(tunnel)).toEqual(refusal(expected, expect.stringContaining(reason)));
  });

  it('takes a cut for a network error, and knows whether the target had spoken', async () => {
    const endpoint = await startEndpoint({});
    const silent = await endpoint.open();
    (await endpoint.socket()).terminate();
    expect(await endOf(silent)).toMatchObject({ code: 'host_unreachable', afterFirstByte: false });

    const spoken = await endpoint.open();
    const socket = await endpoint.socket();
    socket.send(Buffer.from('SSH-2.0-x\r\n'));
    spoken.resume();
    await waitUntil('the banner came', () => spoken.bytesIn > 0);
    socket.terminate();
    expect(await endOf(spoken)).toMatchObject({ code: 'host_unreachable', afterFirstByte: true });
    expect(nameClosedTunnel(1006, '', true)).toBeInstanceOf(TunnelLostError);
  });

  it.each([
    ['1000', (socket: WebSocket) => socket.close(1000)],
    ['no code', (socket: WebSocket) => socket.close()],
  ])('ends in order when the endpoint closes with %s, after the last byte', async (_, close) => {
    const endpoint = await startEndpoint({});
    const tunnel = await endpoint.open();
    const socket = await endpoint.socket();
    let text = '';
    tunnel.on('data', (chunk) => {
      text += String(chunk);
    });
    socket.send(Buffer.from('last words'));
    close(socket);
    expect(await endOf(tunnel)).toBeNull();
    expect(text).toBe('last words');
    expect(tunnel.failure).toBeNull();
  });

  it('closes the websocket with 1000 when it is ended, after the last byte', async () => {
    const endpoint = await startEndpoint({});
    const tunnel = await endpoint.open();
    const socket = await endpoint.socket();
    const got: string[] = [];
    socket.on('message', (data) => got.push(String(data)));
    const closed = new Promise((resolve) => socket.on('close', resolve));
    tunnel.end('bye');
    expect(await within('the close', closed)).toBe(1000);
    expect(got).toEqual(['bye']);
    tunnel.resume();
    expect(await endOf(tunnel)).toBeNull();
  });

  it('is gone at once when it is destroyed, even when the endpoint is deaf', async () => {
    const endpoint = await startEndpoint({ onOpen: (socket) => socket.pause() });
    const tunnel = await endpoint.open();
    tunnel.destroy();
    expect(await endOf(tunnel)).toBeNull();
    const socket = await endpoint.socket();
    socket.resume();
    await waitUntil('the connection is closed', async () => (await endpoint.openSockets()) === 0);
  });

  it('tells the reason of a close also to a writer that was faster', async () => {
    const endpoint = await startEndpoint({});
    const tunnel = await endpoint.open();
    const socket = await endpoint.socket();
    socket.close(1011, 'Unable to connect to target');
    const writing = setInterval(() => tunnel.write('SSH-2.0-early\r\n'), 0);
    expect(await endOf(tunnel)).toEqual(refusal('host_unreachable', expect.stringContaining('port 22')));
    clearInterval(writing);
  });

  it('fails writes after the cut with the named error', async () => {
    const endpoint = await startEndpoint({});
    const tunnel = await endpoint.open();
    (await endpoint.socket()).terminate();
    tunnel.write(Buffer.alloc(1024 * 1024));
    expect(await endOf(tunnel)).toMatchObject({ code: 'host_unreachable' });
  });

  it('may be asked for what a socket is asked for', async () => {
    const endpoint = await startEndpoint({});
    const tunnel = await endpoint.open();
    expect(tunnel.setNoDelay().setKeepAlive().setTimeout()).toBe(tunnel);
    tunnel.destroy();
  });
});

describe('back-pressure', () => {
  const total = 50 * 1024 * 1024;
  const chunk = Buffer.alloc(65_000, 7);
  const heldMax = 16 * 1024 * 1024;

  it('stops the endpoint while nobody reads: 50 MB cost bounded memory', async () => {
    let sent = 0;
    const endpoint = await startEndpoint({
      onOpen: (socket) => {
        const pour = () => {
          if (sent >= total) return;
          sent += chunk.length;
          socket.send(chunk, pour);
        };
        pour();
      },
    });
    const tunnel = await endpoint.open();
    const stalledAt = await waitUntilStill('the endpoint', () => sent);
    // Kernel buffers of both ends, ours, and those of the stream.
    expect(stalledAt).toBeLessThan(heldMax);
    expect(tunnel.readableLength).toBeLessThan(1024 * 1024);
    let read = 0;
    tunnel.on('data', (bytes: Buffer) => {
      read += bytes.length;
    });
    await waitUntil('all was read', () => read >= total, 10_000);
    expect(read).toBe(sent);
    tunnel.destroy();
  });

  it('stops the writer while the endpoint does not read', async () => {
    const endpoint = await startEndpoint({ onOpen: (socket) => socket.pause() });
    const tunnel = await endpoint.open();
    let written = 0;
    const pour = () => {
      while (written < total) {
        written += chunk.length;
        if (!tunnel.write(chunk)) return;
      }
    };
    tunnel.on('drain', pour);
    pour();
    expect(await waitUntilStill('the writer', () => written)).toBeLessThan(heldMax);
    expect(tunnel.writableLength).toBeLessThan(1024 * 1024);
    let got = 0;
    const socket = await endpoint.socket();
    socket.on('message', (data: Buffer) => {
      got += data.length;
    });
    socket.resume();
    await waitUntil('all arrived', () => got >= total, 10_000);
    expect(got).toBe(written);
    tunnel.destroy();
  });
});
