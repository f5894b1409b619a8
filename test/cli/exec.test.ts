import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { selfSigned } from '../client/self-signed.ts';
import {
  type Answer,
  EXEC_ID,
  errorFrame,
  exitFrame,
  outputFrame,
  sendFrames,
  sendJson,
  sendProblem,
  startWireServer,
  type WireServer,
} from '../client/wire-server.ts';
import { cli, cliHere, startShell } from './process.ts';

/** What the gateway answers, by workspace id. */
const answers = new Map<string, Answer>();
let server: WireServer;
let dir: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sallyport-cli-'));
  server = await startWireServer((response, asked) => {
    const id = decodeURIComponent(asked.path.split('/')[2] ?? '');
    const answer = answers.get(id) ?? ((other) => sendFrames(other, [exitFrame()]));
    answer(response, asked);
  });
});

afterAll(async () => {
  await server.close();
  await rm(dir, { recursive: true });
});

function askedOf(id: string): Record<string, unknown> {
  return JSON.parse(server.asked.find(({ path }) => path === `/workspaces/${id}/exec`)?.body ?? 'null');
}

describe.concurrent('exit code', () => {
  const frames =
    (...sent: object[]): Answer =>
    (response) =>
      sendFrames(response, sent);
  const problem =
    (status: number, members: object): Answer =>
    (response) =>
      sendProblem(response, status, members);

  it.for<[string, number, RegExp, Answer]>([
    ['the program succeeded', 0, /^$/, frames(exitFrame())],
    ['the program failed', 3, /^$/, frames(exitFrame({ exit_code: 3 }))],
    ['the program was not found', 127, /^$/, frames(exitFrame({ exit_code: 127 }))],
    ['a signal killed it', 143, /^$/, frames(exitFrame({ exit_code: 143, outcome: 'signaled', signal: 'TERM' }))],
    [
      'its deadline ended it',
      124,
      /^sallyport: the program was ended at its deadline \(exec_timeout, exec 0199.*\)\n$/,
      frames(errorFrame()),
    ],
    [
      'somebody cancelled it',
      130,
      /exec_cancelled/,
      frames(errorFrame({ error: 'cancelled', code: 'exec_cancelled', outcome: 'cancelled' })),
    ],
    ['the right was withdrawn', 125, /exec_revoked/, frames(errorFrame({ code: 'exec_revoked', outcome: 'revoked' }))],
    ['the gateway drained', 125, /draining/, frames(errorFrame({ code: 'draining', outcome: 'drained' }))],
    [
      'the link to the host was lost',
      255,
      /connection_lost/,
      frames(errorFrame({ code: 'connection_lost', outcome: 'connection_lost' })),
    ],
  ])('of the process, when %s', async ([what, code, stderr, answer], { expect }) => {
    answers.set(what, answer);
    const ended = await cli(['exec', what, '--', 'true'], { url: server.url });
    expect(ended).toMatchObject({ code, stderr: expect.stringMatching(stderr) });
    expect(ended.stdout).toHaveLength(0);
  });

  it.for<[string, number, RegExp, Answer]>([
    ['an outcome is news to us', 255, /eaten/, frames(errorFrame({ code: 'eaten', outcome: 'eaten' }))],
    [
      'a gate refused',
      125,
      /^sallyport: tier 1 may not \(exec_tier_forbidden\)\n$/,
      problem(403, { code: 'exec_tier_forbidden', outcome: 'refused', detail: 'tier 1 may not' }),
    ],
    [
      'the host is unreachable',
      125,
      /^sallyport: no \(host_unreachable, failed step tunnel, exec e-1\)\n$/,
      problem(502, {
        code: 'host_unreachable',
        outcome: 'unreachable',
        detail: 'no',
        failed_step: 'tunnel',
        exec_id: 'e-1',
      }),
    ],
    ['connecting took too long', 125, /connect_timeout/, problem(504, { code: 'connect_timeout' })],
    ['a deadline passed without output', 124, /exec_timeout/, problem(504, { code: 'exec_timeout' })],
    ['the gateway is broken', 255, /internal/, problem(500, { code: 'internal' })],
    ['a proxy gave up', 255, /not a Sallyport gateway: 502/, (response) => response.writeHead(502).end('<html>')],
    ['a proxy refused', 125, /not a Sallyport gateway: 407/, (response) => response.writeHead(407).end('<html>')],
    ['the gateway vanished', 255, /broke before it answered/, (response) => response.destroy()],
    ['the stream is unfinished', 255, /exec 0199.* is unfinished/, frames(outputFrame('stderr', ''))],
    [
      'a replay has no output to show',
      255,
      /replay/,
      frames(exitFrame({ replayed: true, complete: false, stdout_bytes: 5 })),
    ],
    ['a replay had no output', 4, /^$/, frames(exitFrame({ replayed: true, exit_code: 4 }))],
    [
      'output is missing',
      255,
      /output is missing: 0 and 0 bytes came of 5 and 0/,
      frames(exitFrame({ stdout_bytes: 5 })),
    ],
  ])('when %s', async ([what, code, stderr, answer], { expect }) => {
    answers.set(what, answer);
    const ended = await cliHere(['exec', what, '--', 'true'], { url: server.url });
    expect(ended).toMatchObject({ code, stderr: expect.stringMatching(stderr) });
    expect(ended.stdout).toHaveLength(0);
  });

  it('when nobody listens', async ({ expect }) => {
    const closed = createServer().listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address() as { port: number };
    closed.close();
    const ended = await cliHere(['exec', 'ws', 'true'], { url: `http://127.0.0.1:${port}` });
    expect(ended).toMatchObject({ code: 125, stderr: expect.stringMatching(/cannot be reached: .*ECONNREFUSED/) });
  });

  it.for([
    ['no address is set', { SALLYPORT_URL: '' }, /SALLYPORT_URL is not set: set it to/],
    ['no token is set', { SALLYPORT_TOKEN: '' }, /SALLYPORT_TOKEN is not set: set it to/],
    // An address that nothing answers: dialling it would take seconds.
    [
      'the token would travel in the clear',
      { SALLYPORT_URL: 'http://192.0.2.1' },
      /not sent over plain http.*\n.*https/,
    ],
  ] as const)('when %s', async ([, env, stderr], { expect }) => {
    const ended = await cliHere(['exec', 'ws', 'true'], { url: server.url, env });
    expect(ended).toMatchObject({ code: 125, stderr: expect.stringMatching(stderr) });
  });
});

