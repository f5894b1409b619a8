/** A probe of an instance, and what is learned of it without a login, against the lab. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ConnectTrace } from '../../src/sessions/trace.ts';
import { createPins, type Ec2Rig, ORG, startEc2Rig } from './ec2-rig.ts';

let rig: Ec2Rig;
beforeAll(async () => {
  rig = await startEc2Rig({ instances: 2, specs: [{ tags: { Org: ORG } }, { tags: { Org: 'org-b' } }] });
});
afterAll(() => rig.stop());
afterEach(() => rig.clearFaults());

const never = () => new AbortController().signal;

function opening() {
  const reserved: string[] = [];
  return {
    reserved,
    trace: new ConnectTrace(),
    signal: never(),
    reserve: async (resource: string) => void reserved.push(resource),
  };
}

describe('a probe', () => {
  it('takes one step after the other', async () => {
    const call = opening();
    const session = await rig.driver().probe(rig.workspace(), call, 'login');
    session?.close();
    const names = call.trace.steps.map(({ name }) => name);
    expect(names.filter((name, index) => names.indexOf(name) === index)).toEqual([
      'instance',
      'endpoint',
      'tunnel',
      'banner',
      'host_key',
      'key_push',
      'login',
    ]);
    expect(call.reserved).toHaveLength(1);
    await rig.noTunnels();
  });

  it('up to the host key pushes nothing, pins what the console says, and leaves nothing open', async () => {
    await rig.resetCounters();
    const pins = createPins();
    const call = opening();
    expect(await rig.driver({ pins }).probe(rig.workspace(), call, 'host_key')).toBeNull();
    expect(call.trace.steps.filter(({ ok }) => ok !== true)).toEqual([]);
    expect(call.trace.steps.at(-1)?.name).toBe('host_key');
    expect([...pins.stored.values()].flat()).toHaveLength(2);
    const counts = (await rig.counters()).instances[rig.instanceId(0)];
    expect({ pushes: counts?.pushes ?? 0, logins: counts?.logins ?? 0, failures: counts?.login_failures ?? 0 }).toEqual(
      {
        pushes: 0,
        logins: 0,
        failures: 0,
      },
    );
    await rig.noTunnels();
  });

  it('up to the host key trusts nobody on first use: there was no login', async () => {
    const pins = createPins();
    expect(await rig.driver({ pins, hostKeys: 'first-use' }).probe(rig.workspace(), opening(), 'host_key')).toBeNull();
    expect([...pins.stored.values()].flat()).toEqual([]);
  });

  it('that is given up leaves nothing open', async () => {
    await rig.fault('banner_hang');
    const leaving = new AbortController();
    const call = { ...opening(), signal: leaving.signal };
    const probing = rig.driver().probe(rig.workspace(), call, 'login');
    const told = expect(probing).rejects.toThrow('enough');
    while (!call.trace.steps.some(({ name }) => name === 'banner')) await new Promise(setImmediate);
    leaving.abort(new Error('enough'));
    await told;
    await rig.noTunnels();
  });
});

describe('facts', () => {
  it('are what AWS says, with its checks', async () => {
    const facts = await rig.driver().inspect(rig.workspace(), never());
    expect(facts).toMatchObject({
      instance: {
        id: rig.instanceId(0),
        state: 'running',
        instance_status: 'ok',
        security_group_ids: [expect.any(String)],
      },
      health: { ok: true, detail: 'instance check ok, system check ok' },
    });
  });

  it('of an instance that is not tagged with the org are not shown, nor is its console', async () => {
    const driver = rig.driver({ orgTag: 'Org' });
    await expect(driver.inspect(rig.workspace(0), never())).resolves.toMatchObject({ instance: { state: 'running' } });
    expect((await driver.readConsole(rig.workspace(0), never())).output?.toString()).toContain('login:');
    const refused = { code: 'host_unreachable', message: expect.stringContaining(`not tagged Org=${ORG}`) };
    await expect(driver.inspect(rig.workspace(1), never())).rejects.toMatchObject(refused);
    await expect(driver.readConsole(rig.workspace(1), never())).rejects.toMatchObject(refused);
  });

  it('of an instance that is not there are an error', async () => {
    await rig.fault('instance_missing');
    await expect(rig.driver().inspect(rig.workspace(), never())).rejects.toMatchObject({ code: 'host_unreachable' });
  });

  it('of a stopped instance say so, without a verdict of checks that do not run', async () => {
    await rig.fault('instance_stopped');
    expect(await rig.driver().inspect(rig.workspace(), never())).toMatchObject({
      instance: { state: 'stopped', state_reason: expect.stringContaining('User initiated') },
      health: { ok: null },
    });
  });
});
