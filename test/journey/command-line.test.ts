/** The command line as a process of its own against a real gateway: bytes, exit codes, signals, and the other verbs. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { decodeJwt } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixture } from '../support/fixtures.ts';
import { startTestGateway, type TestGateway, type TokenName } from '../support/gateway.ts';
import { processTable } from '../support/processes.ts';
import { builtProgram, type Ended, type Program, startProgram } from '../support/program.ts';
import { waitUntil } from '../support/wait.ts';

let gateway: TestGateway;
beforeAll(async () => {
  [gateway] = await Promise.all([startTestGateway(), builtProgram()]);
});
afterAll(() => gateway.stop());

interface How {
  token?: TokenName | { raw: string } | null;
  stdin?: Buffer;
}

async function start(args: readonly string[], { token = 'org', stdin }: How = {}): Promise<Program> {
  const credential = token === null ? '' : typeof token === 'string' ? gateway.tokens[token] : token.raw;
  const program = await startProgram(args, {
    env: { SALLYPORT_URL: gateway.url, ...(credential === '' ? {} : { SALLYPORT_TOKEN: credential }) },
    stdin: stdin === undefined ? 'ignore' : 'pipe',
  });
  if (stdin !== undefined) program.stdin.end(stdin);
  return program;
}

const cli = async (args: readonly string[], how?: How): Promise<Ended> => (await start(args, how)).ended;
const exec = (cmd: readonly string[], how?: How) => cli(['exec', 'ws-demo', '--', ...cmd], how);

/** A program on the host that is found in the process table by an argument of its own, which ours carry as well. */
function marked(script: string): { cmd: string[]; alive(): boolean } {
  const mark = `mark-${randomUUID()}`;
  return {
    cmd: ['sh', '-c', script, mark],
    alive: () => processTable().some(({ args }) => args[0] === 'sh' && args.includes(mark)),
  };
}

/** Runs a line of shell in which `sallyport` is the command line. */
async function shell(line: string): Promise<{ stdout: Buffer }> {
  const script = `node=$0 main=$1; sallyport() { "$node" "$main" "$@"; }; ${line}`;
  return await promisify(execFile)('/bin/bash', ['--norc', '-c', script, process.execPath, await builtProgram()], {
    env: { PATH: process.env.PATH, SALLYPORT_URL: gateway.url, SALLYPORT_TOKEN: gateway.tokens.org },
    encoding: 'buffer',
  });
}

