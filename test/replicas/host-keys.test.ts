/** Host keys that an admin replaces, told to one replica: the sessions of every replica take no new execs. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HOST_KEYS_POLL_MS } from '../../src/limits.ts';
import { nowAndThen, type Replica, type Replicas, startReplicas } from '../support/replicas.ts';
import { waitUntil } from '../support/wait.ts';

let replicas: Replicas;
let told: Replica;
let others: Record<'hears' | 'is deaf', Replica>;
beforeAll(async () => {
  replicas = await startReplicas();
  told = await replicas.start();
  others = { hears: await replicas.start(), 'is deaf': await replicas.start({ listens: false }) };
});
afterAll(() => replicas.stop());

const field = (bytes: Buffer): Buffer => {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
};
/** Another host's key, complete and of its type. */
const FOREIGN = `ssh-ed25519 ${Buffer.concat([field(Buffer.from('ssh-ed25519')), field(Buffer.alloc(32, 7))]).toString('base64')}`;

const put = (workspace: string, keys: string[]) =>
  replicas.admin(told, 'PUT', `/workspaces/${workspace}/host-keys`, { keys });

async function keysOnConsole(workspace: string): Promise<string[]> {
  const { body } = await told.ask(`/workspaces/${workspace}/console`);
  const block = /BEGIN SSH HOST KEY KEYS-----\n([\s\S]*?)\n-----END/.exec(String(body.output))?.[1] ?? '';
  return block.split('\n');
}

it.each([
  ['hears', 'ws-1', 2_000],
  // Nothing told it: it asks by itself.
  ['is deaf', 'ws-2', HOST_KEYS_POLL_MS + 2_000],
] as const)('a replica that %s dials again', async (name, workspace, withinMs) => {
  const replica = others[name];
  const run = () => replica.exec({ cmd: ['true'] }, { workspace });
  expect((await run()).status).toBe(200);
  await put(workspace, [FOREIGN]);
  // By the session that is open it would go on for as long as it is used.
  const refused = await waitUntil(
    'the open session is left',
    nowAndThen(async () => {
      const answer = await run();
      return answer.status !== 200 && answer;
    }),
    withinMs,
  );
  expect(refused).toMatchObject({ status: 502, body: { code: 'host_key_mismatch', failed_step: 'host_key' } });
  await put(workspace, await keysOnConsole(workspace));
  expect((await run()).status).toBe(200);
});

it('sessions to other hosts stay open', async () => {
  const run = () => told.exec({ cmd: ['true'] }, { workspace: 'ws-3' });
  const loginsOf = async () => {
    const { instances } = await replicas.lab.counters();
    return instances[replicas.lab.lab.instances[2]?.id ?? '']?.logins;
  };
  await run();
  const before = await loginsOf();
  await put('ws-1', await keysOnConsole('ws-1'));
  await run();
  expect(await loginsOf()).toBe(before);
});
