/** The sessions of the EC2 driver, through the lab's endpoint, pass the suite of every driver. */
import { afterAll, beforeAll } from 'vitest';
import { ConnectTrace } from '../../src/sessions/trace.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { driverContract } from './contract.ts';
import { type Ec2Rig, startEc2Rig } from './ec2-rig.ts';

failOnLeaks();

let rig: Ec2Rig;
beforeAll(async () => {
  rig = await startEc2Rig({ instances: 1 });
});
afterAll(() => rig.stop());

driverContract('ec2', async () => {
  const opening = { signal: AbortSignal.timeout(10_000), trace: new ConnectTrace(), reserve: async () => {} };
  const session = await rig.driver().open(rig.workspace(), opening);
  return {
    session,
    async close() {
      session.close();
      await session.closed;
    },
  };
});
