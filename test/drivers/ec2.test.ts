/** The broker for EC2 instances against the lab: every fault by its name and step, and nothing left open. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Aws, createAws } from '../../src/drivers/aws.ts';
import { SallyportError } from '../../src/errors.ts';
import type { FaultName } from '../../src/lab/faults.ts';
import type { Driver, Session } from '../../src/sessions/session.ts';
import { ConnectTrace } from '../../src/sessions/trace.ts';
import type { Workspace } from '../../src/workspace.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { waitUntil, within } from '../support/wait.ts';
import { createPins, type Ec2Rig, ORG, startEc2Rig } from './ec2-rig.ts';

failOnLeaks();

let rig: Ec2Rig;
const sessions: Session[] = [];

beforeAll(async () => {
  rig = await startEc2Rig({ instances: 4, specs: [{ tags: { Org: ORG } }] });
});

afterEach(async () => {
  for (const session of sessions.splice(0)) session.close();
  await rig.clearFaults();
  await rig.noTunnels();
  await rig.resetCounters();
});

afterAll(() => rig.stop());

interface Opened {
  session: Session;
  trace: ConnectTrace;
}

async function open(driver: Driver, who = rig.workspace(), signal = AbortSignal.timeout(15_000)): Promise<Opened> {
  const trace = new ConnectTrace();
  const session = await driver.open(who, { signal, trace, reserve: async () => {} });
  sessions.push(session);
  return { session, trace };
}

/** An opening to look at while it runs; what it opens all the same is closed after the test. */
function begin(driver: Driver, who = rig.workspace()) {
  const controller = new AbortController();
  const trace = new ConnectTrace();
  const opening = driver.open(who, { signal: controller.signal, trace, reserve: async () => {} });
  opening.then(
    (session) => sessions.push(session),
    () => {}, // Looked at by the test.
  );
  return { opening, trace, abort: (reason: Error) => controller.abort(reason) };
}

/** What the opening was refused with. */
async function refusal(opening: Promise<unknown>): Promise<SallyportError> {
  const error = await opening.then(
    () => new Error('it opened'),
    (caught: unknown) => caught,
  );
  if (error instanceof SallyportError) return error;
  throw error;
}

describe('the way in', () => {
  it('is described, listed, pushed, tunnelled and logged in once each, and each step is told', async () => {
    const { trace } = await open(rig.driver());
    const { api, tunnels, instances } = await rig.counters();
    expect(api).toEqual({
      DescribeInstances: 1,
      DescribeInstanceConnectEndpoints: 1,
      GetConsoleOutput: 1,
      SendSSHPublicKey: 1,
    });
    expect(tunnels).toMatchObject({ open: 1, opened: 1, refused: 0 });
    expect(instances[rig.instanceId(0)]).toMatchObject({ pushes: 1, logins: 1 });
    expect(trace.steps.map((step) => step.name).sort()).toEqual(
      ['banner', 'endpoint', 'host_key', 'host_key', 'instance', 'key_push', 'login', 'tunnel'].sort(),
    );
    expect(trace.steps.every((step) => step.ok)).toBe(true);
    expect(trace.retried).toBeNull();
  });

  it('stores the pins of the console, and asks for them once', async () => {
    const pins = createPins();
    const driver = rig.driver({ pins });
    await open(driver);
    await open(driver);
    expect([...pins.stored.values()].flat().map(({ type, source }) => [type, source])).toEqual([
      ['ssh-ed25519', 'console'],
      ['ecdsa-sha2-nistp256', 'console'],
    ]);
    expect((await rig.counters()).api.GetConsoleOutput).toBe(1);
  });

  it('pushes a key of its own for every connection', async () => {
    const driver = rig.driver();
    await Promise.all([open(driver), open(driver), open(driver)]);
    const { api, instances } = await rig.counters();
    expect(instances[rig.instanceId(0)]).toMatchObject({ pushes: 3, logins: 3 });
    // Those that open together share what they look up.
    expect(api.DescribeInstances).toBe(1);
    expect(api.DescribeInstanceConnectEndpoints).toBe(1);
  });

  it('reads the instance at every dial, also where the way is known', async () => {
    const driver = rig.driver();
    await open(driver);
    await open(driver);
    expect((await rig.counters()).api).toMatchObject({ DescribeInstances: 2, DescribeInstanceConnectEndpoints: 2 });
  });

  it('has a key per org, instance, user and route', () => {
    const driver = rig.driver();
    const keys = [
      rig.workspace(0),
      rig.workspace(1),
      rig.workspace(0, { osUser: 'root' }),
      rig.workspace(0, { route: 'direct' }),
      rig.workspace(0, { region: 'eu-west-1' }),
      { ...rig.workspace(0), orgId: 'org-b' },
    ].map((one) => driver.key(one));
    expect(new Set(keys).size).toBe(keys.length);
    expect(driver.key({ ...rig.workspace(0), id: 'ws-other', tier: 1, route: 'endpoint' } as Workspace)).toBe(keys[0]);
  });

  it('is refused without an instance id', async () => {
    expect((await refusal(open(rig.driver(), rig.workspace(0, { instanceId: null })))).code).toBe('no_instance');
  });
});

