/** The SSH session against the lab's own SSH server. */
import { afterAll, beforeAll } from 'vitest';
import { pushKey } from '../lab/dial.ts';
import { type TestLab, withLab } from '../support/lab.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { newKeyPair } from '../support/ssh-keys.ts';
import { closeSession, logIn } from '../support/ssh-login.ts';
import { driverContract } from './contract.ts';

failOnLeaks();

let host: TestLab;

beforeAll(async () => {
  host = await withLab({ instances: 1 });
});
afterAll(() => host.stop());

driverContract('lab', async () => {
  const [instance] = host.lab.instances;
  if (instance === undefined) throw new Error('bug: the lab was asked for one instance');
  const { publicKey, privateKey } = newKeyPair();
  await pushKey(host.lab, { instanceId: instance.id, osUser: instance.osUser, publicKey });
  const session = await logIn({ port: instance.sshPort, username: instance.osUser, privateKey });
  return { session, close: () => closeSession(session) };
});