it.concurrent('every byte of both streams arrives, and nothing else', async ({ expect }) => {
  const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  const text = 'grüße\r\n\u0000\u001b[31m';
  const base64 = { encoding: 'base64' };
  answers.set('bytes', (response) =>
    sendFrames(response, [
      outputFrame('stdout', all.toString('base64'), base64),
      outputFrame('stderr', text),
      outputFrame('stdout', text),
      outputFrame('stderr', all.toString('base64'), base64),
      exitFrame({ stdout_bytes: 256 + Buffer.byteLength(text), stderr_bytes: 256 + Buffer.byteLength(text) }),
    ]),
  );
  // stderr as bytes too, so a shell swaps the streams for a second look.
  const { ended } = startShell(`$0 exec bytes -- x 2>/dev/null; $0 exec bytes -- x 2>&1 >/dev/null`, {
    url: server.url,
  });
  const { code, stdout } = await ended;
  expect(code).toBe(0);
  expect(stdout).toEqual(Buffer.concat([all, Buffer.from(text), Buffer.from(text), all]));
});

it.concurrent('all output arrives at a reader that starts late', async ({ expect }) => {
  // A pipe holds 64 KiB: the last words wait in this process.
  const full = 'x'.repeat(64 * 1024);
  answers.set('large', (response) =>
    sendFrames(response, [
      outputFrame('stdout', full),
      outputFrame('stdout', 'tail'),
      exitFrame({ stdout_bytes: full.length + 4, exit_code: 9 }),
    ]),
  );
  const script = `{ $0 exec large -- x; echo "code $?" >&2; } | { sleep 1.5; wc -c; }`;
  const { stdout, stderr } = await startShell(script, { url: server.url }).ended;
  expect(stdout.toString().trim()).toBe(String(full.length + 4));
  expect(stderr).toBe('code 9\n');
});

