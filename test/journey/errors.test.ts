/** Each row of the contract's error and fault tables: status, code, failed_step; nothing run; healthy afterwards. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { FaultName } from '../../src/lab/faults.ts';
import { startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
import { waitUntil } from '../support/wait.ts';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());
afterEach(async () => {
  await gateway.clearFaults();
  await gateway.cutConnections();
});

const FAULTS: [FaultName, number, string, string][] = [
  ['instance_stopped', 409, 'instance_not_running', 'instance'],
  ['instance_missing', 502, 'host_unreachable', 'instance'],
  ['endpoint_missing', 502, 'host_unreachable', 'endpoint'],
  ['push_denied', 502, 'aws_denied', 'key_push'],
  ['push_unavailable', 503, 'aws_unavailable', 'key_push'],
  ['push_throttled', 503, 'aws_throttled', 'key_push'],
  ['tunnel_refused', 503, 'capacity', 'tunnel'],
  ['tunnel_denied', 502, 'aws_denied', 'tunnel'],
  ['target_down', 502, 'host_unreachable', 'tunnel'],
  ['banner_hang', 504, 'connect_timeout', 'banner'],
  ['login_refused', 502, 'login_refused', 'login'],
  ['no_shell', 502, 'shell_unsupported', 'channel'],
];

describe('faults of a host', () => {
  it.each(FAULTS)('%s is %i %s at step %s', async (fault, status, code, failedStep) => {
    await gateway.cutConnections();
    await gateway.fault(fault);
    const {
      status: got,
      headers,
      body,
    } = await gateway.exec({ cmd: ['touch', `${gateway.dataDir}/${fault}`], connect_timeout_s: 2 });
    expect({ status: got, code: body.code, failed_step: body.failed_step }).toEqual({
      status,
      code,
      failed_step: failedStep,
    });
    expect(headers['content-type']).toBe('application/problem+json');
    expect(body).toMatchObject({
      status,
      error: body.detail,
      request_id: headers['x-request-id'],
      exec_id: headers['x-exec-id'],
    });
    if (status === 503) expect(Number(headers['retry-after'])).toBeGreaterThan(0);
    expect(String(body.detail)).not.toMatch(/127\.0\.0\.1|10\.0\.|at .*\.ts/);

    await gateway.clearFaults();
    const after = await gateway.exec({ cmd: ['test', '!', '-e', `${gateway.dataDir}/${fault}`] });
    expect(terminalOf(after.frames)).toMatchObject({ exit_code: 0 });
    const { body: rows } = await gateway.ask('/activity?limit=2');
    expect((rows.items as unknown[])[1]).toMatchObject({
      id: body.exec_id,
      status: 'error',
      response_body: { outcome: 'unreachable' },
    });
  });

  it('a host that shows another key than the pinned one is refused', async () => {
    await gateway.exec({ cmd: ['true'] });
    await gateway.cutConnections();
    await gateway.fault('host_key_changed');
    const { status, body } = await gateway.exec({ cmd: ['true'] });
    expect({ status, code: body.code, failed_step: body.failed_step }).toEqual({
      status: 502,
      code: 'host_key_mismatch',
      failed_step: 'host_key',
    });
    expect(body.detail).toMatch(/SHA256:/);
  });

  it.each([
    ['console_empty', 'ws-fleet-01', 'empty'],
    ['console_partial', 'ws-fleet-02', 'partial'],
    ['console_conflict', 'ws-fleet-03', 'conflict'],
  ] as const)('%s before a pin exists names the reason', async (fault, workspace, reason) => {
    await gateway.fault(fault);
    const { status, body } = await gateway.exec({ cmd: ['true'] }, { workspace });
    expect({ status, code: body.code, failed_step: body.failed_step }).toEqual({
      status: 502,
      code: 'host_key_mismatch',
      failed_step: 'host_key',
    });
    expect(body.detail).toContain(reason);
    await gateway.clearFaults();
    expect(terminalOf((await gateway.exec({ cmd: ['true'] }, { workspace })).frames)).toMatchObject({ exit_code: 0 });
  });

  it('a few throttles are ridden out unseen', async () => {
    await gateway.cutConnections();
    await gateway.fault('push_throttled', { times: 2 });
    const { status, frames } = await gateway.exec({ cmd: ['true'] });
    expect(status).toBe(200);
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
  });

  it('a tunnel that is cut before output is 502 connection_lost', async () => {
    await gateway.cutConnections();
    await gateway.fault('tunnel_cut_after_ms', { value: 400 });
    const { status, body } = await gateway.exec({ cmd: ['sleep', '5'] });
    expect({ status, code: body.code, outcome: body.outcome }).toEqual({
      status: 502,
      code: 'connection_lost',
      outcome: 'connection_lost',
    });
    await gateway.clearFaults();
    await waitUntil('its row is closed', async () => {
      const { body: rows } = await gateway.ask('/activity?limit=1');
      return (rows.items as { status: string }[])[0]?.status === 'error';
    });
  });

  it.each([
    ['latency_ms', 50],
    ['bandwidth_kbps', 2000],
    ['max_sessions', 2],
  ] as const)('%s costs nothing but time', async (fault, value) => {
    await gateway.cutConnections();
    await gateway.fault(fault, { value });
    const answers = await Promise.all([1, 2, 3].map((n) => gateway.exec({ cmd: ['echo', String(n)] })));
    expect(answers.map(({ frames }) => terminalOf(frames).exit_code)).toEqual([0, 0, 0]);
  });
});

describe('requests that are refused', () => {
  it.each([
    ['a bare string', { cmd: 'ls -l' }, 400, 'cmd_not_argv'],
    ['no cmd', {}, 400, 'invalid_request'],
    ['an unknown field', { cmd: ['ls'], shell: true }, 400, 'invalid_request'],
    ['a NUL', { cmd: ['a\u0000b'] }, 400, 'invalid_request'],
    ['an element that is too long', { cmd: ['echo', 'x'.repeat(131_072)] }, 400, 'invalid_request'],
    ['a relative cwd', { cmd: ['ls'], cwd: 'tmp' }, 400, 'invalid_request'],
    ['a bad name in env', { cmd: ['ls'], env: { 'a-b': '1' } }, 400, 'invalid_request'],
    ['EXEC_ID in env', { cmd: ['ls'], env: { EXEC_ID: '1' } }, 400, 'invalid_request'],
    ['a body that is too large', { cmd: ['cat'], stdin: 'x'.repeat(2 * 1024 * 1024 + 1) }, 413, 'too_large'],
    ['no JSON', '{"cmd":', 400, 'invalid_request'],
  ])('%s', async (_name, sent, status, code) => {
    const { status: got, body } = await gateway.exec(sent as object);
    expect({ status: got, code: body.code }).toEqual({ status, code });
    expect(String(body.detail).length).toBeLessThan(500);
  });

  it('another media type is 415', async () => {
    const { status, body } = await gateway.exec({ cmd: ['ls'] }, { headers: { 'content-type': 'text/plain' } });
    expect({ status, code: body.code }).toEqual({ status: 415, code: 'unsupported_media_type' });
  });

  it('a workspace below the tier is 403, and nothing is dialled', async () => {
    const before = await gateway.counters();
    const { status, body } = await gateway.exec({ cmd: ['ls'] }, { workspace: 'ws-sandbox' });
    expect({ status, code: body.code }).toEqual({ status: 403, code: 'exec_tier_forbidden' });
    expect(await gateway.counters()).toEqual(before);
  });

  it('a workspace without an instance is 400', async () => {
    const { status, body } = await gateway.exec({ cmd: ['ls'] }, { workspace: 'ws-no-instance' });
    expect({ status, code: body.code }).toEqual({ status: 400, code: 'no_instance' });
  });

  it('timeouts above the limit are clamped, not refused', async () => {
    const { frames } = await gateway.exec({ cmd: ['true'], timeout_s: 100_000, connect_timeout_s: 100_000 });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
    const { body } = await gateway.ask('/activity?limit=1');
    expect((body.items as unknown[])[0]).toMatchObject({ request_body: { timeout_s: 120 } });
  });
});
