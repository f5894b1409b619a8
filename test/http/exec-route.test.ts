import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import request from 'supertest';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { SallyportError } from '../../src/errors.ts';
import type { EndCause } from '../../src/exec/cause.ts';
import type { ExecEvent } from '../../src/exec/frame.ts';
import { waitUntil, waitUntilStill, within } from '../support/wait.ts';
import { ADMIN_TOKEN, endOf, fakeGateway, output, playing, type Script, workspaceOf } from './fake-gateway.ts';
import { framesOf, listen, post, textOf } from './wire.ts';

const PATH = '/workspaces/ws-1/exec';
const LS = { cmd: ['ls'] };

/** A promise and the function that resolves it. */
function gate(): { open: () => void; opened: Promise<void> } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

/** Timers of the gateway stand still until they are moved; sockets and `waitUntil` go on. */
function fakeTimers(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => {
    vi.useRealTimers();
  });
}

/** Runs until its signal aborts, then ends as an exec does. */
function untilEnded(before: ExecEvent[] = [{ kind: 'started', pid: 1 }]): Script {
  return async function* (run) {
    yield* before;
    if (!run.signal.aborted) await new Promise((resolve) => run.signal.addEventListener('abort', resolve));
    const cause = run.signal.reason as EndCause;
    yield endOf(run, { outcome: cause.outcome, exitCode: null, error: cause.toError(30), complete: false });
  };
}

function failing(error: SallyportError, before: ExecEvent[] = []): Script {
  return async function* (run) {
    yield* before;
    yield endOf(run, {
      outcome: error.details.outcome ?? 'unreachable',
      exitCode: null,
      error,
      complete: false,
    });
  };
}

