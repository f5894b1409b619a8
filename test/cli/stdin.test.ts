import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { exitFrame, sendFrames, startWireServer, type WireServer } from '../client/wire-server.ts';
import { cli, startCli, startShell } from './process.ts';

const SILENT = 'while read';
let server: WireServer;
let dir: string;
let fifo: number;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sallyport-stdin-'));
  server = await startWireServer((response) => sendFrames(response, [exitFrame()]));
  execFileSync('mkfifo', [join(dir, 'fifo')]);
  // Open for reading and writing: nothing in it, and no end.
  fifo = openSync(join(dir, 'fifo'), 'r+');
});

afterAll(async () => {
  closeSync(fifo);
  await server.close();
  await rm(dir, { recursive: true });
});

/** The `stdin` field of the request for a workspace; undefined: none was sent. */
function sentTo(id: string): unknown {
  const asked = server.asked.find(({ path }) => path === `/workspaces/${id}/exec`);
  if (asked === undefined) throw new Error(`nothing was asked of ${id}`);
  return JSON.parse(asked.body).stdin;
}

const wasAsked = (id: string) => server.asked.some(({ path }) => path === `/workspaces/${id}/exec`);

describe.concurrent('standard input', () => {
  it('a pipe is sent to its end', async ({ expect }) => {
    await startShell(`{ printf one; sleep 0.2; printf two; } | $0 exec pipe -- cat`, { url: server.url }).ended;
    expect(sentTo('pipe')).toBe('onetwo');
  });

  it('a file is sent, bytes exact', async ({ expect }) => {
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    await writeFile(join(dir, 'bytes'), all);
    await startShell(`$0 exec file -- cat < ${join(dir, 'bytes')}`, { url: server.url }).ended;
    expect(sentTo('file')).toEqual({ base64: all.toString('base64') });
  });

  it('/dev/null, an empty pipe and a closed descriptor send nothing', async ({ expect }) => {
    const script = `$0 exec null -- cat < /dev/null; : | $0 exec empty -- cat; $0 exec closed -- cat <&-`;
    expect(await startShell(script, { url: server.url }).ended).toMatchObject({ code: 0, stderr: '' });
    expect(['null', 'empty', 'closed'].map(sentTo)).toEqual([undefined, undefined, undefined]);
  });

  it('a socket is sent to its end', async ({ expect }) => {
    const { child, ended } = startCli(['exec', 'socket', '--', 'cat'], { url: server.url, stdin: 'pipe' });
    child.stdin?.write('from ');
    child.stdin?.end('a socket');
    await ended;
    expect(sentTo('socket')).toBe('from a socket');
  });

  it('an open, silent socket holds nobody up, and that is said', async ({ expect }) => {
    const { ended } = startCli(['exec', 'silent', '--', 'cat'], { url: server.url, stdin: 'pipe' });
    expect(await ended).toMatchObject({ code: 0, stderr: expect.stringMatching(/silent socket: running without it/) });
    expect(sentTo('silent')).toBeUndefined();
  });

  it('--stdin waits for a silent socket', async ({ expect }) => {
    const { child, ended } = startCli(['exec', '--stdin', 'waits', '--', 'cat'], { url: server.url, stdin: 'pipe' });
    setTimeout(() => child.stdin?.end('late'), 1_500);
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
    expect(sentTo('waits')).toBe('late');
  });

  it('a silent pipe is waited for, which is said, and Ctrl-C ends the wait with nothing sent', async ({ expect }) => {
    const { child, ended, stderrMatches } = startCli(['exec', 'fifo', '--', 'cat'], { url: server.url, stdin: fifo });
    await stderrMatches(/waiting for standard input, a pipe \(--no-stdin/);
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: 130 });
    expect(wasAsked('fifo')).toBe(false);
  });

  it('--no-stdin leaves it alone: a loop keeps its lines', async ({ expect }) => {
    const script = `printf 'a\\nb\\n' | while read -r id; do $0 exec --no-stdin "${SILENT}-$id" -- true; done`;
    expect(await startShell(script, { url: server.url }).ended).toMatchObject({ code: 0, stderr: '' });
    const path = encodeURIComponent(SILENT);
    expect([`${path}-a`, `${path}-b`].map(sentTo)).toEqual([undefined, undefined]);
  });

  it('more than 1 MiB is refused before anything is sent, 1 MiB is not', async ({ expect }) => {
    const script = (bytes: number, id: string) => `head -c ${bytes} /dev/zero | $0 exec ${id} -- cat`;
    const most = await startShell(script(1024 * 1024, 'most'), { url: server.url }).ended;
    const more = await startShell(script(1024 * 1024 + 1, 'more'), { url: server.url }).ended;
    expect(most).toMatchObject({ code: 0 });
    expect(sentTo('most')).toHaveLength(1024 * 1024);
    expect(more).toMatchObject({
      code: 125,
      stderr: expect.stringMatching(/larger than 1048576 bytes.*\n.*nothing was run/),
    });
    expect(wasAsked('more')).toBe(false);
  });

  it('an endless pipe is refused at once', async ({ expect }) => {
    const { ended } = startShell(`yes | { $0 exec endless -- cat; echo "code $?"; }`, { url: server.url });
    expect((await ended).stdout.toString()).toBe('code 125\n');
  });
});

it('a request without a program reads no input', async ({ expect }) => {
  expect(await cli(['exec', 'ws', '--'], { url: server.url, stdin: fifo })).toMatchObject({ code: 125 });
});
