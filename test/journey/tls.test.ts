/** A gateway that speaks TLS: exec over https, the command line that trusts its certificate, and nothing in the clear. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { selfSigned } from '../client/self-signed.ts';
import { outputOf, send, sendingOf, terminalOf } from '../support/gateway.ts';
import { runProgram } from '../support/program.ts';
import { type Serving, startServing } from '../support/serving.ts';

const { cert, key } = selfSigned();
let folder: string;
let certFile: string;
let serving: Serving;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tls-'));
  certFile = join(folder, 'cert.pem');
  const keyFile = join(folder, 'key.pem');
  await writeFile(certFile, cert);
  await writeFile(keyFile, key, { mode: 0o600 });
  const env = { SALLYPORT_TLS_CERT: certFile, SALLYPORT_TLS_KEY: keyFile };
  serving = await startServing({ env, ca: cert });
});
afterAll(async () => {
  await serving.stop();
  await rm(folder, { recursive: true });
});

it('says https', () => {
  expect(serving.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
});

it('an exec streams over it', async () => {
  const { status, frames } = await serving.exec({ cmd: ['sh', '-c', 'cat; echo err >&2; exit 3'], stdin: 'ü' });
  expect(status).toBe(200);
  expect(outputOf(frames, 'stdout').toString()).toBe('ü');
  expect(outputOf(frames, 'stderr').toString()).toBe('err\n');
  expect(terminalOf(frames)).toMatchObject({ exit_code: 3, complete: true });
});

it('who does not trust the certificate sends nothing', async () => {
  const asked = send(`${serving.url}/workspaces`, sendingOf(serving.token, {}));
  await expect(asked).rejects.toThrow(/self-signed certificate/);
});

it('plain http to its port gets no answer that anybody could take for one', async () => {
  const { port } = new URL(serving.url);
  const came = await new Promise<string>((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('latin1')));
    socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
  });
  expect(came).not.toContain('HTTP/1.1 200');
});

it.each(['TLSv1', 'TLSv1.1'] as const)('does not speak %s', async (version) => {
  const { port } = new URL(serving.url);
  const refused = await new Promise<boolean>((resolve) => {
    const options = {
      port: Number(port),
      host: '127.0.0.1',
      ca: cert,
      minVersion: version,
      maxVersion: version,
    } as const;
    const socket = tlsConnect({ ...options, ciphers: 'DEFAULT@SECLEVEL=0' }, () => {
      socket.destroy();
      resolve(false);
    });
    socket.on('error', () => resolve(true));
  });
  expect(refused).toBe(true);
});

it('the command line trusts it when told to, and only then', async () => {
  const env = { SALLYPORT_URL: serving.url, SALLYPORT_TOKEN: serving.token };
  const args = ['exec', 'ws-1', '--', 'sh', '-c', 'echo secure; exit 6'];
  const trusting = await runProgram(args, { env: { ...env, NODE_EXTRA_CA_CERTS: certFile } });
  expect({ ...trusting, stdout: trusting.stdout.toString() }).toEqual({ code: 6, stdout: 'secure\n', stderr: '' });
  const wary = await runProgram(args, { env });
  expect(wary).toMatchObject({ code: 125, stderr: expect.stringContaining('self-signed certificate') });
  expect(wary.stdout).toHaveLength(0);
});

it('the command line sends no token in the clear beyond loopback', async () => {
  // TEST-NET-1: nobody is there, and nobody is asked.
  const env = { SALLYPORT_URL: 'http://192.0.2.1', SALLYPORT_TOKEN: serving.token };
  const ended = await runProgram(['workspace', 'list'], { env });
  expect(ended).toMatchObject({ code: 1, stderr: expect.stringMatching(/not sent over plain http/) });
});