describe('a stream', () => {
  test('has the frames in order, one terminal frame last, and both ids in its headers', async () => {
    const gateway = await fakeGateway();
    gateway.script.current = playing(
      output('out\n'),
      output('err\n', 'stderr'),
      { kind: 'truncated', stream: 'stdout', capBytes: 4 },
      { kind: 'output', stream: 'stdout', bytes: Buffer.from([0xff]), text: false },
    );
    const { url } = await listen(gateway.app);
    const response = await post(url + PATH, {
      token: await gateway.token(),
      body: LS,
      headers: { 'x-request-id': 'req-7' },
    }).response;
    const frames = await framesOf(response);
    expect(response.statusCode).toBe(200);
    expect(response.headers['content-type']).toBe('application/x-ndjson');
    expect(response.headers['cache-control']).toBe('no-store');
    expect(response.headers['x-request-id']).toBe('req-7');
    expect(response.headers['x-exec-id']).toBe(gateway.runs[0]?.execId);
    expect(frames).toMatchObject([
      { stream: 'stdout', data: 'out\n', truncated: false },
      { stream: 'stderr', data: 'err\n', truncated: false },
      { stream: 'stdout', data: '\n[output truncated at 4 bytes]', truncated: true },
      { stream: 'stdout', data: '/w==', encoding: 'base64', truncated: false },
      { exit_code: 0, outcome: 'exited', exec_id: gateway.runs[0]?.execId, complete: true },
    ]);
  });

  test('is what a caller gets who does not say what to accept, or accepts anything', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token();
    for (const accept of ['*/*', 'application/x-ndjson', 'text/html', 'application/x-ndjson, application/json']) {
      const response = await request(gateway.app)
        .post(PATH)
        .auth(token, { type: 'bearer' })
        .set('accept', accept)
        .send(LS);
      expect(response.headers['content-type'], accept).toBe('application/x-ndjson');
    }
  });

  test('sends its headers with the first output byte, not with the start of the program', async () => {
    const gateway = await fakeGateway();
    const { open, opened } = gate();
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      await opened;
      yield output('first');
      yield endOf(run);
    };
    const { url } = await listen(gateway.app);
    const { response } = post(url + PATH, { token: await gateway.token(), body: LS });
    let came = false;
    void response.then(() => {
      came = true;
    });
    await waitUntil('the program runs', () => gateway.runs.length === 1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(came).toBe(false);
    open();
    expect(await framesOf(await response)).toHaveLength(2);
  });

  test('of a silent program has blank lines, which are not frames', async () => {
    const gateway = await fakeGateway({}, { heartbeatMs: 5 });
    const { open, opened } = gate();
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      await opened;
      yield endOf(run);
    };
    const { url } = await listen(gateway.app);
    const response = await post(url + PATH, { token: await gateway.token(), body: LS }).response;
    let text = '';
    response.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text === '\n\n\n') open();
    });
    await within('the end', new Promise((resolve) => response.on('end', resolve)));
    expect(text).toMatch(/^\n{3,}\{"exit_code":0,.*\}\n$/);
  });

  test('has a blank line when nothing was sent for 15 s, and no sooner', async () => {
    const gateway = await fakeGateway();
    const [first, second, finish] = [gate(), gate(), gate()];
    let started = false;
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      started = true;
      await first.opened;
      yield output('1');
      await second.opened;
      yield output('2');
      await finish.opened;
      yield endOf(run);
    };
    const { url } = await listen(gateway.app);
    const token = await gateway.token();
    fakeTimers();
    const { response } = post(url + PATH, { token, body: LS });
    await waitUntil('the start', () => started);
    vi.advanceTimersByTime(14_999);
    first.open();
    let text = '';
    (await response).on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await waitUntil('the output', () => text.includes('"1"'));
    vi.advanceTimersByTime(14_999);
    second.open();
    await waitUntil('more output', () => text.includes('"2"'));
    vi.advanceTimersByTime(15_000);
    await waitUntil('the blank line', () => text.endsWith('\n\n'));
    finish.open();
    await waitUntil('the end', () => text.includes('exit_code'));
    expect(text.split('\n').map((line) => line !== '')).toEqual([true, true, false, true, false]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('has no heartbeat while connecting', async () => {
    const gateway = await fakeGateway({}, { heartbeatMs: 1 });
    gateway.script.current = async function* (run) {
      await waitUntilStill('time', () => 0, 30);
      yield* failing(new SallyportError('host_unreachable', 'no way', { failedStep: 'tunnel' }))(run);
    };
    const token = await gateway.token();
    const response = await request(gateway.app).post(PATH).auth(token, { type: 'bearer' }).send(LS);
    expect(response.status).toBe(502);
  });

  test('that has begun tells a failure in its terminal frame', async () => {
    const gateway = await fakeGateway();
    const error = new SallyportError('connection_lost', 'lost', { outcome: 'connection_lost' });
    gateway.script.current = failing(error, [{ kind: 'started', pid: 1 }, output('half')]);
    const { url } = await listen(gateway.app);
    const response = await post(url + PATH, { token: await gateway.token(), body: LS }).response;
    expect(response.statusCode).toBe(200);
    expect((await framesOf(response)).at(-1)).toMatchObject({
      code: 'connection_lost',
      outcome: 'connection_lost',
      complete: false,
    });
  });

  test('is not pulled faster than it is read', async () => {
    const gateway = await fakeGateway();
    const line = randomBytes(24 * 1024).toString('hex');
    let pulled = 0;
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      for (; pulled < 5_000 && !run.signal.aborted; pulled += 1) yield output(line);
      yield endOf(run);
    };
    const { url } = await listen(gateway.app);
    const { request: sent, response } = post(url + PATH, { token: await gateway.token(), body: LS });
    (await response).pause();
    const stalledAt = await waitUntilStill('the pull', () => pulled, 200);
    // 5,000 frames of 48 KiB are 240 MiB; sockets on loopback hold a few.
    expect(stalledAt).toBeGreaterThan(0);
    expect(stalledAt).toBeLessThan(500);
    (await response).resume();
    await waitUntil('the pull goes on', () => pulled > stalledAt + 100);
    sent.destroy();
    await waitUntil('the exec is over', () => gateway.deps.running.size === 0);
  });

  test('whose reader stands still for longer than any program lives is cut off', async () => {
    const gateway = await fakeGateway();
    let pulled = 0;
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      for (; !run.signal.aborted; pulled += 1) yield output('x'.repeat(48 * 1024));
      yield endOf(run, { outcome: 'cancelled', exitCode: null, error: new SallyportError('exec_cancelled', 'x') });
    };
    const { url } = await listen(gateway.app);
    const token = await gateway.token();
    fakeTimers();
    const { response } = post(url + PATH, { token, body: { ...LS, timeout_s: 10 } });
    (await response).pause();
    await waitUntilStill('the pull', () => pulled, 100);
    vi.advanceTimersByTime(39_999);
    expect(gateway.deps.running.size).toBe(1);
    vi.advanceTimersByTime(1);
    await waitUntil('the exec is over', () => gateway.deps.running.size === 0);
  });

  test('sends 100 MiB without a changed byte', async () => {
    const gateway = await fakeGateway();
    const bytes = Buffer.from('é\u2028"\\\x01'.repeat(6_000));
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      for (let index = 0; index < 200; index += 1) yield { kind: 'output', stream: 'stdout', bytes, text: true };
      yield endOf(run);
    };
    const { url } = await listen(gateway.app);
    const frames = await framesOf(await post(url + PATH, { token: await gateway.token(), body: LS }).response);
    expect(frames).toHaveLength(201);
    expect(frames.slice(0, -1).every((frame) => frame.data === bytes.toString())).toBe(true);
  });
});