describe('a fault is told by its name and step', () => {
  const table: [FaultName, string, string][] = [
    ['instance_stopped', 'instance_not_running', 'instance'],
    ['instance_missing', 'host_unreachable', 'instance'],
    ['endpoint_missing', 'host_unreachable', 'endpoint'],
    ['push_denied', 'aws_denied', 'key_push'],
    ['tunnel_refused', 'capacity', 'tunnel'],
    ['tunnel_denied', 'aws_denied', 'tunnel'],
    ['target_down', 'host_unreachable', 'tunnel'],
    ['host_key_changed', 'host_key_mismatch', 'host_key'],
    ['login_refused', 'login_refused', 'login'],
  ];

  describe.each(['first dial', 'way known'] as const)('%s', (when) => {
    it.each(table)('%s → %s at %s', async (fault, code, step) => {
      const driver = rig.driver();
      if (when === 'way known') {
        const { session } = await open(driver);
        session.close();
        await rig.noTunnels();
      }
      await rig.fault(fault);
      const error = await refusal(open(driver));
      expect(error).toMatchObject({ code, details: { failedStep: step, remedy: expect.any(String) } });
      await rig.noTunnels();
      await rig.clearFaults();
      await open(driver);
    });
  });

  it.each<[FaultName, string]>([
    ['console_empty', 'empty'],
    ['console_partial', 'partial'],
    ['console_conflict', 'in conflict'],
  ])('%s → host_key_mismatch with the reason, while there is no pin', async (fault, reason) => {
    await rig.fault(fault);
    const pins = createPins();
    const error = await refusal(open(rig.driver({ pins })));
    expect(error).toMatchObject({
      code: 'host_key_mismatch',
      details: { failedStep: 'host_key', remedy: expect.any(String) },
    });
    expect(error.message).toContain(reason);
    expect(pins.stored.size).toBe(0);
    await rig.noTunnels();
  });

  it('says which state the instance is in', async () => {
    await rig.fault('instance_stopped');
    expect((await refusal(open(rig.driver()))).message).toContain('is stopped');
  });

  it('says what the host showed and what was pinned', async () => {
    await rig.fault('host_key_changed');
    expect((await refusal(open(rig.driver()))).message.match(/SHA256:/g)?.length).toBeGreaterThanOrEqual(2);
  });

  it('names the action and resource of a denied push', async () => {
    await rig.fault('push_denied');
    const error = await refusal(open(rig.driver()));
    expect(error.message).toMatch(/ec2-instance-connect:SendSSHPublicKey on arn:aws:ec2:.*instance\/i-/);
    expect(error.message).not.toContain('user/lab');
  });

  it('explains a refused login, after a second push', async () => {
    await rig.fault('login_refused');
    const error = await refusal(open(rig.driver()));
    expect(error.details.remedy).toMatch(/user ec2-user.*ec2-instance-connect.*clock/);
    expect((await rig.counters()).instances[rig.instanceId(0)]).toMatchObject({ pushes: 2 });
  });

  it('tells which step hangs', async () => {
    await rig.fault('banner_hang');
    const { opening, trace, abort } = begin(rig.driver());
    await waitUntil('the banner is waited for', () => trace.steps.some(({ name }) => name === 'banner'));
    await waitUntil('the push is done', () => trace.steps.some(({ name, ok }) => name === 'key_push' && ok));
    expect(trace.current()).toBe('banner');
    const reason = new Error('the budget has ended');
    abort(reason);
    await expect(opening).rejects.toBe(reason);
    await rig.noTunnels();
  });
});

