/** Host keys set by an admin: what is pinned is what a host has to show, from the next connection on. */

import { writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, outputOf, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
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

const field = (bytes: Buffer): Buffer => {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
};
/** Another host's key, complete and of its type. */
const BLOB = Buffer.concat([field(Buffer.from('ssh-ed25519')), field(Buffer.alloc(32, 7))]).toString('base64');
const FOREIGN = `ssh-ed25519 ${BLOB}`;
const CUT = FOREIGN.slice(0, -8);

const put = (keys: unknown, how: { token?: 'admin' | 'org'; workspace?: string } = {}): Promise<Answer> =>
  gateway.ask(`/workspaces/${how.workspace ?? 'ws-demo'}/host-keys`, {
    method: 'PUT',
    token: how.token ?? 'admin',
    body: { keys },
  });
const get = (workspace = 'ws-demo'): Promise<Answer> => gateway.ask(`/workspaces/${workspace}/host-keys`);

async function keysOnConsole(workspace = 'ws-demo'): Promise<string[]> {
  const { body } = await gateway.ask(`/workspaces/${workspace}/console`);
  const block = /BEGIN SSH HOST KEY KEYS-----\n([\s\S]*?)\n-----END/.exec(String(body.output))?.[1] ?? '';
  return block.split('\n');
}

describe('host keys', () => {
  it('that were pinned from the console are shown by type, fingerprint and source', async () => {
    expect((await get()).body).toEqual({ workspace_id: 'ws-demo', keys: [] });
    await gateway.exec({ cmd: ['true'] });
    const { body } = await get();
    expect(body.keys).toEqual([
      { type: 'ecdsa-sha2-nistp256', fingerprint: expect.stringMatching(/^SHA256:[\w+/]{43}$/), source: 'console' },
      { type: 'ssh-ed25519', fingerprint: expect.stringMatching(/^SHA256:[\w+/]{43}$/), source: 'console' },
    ]);
  });

  it('that an admin sets hold at once: an open session is not used again', async () => {
    expect(terminalOf((await gateway.exec({ cmd: ['true'] })).frames)).toMatchObject({ exit_code: 0 });
    const answer = await put([FOREIGN]);
    expect(answer).toMatchObject({ status: 200, body: { keys: [{ type: 'ssh-ed25519', source: 'admin' }] } });
    const refused = await gateway.exec({ cmd: ['true'] });
    expect(refused).toMatchObject({ status: 502, body: { code: 'host_key_mismatch', failed_step: 'host_key' } });

    expect((await put(await keysOnConsole())).status).toBe(200);
    expect(terminalOf((await gateway.exec({ cmd: ['true'] })).frames)).toMatchObject({ exit_code: 0 });
  });

  it('do not end what runs on a session of the old keys', async () => {
    const flag = `${gateway.dataDir}/go`;
    const running = gateway.exec({ cmd: ['sh', '-c', 'until test -e "$0"; do sleep 0.02; done; echo done', flag] });
    await waitUntil('it runs', async () => {
      const { body } = await gateway.ask('/workspaces/ws-demo/execs');
      return (body.items as unknown[]).length === 1 && gateway.pool.stats().leases === 1;
    });
    expect((await put([FOREIGN])).status).toBe(200);
    await writeFile(flag, '');
    const { frames } = await running;
    expect(outputOf(frames, 'stdout').toString()).toBe('done\n');
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
    await put(await keysOnConsole());
  });

  it.each([
    ['a cut key', [CUT]],
    ['a key of another type than it says', [FOREIGN.replace('ssh-ed25519 ', 'ssh-rsa ')]],
    ['base64 that is not canonical', [`${FOREIGN}=`]],
    ['a private key', ['-----BEGIN OPENSSH PRIVATE KEY-----']],
    ['two keys on a line', [`${FOREIGN}\n${FOREIGN}`]],
    ['no key', []],
    ['text', FOREIGN],
  ])('%s is refused, and nothing is changed', async (_name, keys) => {
    const before = await get();
    expect(await put(keys)).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
    expect((await get()).body).toEqual(before.body);
  });

  it('are set by the admin token only, and the change is in the log', async () => {
    expect(await put([FOREIGN], { token: 'org' })).toMatchObject({ status: 403, body: { code: 'scope_missing' } });
    expect((await gateway.ask('/workspaces/ws-demo/host-keys', { token: 'other_org' })).status).toBe(404);
    await put(await keysOnConsole());
    const { body } = await gateway.ask('/activity?type=host_keys_put&status=ok&limit=1');
    expect((body.items as unknown[])[0]).toMatchObject({
      actor: 'admin-token',
      workspace_id: 'ws-demo',
      summary: expect.stringMatching(/host keys of ws-demo: .*SHA256:/),
    });
  });

  it('of a host that is reached by SSH are set the same way; a container has none', async () => {
    const place = (id: string, where: object): Promise<Answer> =>
      gateway.ask(`/workspaces/${id}`, {
        method: 'PUT',
        token: 'admin',
        body: { org_id: 'org-demo', tier: 3, os_user: 'ops', ...where },
      });
    await place('ws-ssh', { driver: 'ssh', host: 'build.example', port: 2222 });
    expect((await put([FOREIGN], { workspace: 'ws-ssh' })).status).toBe(200);
    expect((await get('ws-ssh')).body.keys).toMatchObject([{ type: 'ssh-ed25519', source: 'admin' }]);
    await place('ws-box', { driver: 'docker', container: 'box' });
    expect(await get('ws-box')).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
  });

  it('of a workspace without an instance are not there', async () => {
    expect(await get('ws-no-instance')).toMatchObject({ status: 400, body: { code: 'no_instance' } });
  });
});