it.concurrent('a cut, missing output and survivors are noted on stderr', async ({ expect }) => {
  answers.set('cut', (response) =>
    sendFrames(response, [
      outputFrame('stdout', 'abc'),
      { stream: 'stdout', data: '\n[output truncated at 3 bytes]', truncated: true },
      exitFrame({ stdout_bytes: 9, complete: false, survivors: [12, 34] }),
    ]),
  );
  const { code, stdout, stderr } = await cliHere(['exec', 'cut', 'x'], { url: server.url });
  expect({ code, stdout: stdout.toString() }).toEqual({ code: 0, stdout: 'abc' });
  expect(stderr).toMatch(
    /^sallyport: stdout was cut at 3 bytes .*\nsallyport: processes are left on the host: 12, 34\n$/,
  );
});

it.concurrent('a deadline that the gateway shortened is named', async ({ expect }) => {
  answers.set('clamped', (response) => sendFrames(response, [errorFrame({ timeout_s: 120, survivors: null })]));
  const { stderr } = await cliHere(['exec', '--timeout', '600', 'clamped', 'x'], { url: server.url });
  expect(stderr).toMatch(/600 s were asked for; the gateway allows 120 s\n.*nobody could look/);
});

it.concurrent('control characters of the gateway do not reach the terminal', async ({ expect }) => {
  answers.set('evil', (response) =>
    sendProblem(response, 403, { code: 'scope_missing', detail: '\u001b]0;owned\u0007\nfake line\u202e\u009b31m' }),
  );
  const { stderr } = await cliHere(['exec', 'evil', 'x'], { url: server.url });
  expect(stderr).toBe('sallyport: \\u001b]0;owned\\u0007\\nfake line\\u202e\\u009b31m (scope_missing)\n');
});

describe.concurrent('the request', () => {
  it('carries what the options say, and argv untouched', async ({ expect }) => {
    const options = ['--timeout=0.5', '--connect-timeout', '7', '--env', 'A=b=c', '-e', 'FROM_HERE', '--cwd', '/tmp'];
    const env = { FROM_HERE: 'here' };
    await cliHere(
      ['exec', ...options, '--max-output', '10', 'sent', '--', 'sh', '-c', ' a "b" $c ', '--', '--json', ''],
      {
        url: server.url,
        env,
      },
    );
    expect(askedOf('sent')).toEqual({
      cmd: ['sh', '-c', ' a "b" $c ', '--', '--json', ''],
      timeout_s: 0.5,
      connect_timeout_s: 7,
      env: { A: 'b=c', FROM_HERE: 'here' },
      cwd: '/tmp',
      max_output_bytes: 10,
    });
  });

  it.for<[string, string[], string[]]>([
    ['plain', ['plain', 'ls', '-l', '--timeout', '1'], ['ls', '-l', '--timeout', '1']],
    ['help', ['help', 'ls', '--help'], ['ls', '--help']],
    ['early', ['--', 'early', 'ls', '-l'], ['ls', '-l']],
    ['twice', ['twice', '--', '--', 'x'], ['--', 'x']],
    ['dash', ['dash', '--', '-x'], ['-x']],
  ])('ends our options: %s', async ([id, words, cmd], { expect }) => {
    expect(await cliHere(['exec', ...words], { url: server.url })).toMatchObject({ code: 0 });
    expect(askedOf(id)).toEqual({ cmd });
  });

  it.for<[string, string[], RegExp]>([
    ['an option behind the workspace id', ['misplaced', '--timeout', '5', '--', 'ls'], /stand before the workspace id/],
    [
      'an unknown option',
      ['--frobnicate', 'misplaced', 'ls'],
      /there is no option "--frobnicate"\n.*--help shows the usage/,
    ],
    ['no program', ['misplaced', '--'], /no program to run/],
    ['no workspace', [], /the workspace id is missing/],
    ['an option without its value', ['--timeout'], /--timeout takes a value/],
    ['a value for an option that takes none', ['--json=yes', 'misplaced', 'ls'], /there is no option "--json=yes"/],
    ['a timeout in words', ['--timeout', 'soon', 'misplaced', 'ls'], /--timeout takes a number; "soon" is none/],
    ['an unset variable', ['--env', 'NOT_SET_HERE', 'misplaced', 'ls'], /"NOT_SET_HERE" is neither/],
    ['a token on the command line', ['--token', 'x', 'misplaced', 'ls'], /there is no option "--token"/],
  ])('is not made with %s', async ([, words, stderr], { expect }) => {
    expect(await cliHere(['exec', ...words], { url: server.url })).toMatchObject({
      code: 125,
      stderr: expect.stringMatching(stderr),
    });
    expect(askedOf('misplaced')).toBeNull();
  });

  it('goes where --url says with the token of --token-file', async ({ expect }) => {
    const file = join(dir, 'token');
    await writeFile(file, 'from-file\n');
    const url = `${server.url}/prefix`;
    await cliHere(['exec', '--url', url, '--token-file', file, 'x', 'ls'], {
      url: 'http://127.0.0.1:1',
      env: { SALLYPORT_TOKEN: '' },
    });
    const asked = server.asked.find(({ path }) => path === '/prefix/workspaces/x/exec');
    expect(asked?.headers.authorization).toBe('Bearer from-file');
  });

  it('trusts the authorities of NODE_EXTRA_CA_CERTS, and nobody unknown', async ({ expect }) => {
    const identity = selfSigned();
    const secure = await startWireServer((response) => sendFrames(response, [exitFrame({ exit_code: 6 })]), identity);
    const file = join(dir, 'ca.pem');
    await writeFile(file, identity.cert);
    try {
      const trusting = await cli(['exec', 'x', 'ls'], { url: secure.url, env: { NODE_EXTRA_CA_CERTS: file } });
      const wary = await cli(['exec', 'x', 'ls'], { url: secure.url });
      expect(trusting).toMatchObject({ code: 6, stderr: '' });
      expect(wary).toMatchObject({ code: 125, stderr: expect.stringMatching(/self-signed certificate/) });
      expect(secure.asked).toHaveLength(1);
    } finally {
      await secure.close();
    }
  });
});