describe('exec', () => {
  it.each<[string, string[], number, RegExp]>([
    ['success', ['true'], 0, /^$/],
    ['failure', ['sh', '-c', 'exit 3'], 3, /^$/],
    ['a code that looks like ours', ['sh', '-c', 'exit 125'], 125, /^$/],
    ['the largest code', ['sh', '-c', 'exit 255'], 255, /^$/],
    ['no such program', ['no-such-program'], 127, /no-such-program/],
    ['no program at all', ['/etc'], 126, /\/etc/],
    ['a signal', ['sh', '-c', 'kill -TERM $$'], 143, /^$/],
  ])('ends as the program ended: %s', async (_name, cmd, code, stderr) => {
    const ended = await exec(cmd);
    expect({ ...ended, stdout: ended.stdout.toString() }).toEqual({
      code,
      stdout: '',
      stderr: expect.stringMatching(stderr),
    });
  });

  it.each<[string, string[], TokenName | null, number, RegExp]>([
    ['its deadline', ['--timeout', '0.3', 'ws-demo', '--', 'sleep', '60'], 'org', 124, /exec_timeout/],
    ['a tier', ['ws-sandbox', '--', 'true'], 'org', 125, /exec_tier_forbidden/],
    ['no instance', ['ws-no-instance', '--', 'true'], 'org', 125, /no_instance/],
    ['a scope', ['ws-demo', '--', 'true'], 'readonly', 125, /scope_missing/],
    ['a foreign workspace', ['ws-other', '--', 'true'], 'org', 125, /not_found/],
    ['a folder that is not there', ['--cwd', '/no/such', 'ws-demo', '--', 'true'], 'org', 125, /cwd.*start_failed/],
    ['no token', ['ws-demo', '--', 'true'], null, 125, /SALLYPORT_TOKEN is not set/],
    ['a variable that cannot be', ['--env', 'EXEC_ID=1', 'ws-demo', '--', 'true'], 'org', 125, /invalid_request/],
  ])('says on stderr what stopped it, and by its code: %s', async (_name, args, token, code, stderr) => {
    const ended = await cli(['exec', ...args], { token });
    expect({ ...ended, stdout: ended.stdout.toString() }).toEqual({
      code,
      stdout: '',
      stderr: expect.stringMatching(stderr),
    });
    expect(ended.stderr).toMatch(/^(sallyport: .*\n)+$/);
  });

  it('a host that cannot be reached is 125, with the step', async () => {
    await gateway.cutConnections();
    await gateway.fault('target_down');
    const ended = await exec(['true']);
    await gateway.clearFaults();
    expect(ended).toMatchObject({ code: 125, stderr: expect.stringMatching(/host_unreachable, failed step tunnel/) });
  });

  it('a link that breaks is 255, and what came is printed', async () => {
    const { cmd, alive } = marked('echo before; sleep 60; :');
    const program = await start(['exec', 'ws-demo', '--', ...cmd]);
    await program.says(/before\n/);
    await gateway.cutConnections();
    const { code, stdout, stderr } = await program.ended;
    expect({ code, stdout: stdout.toString() }).toEqual({ code: 255, stdout: 'before\n' });
    expect(stderr).toContain('connection_lost');
    await waitUntil('the program is ended there', () => !alive());
  });

  it('somebody else’s DELETE is 130', async () => {
    const program = await start(['exec', 'ws-demo', '--', 'sh', '-c', 'echo here; sleep 60; :']);
    await program.says(/here/);
    const { body } = await gateway.ask('/workspaces/ws-demo/execs');
    const [{ exec_id: execId } = { exec_id: '' }] = body.items as { exec_id: string }[];
    await gateway.ask(`/workspaces/ws-demo/execs/${execId}`, { method: 'DELETE' });
    expect(await program.ended).toMatchObject({ code: 130, stderr: expect.stringContaining('exec_cancelled') });
  });

  it('bytes come out as the program wrote them, each stream on its own', async () => {
    const all = Buffer.from(Array.from({ length: 256 }, (_, value) => value));
    const { stdout } = await exec([fixture('all-bytes')]);
    expect(stdout).toEqual(all);
    const line = `sallyport exec ws-demo -- ${fixture('all-bytes')} 2>&1 >/dev/null </dev/null`;
    const { stdout: errors } = await shell(line);
    expect(errors).toEqual(Buffer.from(all.toReversed()));
  });

  it('what is piped in reaches the program, byte for byte', async () => {
    const bytes = Buffer.concat(
      Array.from({ length: 4096 }, () => Buffer.from(Array.from({ length: 256 }, (_, n) => n))),
    );
    const { code, stdout } = await cli(['exec', '--max-output', '1048576', 'ws-demo', '--', 'cat'], { stdin: bytes });
    expect(code).toBe(0);
    expect(stdout.equals(bytes)).toBe(true);
    const more = await exec(['cat'], { stdin: Buffer.alloc(1024 * 1024 + 1) });
    expect(more).toMatchObject({ code: 125, stderr: expect.stringContaining('1048576') });
  });

  it('options travel, and argv is nobody’s but the program’s', async () => {
    const args = [
      '--env',
      'GREETING=a b',
      '--cwd',
      '/tmp',
      'ws-demo',
      '--',
      'sh',
      '-c',
      'pwd; echo "$GREETING"; printf "[%s]" "$@"',
    ];
    const { code, stdout } = await cli(['exec', ...args, 'x', '--json', '', "it's", '$HOME']);
    expect({ code, stdout: stdout.toString() }).toEqual({ code: 0, stdout: "/tmp\na b\n[--json][][it's][$HOME]" });
  });

  it('--json prints one document and keeps the exit code', async () => {
    const { code, stdout, stderr } = await cli([
      'exec',
      '--json',
      'ws-demo',
      '--',
      'sh',
      '-c',
      'echo out; echo err >&2; exit 4',
    ]);
    expect({ code, stderr }).toEqual({ code: 4, stderr: '' });
    expect(JSON.parse(stdout.toString())).toMatchObject({
      exit_code: 4,
      outcome: 'exited',
      success: false,
      stdout: 'out\n',
      stderr: 'err\n',
      complete: true,
    });
    const refused = await cli(['exec', '--json', 'ws-sandbox', '--', 'true']);
    expect(refused.code).toBe(125);
    expect(JSON.parse(refused.stdout.toString())).toMatchObject({ code: 'exec_tier_forbidden', status: 403 });
  });

  it('Ctrl-C ends the program there, then leaves with 130', async () => {
    const { cmd, alive } = marked('trap "" HUP; echo ready; sleep 60; :');
    const program = await start(['exec', 'ws-demo', '--', ...cmd]);
    await program.says(/ready/);
    expect(alive()).toBe(true);
    program.kill('SIGINT');
    const { code, stdout } = await program.ended;
    expect(alive()).toBe(false);
    expect({ code, stdout: stdout.toString() }).toEqual({ code: 130, stdout: 'ready\n' });
    const { body } = await gateway.ask('/workspaces/ws-demo/activity?limit=1');
    expect(body.items).toMatchObject([{ status: 'cancelled', response_body: { outcome: 'cancelled', survivors: [] } }]);
  });

  it('Ctrl-C before any output does so too', async () => {
    const { cmd, alive } = marked('sleep 60; :');
    const program = await start(['exec', 'ws-demo', '--', ...cmd]);
    await waitUntil('the program runs', alive);
    program.kill('SIGINT');
    expect(await program.ended).toMatchObject({ code: 130 });
    await waitUntil('the program is gone', () => !alive());
  });

  it('a killed command line ends the program as well', async () => {
    const { cmd, alive } = marked('echo ready; sleep 60; :');
    const program = await start(['exec', 'ws-demo', '--', ...cmd]);
    await program.says(/ready/);
    program.kill('SIGKILL');
    await program.ended;
    await waitUntil('the program is gone', () => !alive());
  });

  it('a reader that has enough ends the program, and then the command line with 141', async () => {
    const { cmd, alive } = marked('yes; :');
    const [, , , mark] = cmd;
    const piped = `sallyport exec ws-demo -- sh -c 'yes; :' ${mark} </dev/null | head -n 2`;
    const { stdout } = await shell(`set -o pipefail; ${piped}; echo "code $?"`);
    expect(alive()).toBe(false);
    expect(stdout.toString()).toBe('y\ny\ncode 141\n');
  });
});

