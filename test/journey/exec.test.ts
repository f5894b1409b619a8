import { createHash } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { outputOf, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());

const sha256 = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');

describe('exec', () => {
  it('streams what the program writes and ends with one terminal frame', async () => {
    const { status, headers, frames } = await gateway.exec({ cmd: ['sh', '-c', 'echo out; echo err >&2; exit 3'] });
    expect(status).toBe(200);
    expect(headers['content-type']).toBe('application/x-ndjson');
    expect(outputOf(frames, 'stdout').toString()).toBe('out\n');
    expect(outputOf(frames, 'stderr').toString()).toBe('err\n');
    expect(terminalOf(frames)).toEqual({
      exit_code: 3,
      outcome: 'exited',
      signal: null,
      duration_ms: expect.any(Number),
      exec_id: headers['x-exec-id'],
      stdout_bytes: 4,
      stderr_bytes: 4,
      stdout_sha256: sha256('out\n'),
      stderr_sha256: sha256('err\n'),
      complete: true,
    });
    expect(frames.filter((frame) => 'exit_code' in frame || 'error' in frame)).toHaveLength(1);
  });

  it('the first byte leaves at once', async () => {
    const from = performance.now();
    const first = await new Promise<number>((resolve, reject) => {
      const request = httpRequest(`${gateway.url}/workspaces/ws-demo/exec`, {
        method: 'POST',
        headers: { authorization: `Bearer ${gateway.tokens.org}`, 'content-type': 'application/json' },
      });
      request.on('error', reject);
      request.on('response', (response) => {
        response.once('data', () => {
          resolve(performance.now() - from);
          response.destroy();
        });
      });
      request.end(JSON.stringify({ cmd: ['sh', '-c', 'echo now; sleep 20'] }));
    });
    expect(first).toBeLessThan(5000);
  });

  it('argv reaches the program as it is', async () => {
    const words = ['a b', '$HOME', '`id`', "it's", '"', '\\', '*', '', '-n', 'x\ny', 'ü€😀'];
    const { frames } = await gateway.exec({ cmd: ['printf', '[%s]', ...words] });
    expect(outputOf(frames, 'stdout').toString()).toBe(words.map((word) => `[${word}]`).join(''));
  });

  it('all 256 byte values go both ways', async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, value) => value));
    const { frames } = await gateway.exec({ cmd: ['cat'], stdin: { base64: bytes.toString('base64') } });
    expect(outputOf(frames, 'stdout').equals(bytes)).toBe(true);
    expect(terminalOf(frames)).toMatchObject({ stdout_bytes: 256, stdout_sha256: sha256(bytes), complete: true });
  });

  it('one mebibyte of standard input arrives whole', async () => {
    const stdin = 'x'.repeat(1024 * 1024);
    const { frames } = await gateway.exec({ cmd: ['sha256sum'], stdin });
    expect(outputOf(frames, 'stdout').toString().slice(0, 64)).toBe(sha256(stdin));
  });

  it('without stdin the program reads end-of-file at once', async () => {
    expect(terminalOf((await gateway.exec({ cmd: ['cat'], timeout_s: 5 })).frames)).toMatchObject({ exit_code: 0 });
  });

  it('env and cwd reach the program, and nothing of the gateway does', async () => {
    process.env.SALLYPORT_CANARY = 'canary-of-the-gateway';
    const { frames } = await gateway.exec({
      cmd: ['sh', '-c', 'pwd; env'],
      env: { GREETING: 'hello\nworld' },
      cwd: '/tmp',
    });
    const text = outputOf(frames, 'stdout').toString();
    expect(text).toMatch(/^\/tmp\n/);
    expect(text).toContain('GREETING=hello\nworld\n');
    expect(text).toContain(`EXEC_ID=${terminalOf(frames).exec_id}\n`);
    expect(text).not.toContain('canary-of-the-gateway');
    expect(text).not.toContain('AWS_');
    expect(text).not.toMatch(/^sallyport=/m);
  });

  it('env values stand in no command line on the host', async () => {
    const { frames } = await gateway.exec({
      cmd: [
        'sh',
        '-c',
        'case $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" " ") in *"$NEEDLE"*) echo found;; *) echo clean;; esac',
      ],
      env: { NEEDLE: 'needle-in-an-environment' },
    });
    expect(outputOf(frames, 'stdout').toString()).toBe('clean\n');
  });

  it('characters split across writes come out whole', async () => {
    const { frames } = await gateway.exec({
      cmd: ['sh', '-c', 'printf "\\303"; sleep 0.2; printf "\\274\\342\\202"; sleep 0.2; printf "\\254"'],
    });
    expect(frames.filter((frame) => 'stream' in frame).every((frame) => frame.encoding === undefined)).toBe(true);
    expect(outputOf(frames, 'stdout').toString()).toBe('ü€');
  });

  it('past the cap a marker stands alone, and the rest is counted', async () => {
    const { frames } = await gateway.exec({ cmd: ['head', '-c', '200000', '/dev/zero'], max_output_bytes: 70_001 });
    expect(outputOf(frames, 'stdout')).toHaveLength(70_001);
    expect(frames.filter((frame) => frame.truncated === true)).toEqual([
      { stream: 'stdout', data: '\n[output truncated at 70001 bytes]', truncated: true },
    ]);
    expect(terminalOf(frames)).toMatchObject({
      stdout_bytes: 200_000,
      stdout_sha256: sha256(Buffer.alloc(200_000)),
      complete: false,
    });
  });

  it('exactly as much as the cap is not truncated', async () => {
    const { frames } = await gateway.exec({ cmd: ['printf', 'abcd'], max_output_bytes: 4 });
    expect(terminalOf(frames)).toMatchObject({ stdout_bytes: 4, complete: true });
    expect(frames.some((frame) => frame.truncated === true)).toBe(false);
  });

  it('encoding base64 sends every chunk as base64', async () => {
    const { frames } = await gateway.exec({ cmd: ['echo', 'hi'], encoding: 'base64' });
    expect(frames[0]).toEqual({ stream: 'stdout', data: 'aGkK', encoding: 'base64', truncated: false });
  });

  it('a large output is exact', async () => {
    const { frames } = await gateway.exec({
      cmd: ['sh', '-c', 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); echo $i; done'],
      max_output_bytes: 4 * 1024 * 1024,
    });
    const output = outputOf(frames, 'stdout');
    expect(output.toString().trimEnd().split('\n')).toHaveLength(200_000);
    expect(terminalOf(frames)).toMatchObject({
      stdout_bytes: output.length,
      stdout_sha256: sha256(output),
      complete: true,
    });
  });

  it.each([
    [['no-such-program'], 127],
    [['/etc'], 126],
  ])('%s ends as in a shell with %i', async (cmd, exitCode) => {
    const { status, frames } = await gateway.exec({ cmd });
    expect(status).toBe(200);
    expect(terminalOf(frames)).toMatchObject({ exit_code: exitCode, outcome: 'exited' });
  });

  it('a signal has its name and 128 + n', async () => {
    const { frames } = await gateway.exec({ cmd: ['sh', '-c', 'kill -TERM $$'] });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 143, signal: 'TERM', outcome: 'signaled' });
  });

  it('exit codes that look like ours are the program’s own', async () => {
    for (const code of [124, 125, 137, 255]) {
      const { frames } = await gateway.exec({ cmd: ['sh', '-c', `exit ${code}`] });
      expect(terminalOf(frames)).toMatchObject({ exit_code: code, outcome: 'exited' });
    }
  });

  it('a program that cannot start is refused, not run', async () => {
    const { status, body } = await gateway.exec({ cmd: ['echo', 'ran'], cwd: '/no/such/dir' });
    expect({ status, code: body.code }).toEqual({ status: 422, code: 'start_failed' });
    expect(body.detail).toContain('cwd');
  });

  it('one JSON document on request', async () => {
    const { status, headers, body } = await gateway.exec(
      { cmd: ['sh', '-c', 'printf ü; printf "\\377" >&2; exit 1'] },
      { headers: { accept: 'application/json' } },
    );
    expect(status).toBe(200);
    expect(body).toEqual({
      exec_id: headers['x-exec-id'],
      exit_code: 1,
      signal: null,
      outcome: 'exited',
      success: false,
      stdout: 'ü',
      stderr: '/w==',
      stdout_encoding: 'utf8',
      stderr_encoding: 'base64',
      stdout_truncated: false,
      stderr_truncated: false,
      duration_ms: expect.any(Number),
      complete: true,
    });
  });

  it('one JSON document keeps its own status and the partial output', async () => {
    const { status, body } = await gateway.exec(
      { cmd: ['sh', '-c', 'echo partial; sleep 30'], timeout_s: 0.5 },
      { headers: { accept: 'application/json' } },
    );
    expect(status).toBe(504);
    expect(body).toMatchObject({
      code: 'exec_timeout',
      stdout: 'partial\n',
      outcome: 'timed_out',
      timeout_s: 0.5,
      survivors: [],
    });
  });

  it('many execs share one connection', async () => {
    const workspace = 'ws-fleet-08';
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => gateway.exec({ cmd: ['sleep', '0.3'] }, { workspace })),
    );
    expect(answers.filter(({ status }) => status !== 200).map(({ body }) => body)).toEqual([]);
    expect(answers.every(({ frames }) => terminalOf(frames).exit_code === 0)).toBe(true);
    const counters = Object.values((await gateway.counters()).instances).filter(({ channels }) => channels === 8);
    expect(counters).toMatchObject([{ logins: 1, pushes: 1 }]);
  });

  it('a ninth exec gets a second connection with a push of its own', async () => {
    const workspace = 'ws-fleet-07';
    const answers = await Promise.all(
      Array.from({ length: 12 }, () => gateway.exec({ cmd: ['sleep', '0.3'] }, { workspace })),
    );
    expect(answers.filter(({ status }) => status !== 200).map(({ body }) => body)).toEqual([]);
    expect(answers.every(({ frames }) => terminalOf(frames).exit_code === 0)).toBe(true);
    const counters = Object.values((await gateway.counters()).instances).filter(({ channels }) => channels === 12);
    expect(counters).toMatchObject([{ logins: 2 }]);
  });
});