describe.concurrent('--json', () => {
  it('prints the result as one document, with the exit code of the program', async ({ expect }) => {
    const document = {
      exec_id: EXEC_ID,
      exit_code: 5,
      outcome: 'exited',
      stdout: '\u009b',
      stderr: 'e',
      complete: true,
    };
    answers.set('document', (response) => sendJson(response, document));
    const { code, stdout, stderr } = await cliHere(['exec', '--json', 'document', 'x'], { url: server.url });
    expect({ code, stderr }).toEqual({ code: 5, stderr: '' });
    expect(stdout.toString()).toMatch(/^\{[^\n\u0080-\u009f]*\}\n$/);
    expect(JSON.parse(stdout.toString())).toEqual(document);
  });

  it('prints the problem as the document, and a line for people on stderr', async ({ expect }) => {
    const members = { code: 'exec_timeout', outcome: 'timed_out', detail: 'too long', stdout: 'partial' };
    answers.set('problem', (response) => sendProblem(response, 504, members));
    const { code, stdout, stderr } = await cliHere(['exec', '--json', 'problem', 'x'], { url: server.url });
    expect({ code, stderr }).toEqual({ code: 124, stderr: 'sallyport: too long (exec_timeout)\n' });
    expect(JSON.parse(stdout.toString())).toMatchObject(members);
  });

  it('prints a document for a failure on this side too', async ({ expect }) => {
    const { code, stdout } = await cliHere(['exec', '--json', 'x', 'x'], { url: 'http://192.0.2.1' });
    expect(code).toBe(125);
    expect(JSON.parse(stdout.toString())).toMatchObject({ code: null, error: expect.stringMatching(/plain http/) });
  });

  it('prints the decision of a dry run', async ({ expect }) => {
    answers.set('dry', (response) => sendJson(response, { decision: 'allowed' }));
    const { code, stdout } = await cliHere(['exec', '--dry-run', 'dry', 'x'], { url: server.url });
    expect({ code, stdout: stdout.toString() }).toEqual({ code: 0, stdout: '{"decision":"allowed"}\n' });
    expect(askedOf('dry')).toEqual({ cmd: ['x'], dry_run: true });
  });
});