describe('what passes by itself', () => {
  it('rides out a few throttled pushes, and says meanwhile what is being retried', async () => {
    await rig.fault('push_throttled', { times: 2 });
    const { opening, trace } = begin(rig.driver());
    await waitUntil('the throttling is noted', () => trace.retried);
    expect(trace.retried).toMatchObject({ code: 'aws_throttled', details: { failedStep: 'key_push' } });
    await opening;
    expect(trace.retried).toBeNull();
  });

  it.each<[FaultName, string]>([
    ['push_throttled', 'aws_throttled'],
    ['push_unavailable', 'aws_unavailable'],
  ])('%s for ever: the error is at hand as soon as it was first seen', async (fault, code) => {
    await rig.fault(fault);
    const { opening, trace, abort } = begin(rig.driver());
    await waitUntil('the failure is noted', () => trace.retried, 1_500);
    expect(trace.retried).toMatchObject({
      code,
      details: { failedStep: 'key_push', retryable: true, retryAfterS: expect.any(Number) },
    });
    expect(trace.current()).toBe('key_push');
    abort(new Error('enough'));
    await expect(opening).rejects.toThrow('enough');
    await rig.noTunnels();
  });

  it('gives up an unavailable push by itself, by name', async () => {
    await rig.fault('push_unavailable');
    expect(await refusal(open(rig.driver()))).toMatchObject({
      code: 'aws_unavailable',
      details: { failedStep: 'key_push' },
    });
    await rig.noTunnels();
  });

  it('pushes and logs in once more after a refused login', async () => {
    await rig.fault('login_refused', { times: 1 });
    const { trace } = await open(rig.driver());
    expect(trace.steps.filter(({ name }) => name === 'login').map(({ ok }) => ok)).toEqual([false, true]);
    expect(trace.retried).toBeNull();
  });

  it('opens a second tunnel when the first was cut before its first byte', async () => {
    await rig.fault('banner_hang', { times: 1 });
    await rig.fault('tunnel_cut_after_ms', { times: 1, value: 50 });
    await open(rig.driver());
    expect((await rig.counters()).tunnels.opened).toBe(2);
  });

  it('but not a third', async () => {
    await rig.fault('banner_hang');
    await rig.fault('tunnel_cut_after_ms', { value: 50 });
    expect(await refusal(open(rig.driver()))).toMatchObject({
      code: 'host_unreachable',
      details: { failedStep: 'tunnel' },
    });
    expect((await rig.counters()).tunnels.opened).toBe(2);
  });

  it.each([-90, 90])("signs with AWS's clock when ours is %d s off", async (seconds) => {
    await rig.fault('clock_skew_s', { value: seconds });
    const fresh = createAws({ log: { warn: () => {} } });
    await open(rig.driver({ aws: fresh }));
    fresh.close();
  });
});

describe('a place among the connections of an endpoint', () => {
  it('is taken once, before the key is pushed, however often it is dialled', async () => {
    await rig.fault('login_refused', { times: 1 });
    const taken: string[] = [];
    let pushed = false;
    const trace = new ConnectTrace();
    const session = await rig.driver().open(rig.workspace(), {
      signal: AbortSignal.timeout(10_000),
      trace,
      reserve: async (resource) => {
        taken.push(resource);
        pushed = trace.steps.some(({ name }) => name === 'key_push');
      },
    });
    sessions.push(session);
    expect(taken).toEqual([expect.stringMatching(/^eice-/)]);
    expect(pushed).toBe(false);
    expect(trace.steps.filter(({ name }) => name === 'key_push')).toHaveLength(2);
  });

  it('that never comes ends with the reason of the abort, and nothing was pushed', async () => {
    const reason = new Error('no place in time');
    const controller = new AbortController();
    let asked = false;
    const opening = rig.driver().open(rig.workspace(), {
      signal: controller.signal,
      trace: new ConnectTrace(),
      reserve: () => {
        asked = true;
        return new Promise(() => {});
      },
    });
    opening.catch(() => {});
    await waitUntil('a place is asked for', () => asked);
    controller.abort(reason);
    await expect(opening).rejects.toBe(reason);
    expect((await rig.counters()).api.SendSSHPublicKey).toBeUndefined();
  });
});

describe('aborting', () => {
  it.each(['instance', 'key_push', 'tunnel', 'banner', 'login'] as const)(
    'during step %s rejects with the reason and leaves nothing open',
    async (step) => {
      await rig.fault(step === 'banner' ? 'banner_hang' : 'latency_ms', { value: 100 });
      const reason = new Error('the caller left');
      const { opening, trace, abort } = begin(rig.driver());
      await waitUntil(`step ${step} has begun`, () => trace.steps.some(({ name, ok }) => name === step && ok === null));
      abort(reason);
      await expect(within('the opening ends', opening, 1_000)).rejects.toBe(reason);
      expect(trace.steps.every(({ ok }) => ok !== null)).toBe(true);
      await rig.noTunnels();
    },
  );

  it.each(['first dial', 'way known'])('at any moment leaves nothing open: %s', async (when) => {
    const driver = rig.driver();
    if (when === 'way known') await open(driver);
    const reason = new Error('the caller left');
    for (let afterMs = 0; afterMs < 40; afterMs += 1) {
      const { opening, abort } = begin(driver);
      const timer = setTimeout(() => abort(reason), afterMs);
      const session = await opening.catch((error: unknown) => {
        expect(error).toBe(reason);
        return null;
      });
      clearTimeout(timer);
      session?.close();
    }
    for (const session of sessions.splice(0)) session.close();
    await rig.noTunnels();
  });

  it('before the start dials nothing', async () => {
    const reason = new Error('too late');
    await expect(open(rig.driver(), rig.workspace(), AbortSignal.abort(reason))).rejects.toBe(reason);
    // What the test before had sent when its callers left, a listing or a key, may still come in. A dial of this driver,
    // which knows no way yet, begins with the instance.
    const { api } = await rig.counters();
    expect(api).not.toHaveProperty('DescribeInstances');
  });

  it('one of two that look up together does not spoil it for the other', async () => {
    await rig.fault('latency_ms', { value: 100 });
    const driver = rig.driver();
    const controller = new AbortController();
    const first = open(driver, rig.workspace(), controller.signal);
    const second = open(driver);
    controller.abort(new Error('the caller left'));
    await expect(first).rejects.toThrow('the caller left');
    await second;
  });
});

