import { expect, it } from 'vitest';
import { createRunningExecs } from '../../src/exec/running.ts';

const EXEC = { orgId: 'org-1', workspaceId: 'ws-1', jti: 'token-1', sub: 'ann', end: () => {} };

it('an exec that has ended gives its room back before its row is closed, and is waited for until then', async () => {
  const running = createRunningExecs();
  const [one, two] = [running.add({ ...EXEC, execId: 'one' }), running.add({ ...EXEC, execId: 'two' })];
  running.giveRoom('one');
  expect([running.size, running.count('w ws-1'), running.all().length]).toEqual([1, 1, 2]);
  let isIdle = false;
  const idle = running.idle().then(() => {
    isIdle = true;
  });
  two('exited');
  await new Promise(setImmediate);
  expect([running.size, isIdle]).toEqual([0, false]);
  one('exited');
  await idle;
  expect([running.size, running.all()]).toEqual([0, []]);
});

it('who was closed already has no room to give', () => {
  const running = createRunningExecs();
  running.add({ ...EXEC, execId: 'one' })('exited');
  running.giveRoom('one');
  running.add({ ...EXEC, execId: 'two' });
  expect(running.size).toBe(1);
});
