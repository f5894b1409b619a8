import { describe, expect, it } from 'vitest';
import { type Evidence, explain, explainHealth } from '../../src/diagnose/explain.ts';
import { type ErrorCode, SallyportError, STEPS, type Step } from '../../src/errors.ts';

const evidence = (change: Partial<Evidence> = {}): Evidence => ({
  workspace: {
    id: 'ws-1',
    orgId: 'org-a',
    name: 'one',
    tier: 3,
    labels: {},
    target: { driver: 'ec2', instanceId: 'i-0123', region: 'eu-central-1', osUser: 'ec2-user', route: null },
  },
  instance: { id: 'i-0123', state: 'running' },
  health: null,
  clockOffsetMs: 0,
  consoleText: null,
  ...change,
});

const failure = (code: ErrorCode, message: string, details: { remedy?: string; timeoutS?: number } = {}) =>
  new SallyportError(code, message, details);

describe('the words of a diagnosis', () => {
  it.each(STEPS)('a hang at %s has a cause with its time, and a remedy', (step: Step) => {
    const { cause, remedy } = explain(failure('connect_timeout', 'hung', { timeoutS: 20 }), step, evidence());
    expect(cause).toMatch(/, for 20 s$/);
    expect(remedy.length).toBeGreaterThan(20);
  });

  it('a stopped instance has AWS’s reason and the command that starts it', () => {
    const stopped = { id: 'i-0123', state: 'stopped', state_reason: 'User initiated (2026-11-20 03:00:00 GMT)' };
    expect(
      explain(
        failure('instance_not_running', 'instance i-0123 is stopped, not running'),
        'instance',
        evidence({ instance: stopped }),
      ),
    ).toEqual({
      cause: 'instance i-0123 is stopped, not running (AWS says: User initiated (2026-11-20 03:00:00 GMT))',
      remedy: 'start it: aws ec2 start-instances --region eu-central-1 --instance-ids i-0123',
    });
  });

  it('an instance that is going down cannot be started yet', () => {
    const { remedy } = explain(
      failure('instance_not_running', 'instance i-0123 is stopping, not running', { remedy: 'wait' }),
      'instance',
      evidence({ instance: { state: 'stopping' } }),
    );
    expect(remedy).toBe('wait');
  });

  it('an error that knows its remedy keeps it', () => {
    const denied = failure('aws_denied', 'AWS denied x on arn:y', { remedy: 'allow x on arn:y' });
    expect(explain(denied, 'key_push', evidence())).toEqual({
      cause: 'AWS denied x on arn:y',
      remedy: 'allow x on arn:y',
    });
  });

  it.each([
    [400_000, '400 s slow'],
    [-61_000, '61 s fast'],
  ])('a clock that is %i ms off is named with its seconds', (clockOffsetMs, said) => {
    const { cause } = explain(failure('aws_denied', 'refused'), 'tunnel', evidence({ clockOffsetMs }));
    expect(cause).toBe(`refused; the gateway's clock is ${said}`);
  });

  it('a clock that is right is not mentioned', () => {
    expect(explain(failure('aws_denied', 'refused'), 'tunnel', evidence({ clockOffsetMs: 900 })).cause).toBe('refused');
  });

  it.each([
    ['[ 12.3] Out of memory: Killed process 812 (sshd)', 'ran out of memory'],
    ['[ 12.3] Kernel panic - not syncing: VFS', 'kernel panicked'],
    ['systemd[1]: Failed to start sshd.service - OpenSSH server daemon.', 'sshd could not start'],
    ['write error: No space left on device', 'disk is full'],
    ['You are in emergency mode. After logging in', 'emergency mode'],
  ])('the console line %j helps where the machine is the suspect', (line, meaning) => {
    const consoleText = `boot\n${line}\nlogin: `;
    const hung = failure('connect_timeout', 'hung', { timeoutS: 20 });
    expect(explain(hung, 'banner', evidence({ consoleText })).remedy).toMatch(
      new RegExp(`The console says that .*${meaning}`),
    );
    expect(explain(failure('aws_denied', 'x', { remedy: 'y' }), 'key_push', evidence({ consoleText })).remedy).toBe(
      'y',
    );
  });

  it('checks that fail are the cause, and what failed after them is told too', () => {
    const health = { ok: false, detail: 'instance check impaired, system check ok', durationMs: 3 };
    const alone = explainHealth(health, null, evidence());
    expect(alone.cause).toContain('instance check impaired');
    expect(alone.remedy).toMatch(/reboot.*rescue/);
    const both = explainHealth(health, { cause: 'sshd hangs', remedy: 'wait' }, evidence());
    expect(both.cause).toMatch(/impaired.*; sshd hangs$/);
  });

  it('a broken machine below the instance is moved by a stop and a start', () => {
    const health = { ok: false, detail: 'system check impaired', durationMs: 3 };
    const { remedy } = explainHealth(health, null, evidence({ instance: { system_status: 'impaired' } }));
    expect(remedy).toMatch(/stop and start/);
  });
});

describe('a tunnel that reaches nobody', () => {
  it('has the security groups to look at', () => {
    const instance = { id: 'i-0123', security_group_ids: ['sg-1', 'sg-2'] };
    const { remedy } = explain(failure('host_unreachable', 'x', { remedy: 'y' }), 'tunnel', evidence({ instance }));
    expect(remedy).toBe('y. Security groups of the instance: sg-1, sg-2');
  });

  it('is not the fault of the machine when AWS denies it', () => {
    const consoleText = 'Out of memory: Killed process 1';
    const { remedy } = explain(failure('aws_denied', 'x', { remedy: 'y' }), 'tunnel', evidence({ consoleText }));
    expect(remedy).toBe('y');
  });
});