describe('before the first byte', () => {
  test.each([
    [new SallyportError('aws_denied', 'denied', { failedStep: 'key_push' }), 502],
    [new SallyportError('connect_timeout', 'too slow', { failedStep: 'banner', timeoutS: 20 }), 504],
    [new SallyportError('start_failed', 'no such directory', { failedStep: 'channel' }), 422],
    [new SallyportError('aws_throttled', 'throttled', { failedStep: 'key_push', retryAfterS: 9 }), 503],
  ])('%s has its own status', async (error, status) => {
    const gateway = await fakeGateway();
    gateway.script.current = failing(error);
    const token = await gateway.token();
    const response = await request(gateway.app).post(PATH).auth(token, { type: 'bearer' }).send(LS);
    expect(response.status).toBe(status);
    expect(response.headers['content-type']).toBe('application/problem+json');
    expect(response.headers['x-exec-id']).toBe(response.body.exec_id);
    expect(response.body).toMatchObject({
      status,
      code: error.code,
      detail: error.message,
      error: error.message,
      outcome: 'unreachable',
      failed_step: error.details.failedStep,
    });
    expect(response.body.request_id).toBe(response.headers['x-request-id']);
    // The row of the exec tells it; a row of the gate would tell it twice.
    expect(gateway.refused).toEqual([]);
  });

  test('a deadline of a silent program is 504 with the deadline and what is left', async () => {
    const gateway = await fakeGateway();
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      const error = new SallyportError('exec_timeout', 'ended', { outcome: 'timed_out' });
      yield endOf(run, { outcome: 'timed_out', exitCode: null, error, timeoutS: 1.5, survivors: [9] });
    };
    const token = await gateway.token();
    const response = await request(gateway.app).post(PATH).auth(token, { type: 'bearer' }).send(LS);
    expect(response.status).toBe(504);
    expect(response.body).toMatchObject({ code: 'exec_timeout', outcome: 'timed_out', timeout_s: 1.5, survivors: [9] });
  });

  test('an exec that breaks its promise is 500, without a word about why', async () => {
    const gateway = await fakeGateway();
    gateway.script.current = async function* () {
      yield { kind: 'started', pid: 1 };
      throw new TypeError('secret of 10.0.0.1');
    };
    const token = await gateway.token();
    fakeTimers();
    const response = await request(gateway.app).post(PATH).auth(token, { type: 'bearer' }).send(LS);
    expect(response.status).toBe(500);
    expect(JSON.stringify(response.body)).not.toContain('secret');
    expect(response.body.code).toBe('internal');
    expect(JSON.stringify(gateway.logged)).toContain('secret of 10.0.0.1');
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('one document', () => {
  const ask = async (script: Script, body: object = LS) => {
    const gateway = await fakeGateway();
    gateway.script.current = script;
    return await request(gateway.app)
      .post(PATH)
      .auth(await gateway.token(), { type: 'bearer' })
      .set('accept', 'application/json')
      .send(body);
  };

  test('has everything that was written', async () => {
    const response = await ask(playing(output('caf\u00e9'), output('e', 'stderr')));
    expect(response.status).toBe(200);
    expect(response.headers['content-type']).toMatch(/^application\/json/);
    expect(response.body).toEqual({
      exec_id: response.headers['x-exec-id'],
      exit_code: 0,
      signal: null,
      outcome: 'exited',
      success: true,
      stdout: 'café',
      stderr: 'e',
      stdout_encoding: 'utf8',
      stderr_encoding: 'utf8',
      stdout_truncated: false,
      stderr_truncated: false,
      duration_ms: 12,
      complete: true,
    });
  });

  test('of a program that exits with 3 is 200 and no success', async () => {
    const response = await ask(async function* (run) {
      yield { kind: 'started', pid: 1 };
      yield endOf(run, { exitCode: 3 });
    });
    expect(response.status).toBe(200);
    expect(response.body).toMatchObject({ exit_code: 3, success: false });
  });

  test('says base64 where bytes are no text, and where base64 was asked for', async () => {
    const broken = await ask(playing({ kind: 'output', stream: 'stdout', bytes: Buffer.from([0xff]), text: false }));
    expect(broken.body).toMatchObject({ stdout: '/w==', stdout_encoding: 'base64', stderr_encoding: 'utf8' });
    const asked = await ask(playing(output('hi')), { ...LS, encoding: 'base64' });
    expect(asked.body).toMatchObject({ stdout: 'aGk=', stdout_encoding: 'base64' });
  });

  test('leaves the marker out and says that output was cut', async () => {
    const response = await ask(playing(output('abc'), { kind: 'truncated', stream: 'stdout', capBytes: 3 }));
    expect(response.body).toMatchObject({ stdout: 'abc', stdout_truncated: true, stderr_truncated: false });
  });

  test('of a failure after output is a problem with its own status and what was written', async () => {
    const error = new SallyportError('exec_timeout', 'ended', { outcome: 'timed_out' });
    const response = await ask(failing(error, [{ kind: 'started', pid: 1 }, output('partial')]));
    expect(response.status).toBe(504);
    expect(response.headers['content-type']).toBe('application/problem+json');
    expect(response.body).toMatchObject({
      code: 'exec_timeout',
      outcome: 'timed_out',
      timeout_s: 30,
      stdout: 'partial',
      stdout_encoding: 'utf8',
      stderr: '',
      stdout_truncated: false,
      complete: false,
    });
  });
});

describe('a caller who hangs up', () => {
  test('while connecting ends the exec as cancelled', async () => {
    const gateway = await fakeGateway();
    gateway.script.current = untilEnded([]);
    const { url } = await listen(gateway.app);
    const { request: sent } = post(url + PATH, { token: await gateway.token(), body: LS });
    await waitUntil('the host is dialled', () => gateway.trace.includes('host'));
    sent.destroy();
    await waitUntil('the exec is over', () => gateway.deps.running.size === 0);
    expect(gateway.runs[0]?.signal.reason).toMatchObject({ outcome: 'cancelled', why: 'the caller hung up' });
  });

  test('while the gates still ask starts nothing, and leaves a refused row', async () => {
    const { deps } = await fakeGateway();
    const answer = gate();
    const standing: typeof deps.directory.standing = async (query) => {
      await answer.opened;
      return await deps.directory.standing(query);
    };
    const gateway = await fakeGateway({ directory: { standing } });
    let gone = false;
    const server = createServer((req, res) => {
      res.on('close', () => {
        gone = true;
      });
      gateway.app(req, res);
    }).listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const { request: sent } = post(`http://127.0.0.1:${port}${PATH}`, { token: ADMIN_TOKEN, body: LS });
    await waitUntil('the first gate', () => gateway.trace.includes('verify'));
    sent.destroy();
    await waitUntil('the hang-up', () => gone);
    answer.open();
    await waitUntil('the row', () => gateway.refused.length === 1);
    expect(gateway.refused[0]).toMatchObject({ message: 'the body broke off' });
    expect(gateway.runs).toEqual([]);
  });

  test('in the middle of output ends it too, and the rest is read and dropped', async () => {
    const gateway = await fakeGateway();
    let readToItsEnd = false;
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      yield output('first');
      await new Promise((resolve) => run.signal.addEventListener('abort', resolve));
      for (let index = 0; index < 100; index += 1) yield output('x'.repeat(48 * 1024));
      yield* untilEnded([])(run);
      readToItsEnd = true;
    };
    const { url } = await listen(gateway.app);
    const { request: sent, response } = post(url + PATH, { token: await gateway.token(), body: LS });
    await response;
    sent.destroy();
    await waitUntil('the end was read', () => readToItsEnd);
  });

  test('without reading what was written ends a stalled exec', async () => {
    const gateway = await fakeGateway();
    const { url } = await listen(gateway.app);
    let pulled = 0;
    gateway.script.current = async function* (run) {
      yield { kind: 'started', pid: 1 };
      for (; !run.signal.aborted; pulled += 1) yield output('x'.repeat(48 * 1024));
      yield endOf(run, { outcome: 'cancelled', exitCode: null, error: new SallyportError('exec_cancelled', 'x') });
    };
    const { request: sent, response } = post(url + PATH, { token: await gateway.token(), body: LS });
    (await response).pause();
    await waitUntilStill('the pull', () => pulled, 100);
    sent.destroy();
    await waitUntil('the exec is over', () => gateway.deps.running.size === 0);
  });

  test('after everything was sent changes nothing', async () => {
    const gateway = await fakeGateway();
    const { url } = await listen(gateway.app);
    const { request: sent, response } = post(url + PATH, { token: await gateway.token(), body: LS });
    await textOf(await response);
    sent.destroy();
    await waitUntil('the exec is over', () => gateway.deps.running.size === 0);
    expect(gateway.runs[0]?.signal.aborted).toBe(false);
  });
});

describe('cancelling', () => {
  test('answers when the exec has ended, and the stream tells it', async () => {
    const gateway = await fakeGateway();
    const settled = gate();
    gateway.script.current = async function* (run) {
      yield* untilEnded([{ kind: 'started', pid: 1 }, output('on')])(run);
      await settled.opened;
    };
    const { url } = await listen(gateway.app);
    const token = await gateway.token();
    const { response } = post(url + PATH, { token, body: LS });
    const execId = (await response).headers['x-exec-id'];
    const cancelling = post(`${url}/workspaces/ws-1/execs/${execId}`, { token, method: 'DELETE', body: {} });
    let answered = false;
    void cancelling.response.then(() => {
      answered = true;
    });
    await waitUntil('the signal', () => gateway.runs[0]?.signal.aborted);
    expect(answered).toBe(false);
    settled.open();
    expect((await framesOf(await response)).at(-1)).toMatchObject({ code: 'exec_cancelled', outcome: 'cancelled' });
    const answer = await cancelling.response;
    expect(answer.statusCode).toBe(200);
    expect(JSON.parse(await textOf(answer))).toEqual({ exec_id: execId, outcome: 'cancelled' });
  });

  test('before any output makes the exec 409', async () => {
    const gateway = await fakeGateway();
    gateway.script.current = untilEnded();
    const { url } = await listen(gateway.app);
    const token = await gateway.token();
    const { response } = post(url + PATH, { token, body: LS });
    await waitUntil('the exec runs', () => gateway.runs.length === 1);
    await request(url).delete(`/workspaces/ws-1/execs/${gateway.runs[0]?.execId}`).auth(token, { type: 'bearer' });
    expect((await response).statusCode).toBe(409);
    expect(JSON.parse(await textOf(await response))).toMatchObject({
      code: 'exec_cancelled',
      detail: expect.stringContaining('cancelled by org-token:'),
    });
  });

  test('an exec that is over, unknown, or of another workspace is 404', async () => {
    const gateway = await fakeGateway();
    gateway.workspaces.set('ws-2', workspaceOf({ id: 'ws-2' }));
    gateway.script.current = untilEnded();
    const { url } = await listen(gateway.app);
    const token = await gateway.token();
    const running = post(url + PATH, { token, body: LS });
    await waitUntil('the exec runs', () => gateway.runs.length === 1);
    const cancel = async (path: string) => (await request(url).delete(path).auth(token, { type: 'bearer' })).status;
    const execId = gateway.runs[0]?.execId;
    expect(await cancel(`/workspaces/ws-2/execs/${execId}`)).toBe(404);
    expect(await cancel(`/workspaces/ws-1/execs/${'0'.repeat(36)}`)).toBe(404);
    expect(await cancel(`/workspaces/ws-1/execs/${execId}`)).toBe(200);
    expect(await cancel(`/workspaces/ws-1/execs/${execId}`)).toBe(404);
    await running.response;
  });
});

describe('the facts of an exec', () => {
  test('go into its row with secrets masked and without values', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token();
    await request(gateway.app)
      .post(PATH)
      .auth(token, { type: 'bearer' })
      .set('x-request-id', 'req-1')
      .send({
        cmd: ['tool', '--password=hunter2'],
        env: { KEY: 'canary' },
        cwd: '/srv',
        stdin: 'canary',
        timeout_s: 500,
      });
    expect(gateway.opened).toEqual([
      {
        execId: gateway.runs[0]?.execId,
        orgId: 'org-a',
        workspaceId: 'ws-1',
        actor: 'org-token:token-1-',
        requestId: 'req-1',
        argv: ['tool', '--password=***'],
        cwd: '/srv',
        envNames: ['KEY'],
        stdinBytes: 6,
        timeoutS: 120,
        driver: 'ec2',
      },
    ]);
    expect(gateway.runs[0]).toMatchObject({ fixedPath: false, command: { argv: ['tool', '--password=hunter2'] } });
  });

  test('say that a credential with command rules gets a fixed PATH', async () => {
    const gateway = await fakeGateway();
    const token = await gateway.token({ allow: [['ls', '**']], scopes: ['exec'] });
    await request(gateway.app).post(PATH).auth(token, { type: 'bearer' }).send(LS);
    expect(gateway.runs[0]?.fixedPath).toBe(true);
  });

  test('name the org of the workspace when the admin token asks', async () => {
    const gateway = await fakeGateway();
    const path = '/workspaces/ws-other/exec';
    await request(gateway.app).post(path).auth(ADMIN_TOKEN, { type: 'bearer' }).send(LS);
    expect(gateway.opened[0]).toMatchObject({ orgId: 'org-b', actor: 'admin-token' });
  });
});

test('a dry run tells the rule that decides and touches nothing', async () => {
  const gateway = await fakeGateway();
  const token = await gateway.token({ allow: [['ls', '*'], ['df']], scopes: ['exec'] });
  const ask = (cmd: string[]) =>
    request(gateway.app).post(PATH).auth(token, { type: 'bearer' }).send({ cmd, dry_run: true });
  const allowed = await ask(['df']);
  expect(allowed.status).toBe(200);
  expect(allowed.body).toEqual({ dry_run: true, decision: 'allowed', rule: ['df'] });
  const refused = await ask(['rm']);
  expect(refused.status).toBe(403);
  expect(refused.body).toMatchObject({ code: 'exec_command_forbidden', outcome: 'refused' });
  expect(gateway.opened).toEqual([]);
  expect(gateway.runs).toEqual([]);
});