describe('without what it needs', () => {
  it.each([
    ['exec', ['exec', 'ws-demo', '--', 'true'], 125],
    ['another verb', ['workspace', 'list'], 1],
  ])('%s says which variable to set', async (_name, args, code) => {
    const ended = await cli(args, { token: null });
    expect(ended).toMatchObject({ code, stderr: expect.stringMatching(/^sallyport: SALLYPORT_TOKEN is not set/) });
  });

  it('a token in a file does as well', async () => {
    const file = join(gateway.dataDir, 'token');
    await writeFile(file, `${gateway.tokens.workspace}\n`, { mode: 0o600 });
    const { code, stdout } = await cli(['workspace', 'list', '--json', '--token-file', file], { token: null });
    expect(code).toBe(0);
    expect(JSON.parse(stdout.toString()).items).toMatchObject([{ id: 'ws-demo' }]);
  });
});

describe('the other verbs', () => {
  const json = async (args: string[], how?: How): Promise<Record<string, unknown>> => {
    const { code, stdout, stderr } = await cli([...args, '--json'], how);
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    return JSON.parse(stdout.toString());
  };
  const lines = ({ stdout }: Ended) => stdout.toString().trimEnd().split('\n');

  it('workspace: list, get, rename, set, delete', async () => {
    const table = lines(await cli(['workspace', 'list']));
    expect(table[0]).toMatch(/^ID +ORG +NAME +DRIVER +TARGET +USER +TIER +LABELS +STATUS$/);
    expect(table.find((line) => line.startsWith('ws-demo '))).toMatch(
      / org-demo +ws-demo +ec2 +i-\w+@\S+ .* 3 +role=demo +active$/,
    );
    expect(await json(['workspace', 'get', 'ws-demo'])).toMatchObject({ id: 'ws-demo', tier: 3 });
    expect(await json(['workspace', 'rename', 'ws-fleet-01', 'Front door'])).toMatchObject({ name: 'Front door' });
    const admin: How = { token: 'admin' };
    const where = [
      '--org',
      'org-demo',
      '--driver',
      'ec2',
      '--region',
      'eu-west-1',
      '--os-user',
      'ubuntu',
      '--tier',
      '3',
    ];
    const made = await json(['workspace', 'set', 'ws-cli', ...where, '--instance-id', 'i-1', '--label', 'a=b'], admin);
    expect(made).toMatchObject({ id: 'ws-cli', os_user: 'ubuntu', instance_id: 'i-1', labels: { a: 'b' } });
    expect(await cli(['workspace', 'delete', 'ws-cli'])).toMatchObject({
      code: 0,
      stdout: Buffer.from('deleted ws-cli\n'),
    });
    const gone = await cli(['workspace', 'get', 'ws-cli']);
    expect(gone).toMatchObject({ code: 1, stderr: expect.stringContaining('not_found') });
  });

  it('token: create prints the token and nothing else, which then works; list; revoke', async () => {
    const rules = ['--scope', 'exec', '--allow', 'echo *', '--expires-in', '1h'];
    const { code, stdout, stderr } = await cli(['token', 'create', 'from cli', '--workspace', 'ws-demo', ...rules]);
    expect({ code, lines: stdout.toString().split('\n').length }).toEqual({ code: 0, lines: 2 });
    const token = { raw: stdout.toString().trim() };
    const { jti, allow, ws, iat = 0, exp } = decodeJwt(token.raw);
    expect({ allow, ws, exp }).toEqual({ allow: [['echo', '*']], ws: 'ws-demo', exp: iat + 3600 });
    expect(stderr).toContain(String(jti));
    expect((await exec(['echo', 'hi'], { token })).stdout.toString()).toBe('hi\n');
    expect(await exec(['id'], { token })).toMatchObject({
      code: 125,
      stderr: expect.stringContaining('exec_command_forbidden'),
    });
    expect(lines(await cli(['token', 'list'])).some((line) => line.startsWith(`${jti} `))).toBe(true);
    expect(await cli(['token', 'revoke', String(jti)])).toMatchObject({ code: 0 });
    expect(await exec(['echo', 'hi'], { token })).toMatchObject({
      code: 125,
      stderr: expect.stringContaining('unauthenticated'),
    });
  });

  it('org: list, get, set, freeze, unfreeze, with the admin token only', async () => {
    const admin: How = { token: 'admin' };
    expect(await json(['org', 'set', 'org-cli', '--name', 'From here'], admin)).toEqual({
      id: 'org-cli',
      name: 'From here',
      frozen: false,
    });
    expect(await json(['org', 'freeze', 'org-cli'], admin)).toMatchObject({ frozen: true });
    expect(await json(['org', 'unfreeze', 'org-cli'], admin)).toMatchObject({ frozen: false });
    expect(lines(await cli(['org', 'list'], admin)).map((line) => line.split(/ +/)[0])).toEqual([
      'ID',
      'org-cli',
      'org-demo',
      'org-other',
    ]);
    expect(await cli(['org', 'list'])).toMatchObject({ code: 1, stderr: expect.stringContaining('not_found') });
  });

  it('activity: what was done, newest first, filtered', async () => {
    await exec(['echo', 'seen']);
    const table = await waitUntil('the row is closed', async () => {
      const found = lines(await cli(['activity', 'ws-demo', '--limit', '1']));
      return found[1]?.includes(' ok ') && found;
    });
    expect(table[0]).toMatch(/^TIME +STATUS +WORKSPACE +ACTOR +MS +SUMMARY +ID$/);
    expect(table[1]).toMatch(/ ok +ws-demo +org-token:\w+ +\d+ +echo seen +[0-9a-f-]{36}$/);
    const refused = await json(['activity', '--status', 'refused', '--since', '10m', '--limit', '3']);
    const items = refused.items as { status: string }[];
    expect(items.map(({ status }) => status)).toEqual(['refused', 'refused', 'refused']);
  });
});
