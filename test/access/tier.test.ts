import { describe, expect, test } from 'vitest';
import { requireInstance, requireTier } from '../../src/access/tier.ts';
import type { Target, Workspace } from '../../src/workspace.ts';

const EC2: Target = { driver: 'ec2', instanceId: 'i-0abc', region: 'eu-west-1', osUser: 'ubuntu', route: null };
const aWorkspace = (tier: number, target: Target): Workspace => ({
  id: 'ws-1',
  orgId: 'acme',
  name: 'one',
  tier,
  labels: {},
  target,
});

describe('requireTier', () => {
  test.each([3, 4, 99])('tier %i passes', (tier) => {
    expect(() => requireTier(aWorkspace(tier, EC2), 'exec')).not.toThrow();
  });

  test.each([2, 0, -1, 2.999, Number.NaN])('tier %d is refused, whatever is asked for', (tier) => {
    expect(() => requireTier(aWorkspace(tier, EC2), 'the terminal')).toThrow(
      expect.objectContaining({ code: 'exec_tier_forbidden', message: expect.stringContaining('the terminal needs') }),
    );
  });
});

describe('requireInstance', () => {
  test('refuses driver ec2 without an instance id', () => {
    expect(() => requireInstance(aWorkspace(3, { ...EC2, instanceId: null }))).toThrow(
      expect.objectContaining({ code: 'no_instance' }),
    );
  });

  test('passes with one, and for every other driver', () => {
    expect(() => requireInstance(aWorkspace(3, EC2))).not.toThrow();
    expect(() => requireInstance(aWorkspace(3, { driver: 'local', osUser: 'ubuntu' }))).not.toThrow();
  });
});
