/**
 * The peer `local bash server`: a small Express application that runs `bash -c` on its own machine. No token, no audit,
 * no other host; what many people have in place of a gateway.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { answerAsks } from './worker.ts';

const app = express();
app.use(express.json());
app.post('/exec', (req, res) => {
  const { command } = req.body as { command: string };
  const child = spawn('bash', ['-c', command], { stdio: ['ignore', 'pipe', 'pipe'] });
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  child.on('close', (code) => {
    res.json({
      exit_code: code,
      stdout: Buffer.concat(stdout).toString(),
      stderr: Buffer.concat(stderr).toString(),
    });
  });
});

const ops = {
  async listen(_: object): Promise<{ url: string }> {
    const server = app.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  },
};

export type BashServerOps = typeof ops;
answerAsks(ops);
