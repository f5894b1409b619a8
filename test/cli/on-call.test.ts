/** What a person sees who was woken: the timeline of a diagnosis, the console, evidence, host keys. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, sendJson, sendProblem, startWireServer, type WireServer } from '../client/wire-server.ts';
import { cliHere, type Ended } from './process.ts';

let server: WireServer;
let folder: string;
let answer: Answer = (response) => sendJson(response, {});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'on-call-'));
  server = await startWireServer((response, asked) => answer(response, asked));
});
afterEach(() => {
  server.asked.length = 0;
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

async function run(args: readonly string[], document: unknown): Promise<{ text: string; ended: Ended }> {
  answer = (response) => sendJson(response, document);
  const ended = await cliHere(args, { url: server.url });
  return { text: ended.stdout.toString('utf8'), ended };
}

const FAILED = {
  workspace_id: 'ws-1',
  ok: false,
  first_failure: 'banner',
  cause: 'port 22 takes connections, but sshd does not say its version line, for 8 s',
  remedy: `sshd hangs ${'or the machine is too busy '.repeat(4)}to run it`,
  steps: [
    { name: 'instance', ok: true, duration_ms: 37, detail: 'i-1' },
    { name: 'banner', ok: false, duration_ms: 8007, error: 'the step "banner" did not finish within 8 s' },
    { name: 'login', ok: null, duration_ms: null },
  ],
  instance: { id: 'i-1', state: 'running', type: 't3.micro', private_ip: '10.0.1.10', gateway_clock_offset_s: 400 },
  console_tail: 'ssh-ed25519 AAAAC3Nza root@host\nOut of memory: \u001b[31mKilled\n\n',
};

describe('diagnose', () => {
  it('is a timeline, cause and remedy, and the end of the console; exit 1', async () => {
    const { text, ended } = await run(['diagnose', 'ws-1'], FAILED);
    expect(ended.code).toBe(1);
    expect(text).toBe(`ws-1 fails at banner
  i-1  running  t3.micro  10.0.1.10
  the gateway's clock is 400 s slow

  ok    instance     37 ms  i-1
  FAIL  banner     8007 ms  the step "banner" did not finish within 8 s
  -     login

cause   port 22 takes connections, but sshd does not say its version line, for 8 s

remedy  sshd hangs or the machine is too busy or the machine is too busy or the machine is too busy
        or the machine is too busy to run it

the end of the console
  Out of memory: \\u001b[31mKilled
`);
    expect(server.asked[0]).toMatchObject({ method: 'GET', path: '/workspaces/ws-1/diagnose' });
  });

  it('of a healthy host exits 0', async () => {
    const steps = [{ name: 'channel', ok: true, duration_ms: 5, detail: 'the program true' }];
    const { text, ended } = await run(['diagnose', 'ws-1'], {
      ...FAILED,
      ok: true,
      first_failure: null,
      cause: null,
      remedy: null,
      steps,
      instance: null,
    });
    expect(ended.code).toBe(0);
    expect(text).toBe('ws-1 is well\n\n  ok    channel       5 ms  the program true\n');
  });

  it('does not say twice what the cause says', async () => {
    const steps = [{ name: 'login', ok: false, duration_ms: 5, error: 'refused' }];
    const { text } = await run(['diagnose', 'ws-1'], { ...FAILED, steps, cause: 'refused; because' });
    expect(text).toContain('  FAIL  login         5 ms  see the cause below\n');
  });

  it('--json is the document, with the same exit code', async () => {
    const { text, ended } = await run(['diagnose', '--json', 'ws-1'], FAILED);
    expect(JSON.parse(text)).toEqual(FAILED);
    expect(ended.code).toBe(1);
  });

  it('that the gateway refuses is a line on stderr', async () => {
    answer = (response) => sendProblem(response, 403, { code: 'scope_missing', detail: 'no' });
    const ended = await cliHere(['diagnose', 'ws-1'], { url: server.url });
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining('sallyport: ') });
  });
});

describe('console', () => {
  it('prints the log, tabs as blanks, and nothing that drives a terminal', async () => {
    const { text } = await run(['console', 'ws-1'], {
      workspace_id: 'ws-1',
      instance_id: 'i-1',
      output: 'a\tb\n\u001b[2Jc\n\n',
    });
    expect(text).toBe('a        b\n\\u001b[2Jc\n');
  });

  it('that has nothing says so', async () => {
    const { text, ended } = await run(['console', 'ws-1'], { workspace_id: 'w', instance_id: 'i-1', output: null });
    expect(text).toBe('');
    expect(ended).toMatchObject({ code: 0, stderr: expect.stringContaining('nothing was posted') });
  });
});

describe('rescue', () => {
  const { workspace_id: _, ...diagnosis } = FAILED;
  const bundle = {
    id: 'r-1',
    workspace_id: 'ws-1',
    actor: 'admin-token',
    created_at: '2026-11-20T03:00:00.000Z',
    diagnosis,
    sections: [
      { name: 'uptime', command: ['uptime'], exit_code: 0, output: 'up 3 days\n', duration_ms: 5 },
      { name: 'sshd', command: ['systemctl', 'status', 'sshd'], exit_code: 3, output: 'dead\n', duration_ms: 5 },
      { name: 'memory', output: null, error: 'not kept', duration_ms: 5 },
    ],
  };

  it('collects with POST, and shows what was kept with GET', async () => {
    const { text } = await run(['rescue', 'ws-1'], bundle);
    expect(text).toMatch(/^rescue r-1\ncollected 2026-11-20T03:00:00.000Z by admin-token\n\nws-1 fails at banner\n/);
    expect(text).toContain('\n=== uptime: uptime\nup 3 days\n');
    expect(text).toContain('\n=== sshd: systemctl status sshd; exit code 3\ndead\n');
    expect(text).toContain('\n=== memory: not kept\n');
    await run(['rescue', '--show', 'ws-1'], bundle);
    expect(server.asked.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'POST /workspaces/ws-1/rescue',
      'GET /workspaces/ws-1/rescue',
    ]);
  });
});

describe('workspace host-keys', () => {
  const view = { workspace_id: 'ws-1', keys: [{ type: 'ssh-ed25519', fingerprint: 'SHA256:x', source: 'admin' }] };

  it('are a table', async () => {
    const { text } = await run(['workspace', 'host-keys', 'ws-1'], view);
    expect(text).toBe('TYPE         FINGERPRINT  SOURCE\nssh-ed25519  SHA256:x     admin\n');
  });

  it('are set from a file, one on a line', async () => {
    const file = join(folder, 'keys');
    await writeFile(file, '# of ws-1\nssh-ed25519 AAAA root@host\n\nssh-rsa BBBB\r\n');
    await run(['workspace', 'host-keys', 'ws-1', '--set', file], view);
    expect(server.asked[0]).toMatchObject({ method: 'PUT', path: '/workspaces/ws-1/host-keys' });
    expect(JSON.parse(server.asked[0]?.body ?? '')).toEqual({ keys: ['ssh-ed25519 AAAA root@host', 'ssh-rsa BBBB'] });
  });

  it('from a file that is not there are an error, and nothing is sent', async () => {
    const { ended } = await run(['workspace', 'host-keys', 'ws-1', '--set', join(folder, 'none')], view);
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining('the keys cannot be read') });
    expect(server.asked).toEqual([]);
  });
});
