/** Programs in containers of a real engine. */
import { userInfo } from 'node:os';
import { afterAll, beforeAll, describe } from 'vitest';
import { createDockerDriver } from '../../src/drivers/docker.ts';
import type { Session } from '../../src/sessions/session.ts';
import type { Workspace } from '../../src/workspace.ts';
import { type Engine, requireEngine, startEngine } from '../support/engine.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { anOpening } from '../support/opening.ts';
import { closeSession } from '../support/ssh-login.ts';
import { driverContract } from './contract.ts';

failOnLeaks();

let engine: Engine;

beforeAll(async () => {
  if (requireEngine()) engine = await startEngine();
});
afterAll(() => engine?.stop());

function workspace(container: string, osUser: string): Workspace {
  return { id: 'ws', orgId: 'org', name: 'ws', tier: 3, labels: {}, target: { driver: 'docker', container, osUser } };
}

function open(container: string, osUser: string): Promise<Session> {
  const driver = createDockerDriver({ socketPath: engine.socketPath });
  return driver.open(workspace(container, osUser), anOpening());
}

describe.skipIf(!requireEngine())('a container engine', () => {
  let here: string;
  beforeAll(async () => {
    here = await engine.run('here');
  });

  driverContract('docker', async () => {
    const session = await open(here, userInfo().username);
    return { session, close: () => closeSession(session) };
  });
});
