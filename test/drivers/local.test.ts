/** Programs of the gateway's own machine. */
import { userInfo } from 'node:os';

import { createLocalDriver } from '../../src/drivers/local.ts';
import type { Workspace } from '../../src/workspace.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { anOpening } from '../support/opening.ts';
import { closeSession } from '../support/ssh-login.ts';
import { driverContract } from './contract.ts';

failOnLeaks();

const driver = createLocalDriver();

function workspace(osUser = userInfo().username): Workspace {
  return { id: 'ws', orgId: 'org', name: 'ws', tier: 3, labels: {}, target: { driver: 'local', osUser } };
}

driverContract('local', async () => {
  const session = await driver.open(workspace(), anOpening());
  return { session, close: () => closeSession(session) };
});
