import type { ServerResponse } from 'node:http';
import { afterAll, beforeAll, describe, it } from 'vitest';
import {
  type Asked,
  beginFrames,
  EXEC_ID,
  errorFrame,
  outputFrame,
  sendJson,
  startWireServer,
  type WireServer,
} from '../client/wire-server.ts';
import { waitUntilStill } from '../support/wait.ts';
import { cliHere, startCli, startShell } from './process.ts';

const CANCELLED = errorFrame({ error: 'cancelled', code: 'exec_cancelled', outcome: 'cancelled' });
const line = (frame: object) => `${JSON.stringify(frame)}\n`;

let server: WireServer;
/** Execs that are answered and not ended, by workspace id. */
const open = new Map<string, ServerResponse>();
const hungUp = new Set<string>();

beforeAll(async () => {
  server = await startWireServer((response, asked) => {
    const id = asked.path.split('/')[2] ?? '';
    if (asked.method === 'DELETE') return cancel(id, response);
    response.on('close', () => hungUp.add(id));
    if (id.startsWith('silent')) return;
    beginFrames(response);
    open.set(id, response);
    if (id.startsWith('endless')) pour(response);
    else response.write(line(outputFrame('stdout', 'started\n')));
  });
});

afterAll(() => server.close());

function cancel(id: string, response: ServerResponse): void {
  if (id.startsWith('deaf')) return;
  if (id.startsWith('forbidden')) {
    sendJson(response, { code: 'scope_missing', detail: 'no right' }, 403);
    return;
  }
  sendJson(response, { exec_id: EXEC_ID });
  open.get(id)?.end(line(outputFrame('stdout', 'last words\n')) + line(CANCELLED));
}

function pour(response: ServerResponse): void {
  const frame = line(outputFrame('stdout', `${'y\n'.repeat(8 * 1024)}`));
  const more = () => {
    while (!response.writableEnded && !response.destroyed && response.write(frame));
  };
  response.on('drain', more);
  more();
}

const cancelling = (id: string) => (asked: Asked) =>
  asked.method === 'DELETE' && asked.path === `/workspaces/${id}/execs/${EXEC_ID}`;

describe.concurrent('leaving an exec', () => {
  it.for([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s cancels it by name, prints what still comes, and ends with %i', async ([name, code], { expect }) => {
    const { child, firstOutput, ended } = startCli(['exec', `run-${name}`, '--', 'x'], { url: server.url });
    await firstOutput;
    child.kill(name);
    await server.seen(cancelling(`run-${name}`));
    const { stdout, ...rest } = await ended;
    expect({ stdout: stdout.toString(), ...rest }).toEqual({ code, stdout: 'started\nlast words\n', stderr: '' });
  });

  it('before the exec has a name, Ctrl-C hangs up', async ({ expect }) => {
    const { child, ended } = startCli(['exec', 'silent', '--', 'x'], { url: server.url });
    await server.seen(({ path }) => path === '/workspaces/silent/exec');
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: 130, stderr: '' });
    await expect.poll(() => hungUp.has('silent')).toBe(true);
  });

  it('a second Ctrl-C leaves at once', async ({ expect }) => {
    const { child, firstOutput, ended } = startCli(['exec', 'deaf-twice', '--', 'x'], { url: server.url });
    await firstOutput;
    child.kill('SIGINT');
    await server.seen(cancelling('deaf-twice'));
    const before = performance.now();
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: 130 });
    expect(performance.now() - before).toBeLessThan(1_000);
    await expect.poll(() => hungUp.has('deaf-twice')).toBe(true);
  });

  it('a gateway that does not answer the cancelling is not waited for long, and that is said', async ({ expect }) => {
    const { child, firstOutput, ended, stderrMatches } = startCli(['exec', 'deaf', '--', 'x'], { url: server.url });
    await firstOutput;
    child.kill('SIGINT');
    await stderrMatches(/once more leaves at once/);
    expect(await ended).toMatchObject({ code: 130, stderr: expect.stringMatching(/did not confirm the end/) });
  });

  it('a cancelling that is refused ends in hanging up', async ({ expect }) => {
    const { child, firstOutput, ended } = startCli(['exec', 'forbidden', '--', 'x'], { url: server.url });
    await firstOutput;
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: 130, stderr: expect.stringMatching(/did not confirm.*no right/) });
    await expect.poll(() => hungUp.has('forbidden')).toBe(true);
  });

  it('Ctrl-C works while nobody reads our output', async ({ expect }) => {
    const { child, firstOutput, ended } = startCli(['exec', 'endless-stalled', '--', 'yes'], {
      url: server.url,
      unread: true,
    });
    await firstOutput;
    // Full, and not only for a moment: the pipe, ours and the server's buffers.
    const response = open.get('endless-stalled');
    await waitUntilStill('what the server sends', () => response?.socket?.bytesWritten);
    expect(response?.writableNeedDrain).toBe(true);
    child.kill('SIGINT');
    await server.seen(cancelling('endless-stalled'));
    expect(await ended).toMatchObject({ code: 130 });
    child.stdout?.destroy();
  });

  it('a reader that closes our output ends it quietly with 141, and the program is cancelled', async ({ expect }) => {
    const script = `{ $0 exec endless-head -- yes; echo "code $?" >&2; } | head -c 1`;
    const { stdout, stderr } = await startShell(script, { url: server.url }).ended;
    expect(stdout.toString()).toBe('y');
    expect(stderr).toBe('code 141\n');
    await server.seen(cancelling('endless-head'));
  });

  it('leaving closes the connection also in a process that lives on', async ({ expect }) => {
    let interrupt = () => {};
    const ended = cliHere(['exec', 'silent-here', '--', 'x'], {
      url: server.url,
      onSignal: (handler) => {
        interrupt = () => handler('SIGINT');
        return () => {};
      },
    });
    await server.seen(({ path }) => path === '/workspaces/silent-here/exec');
    interrupt();
    expect(await ended).toMatchObject({ code: 130 });
    await expect.poll(() => hungUp.has('silent-here')).toBe(true);
  });

  it('a full disk ends it with 255, and the program is cancelled', async ({ expect }) => {
    const { ended } = startShell(`$0 exec run-full -- x > /dev/full`, { url: server.url });
    expect(await ended).toMatchObject({
      code: 255,
      stderr: expect.stringMatching(/output cannot be written: .*ENOSPC/),
    });
    await server.seen(cancelling('run-full'));
  });
});