describe('the tag of the org', () => {
  it('must be on the instance', async () => {
    await open(rig.driver({ orgTag: 'Org' }));
    for (const [who, orgTag] of [
      [rig.workspace(1), 'Org'],
      [{ ...rig.workspace(0), orgId: 'org-b' }, 'Org'],
      [rig.workspace(0), 'org'],
    ] as const) {
      const error = await refusal(open(rig.driver({ orgTag }), who));
      expect(error).toMatchObject({ code: 'host_unreachable', details: { failedStep: 'instance' } });
      expect(error.message).toContain('not tagged');
    }
    expect((await rig.counters()).tunnels.opened).toBe(1);
  });

  it('is read before a tunnel opens, also where the way is known', async () => {
    const tags = new Map([['Org', ORG]]);
    const changing: Aws = {
      ...rig.aws,
      describeInstance: async (...asked) => {
        const instance = await rig.aws.describeInstance(...asked);
        return instance === null ? null : { ...instance, tags: new Map(tags) };
      },
    };
    const driver = rig.driver({ aws: changing, orgTag: 'Org' });
    await open(driver);
    tags.set('Org', 'org-b');
    await refusal(open(driver));
    const { tunnels, api } = await rig.counters();
    expect([tunnels.opened, api.SendSSHPublicKey]).toEqual([1, 1]);
  });
});

describe('a way that has changed', () => {
  it('lets the tunnel open, but nobody logs in before the reading has confirmed it', async () => {
    let answer: (instance: null) => void = () => {};
    let dials = 0;
    const slow: Aws = {
      ...rig.aws,
      describeInstance: (...asked) => {
        dials += 1;
        return dials === 1
          ? rig.aws.describeInstance(...asked)
          : new Promise((resolve) => {
              answer = resolve;
            });
      },
    };
    const driver = rig.driver({ aws: slow });
    await open(driver);
    const { opening, trace } = begin(driver);
    await waitUntil('the host is known and the key is pushed', () =>
      ['key_push', 'host_key'].every((step) => trace.steps.some(({ name, ok }) => name === step && ok)),
    );
    expect(trace.steps.some(({ name }) => name === 'login')).toBe(false);
    answer(null);
    expect(await refusal(opening)).toMatchObject({ code: 'host_unreachable', details: { failedStep: 'instance' } });
    expect((await rig.counters()).instances[rig.instanceId(0)]).toMatchObject({ pushes: 2, logins: 1 });
  });

  it('is taken anew when the address of the instance is another', async () => {
    let shown = 1;
    const moving: Aws = {
      ...rig.aws,
      // Instance 0 shows the address of another at first, which does not take its key.
      describeInstance: async (region, instanceId, call) => {
        const instance = await rig.aws.describeInstance(region, instanceId, call);
        const address = rig.lab.instances[shown]?.privateIp ?? null;
        return instance === null ? null : { ...instance, privateIp: address };
      },
    };
    const pins = createPins();
    const driver = rig.driver({ aws: moving, pins });
    shown = 0;
    const { session } = await open(driver);
    session.close();
    await rig.noTunnels();
    // The address that is known now belongs to somebody else; the reading says so before anybody logs in.
    shown = 1;
    expect(await refusal(open(driver))).toMatchObject({ code: 'host_key_mismatch' });
    shown = 0;
    await open(driver);
  });
});

describe('addresses', () => {
  it.each(['127.0.0.1', '169.254.169.254', '::ffff:127.0.0.1', 'fd00:ec2::254', '224.0.0.1', 'localhost'])(
    'never dials %s without a lab',
    async (address) => {
      const lying: Aws = {
        ...rig.aws,
        describeInstance: async (...asked) => {
          const instance = await rig.aws.describeInstance(...asked);
          return instance === null ? null : { ...instance, publicIp: address, privateIp: address };
        },
      };
      for (const route of ['direct', 'endpoint'] as const) {
        const error = await refusal(open(rig.driver({ aws: lying, lab: null, route })));
        expect(error).toMatchObject({ code: 'host_unreachable', details: { failedStep: 'instance' } });
        expect(error.message).toContain('none that may be dialled');
      }
    },
  );
});
