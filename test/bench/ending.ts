/**
 * Row 11: from the caller's hang-up, or from the deadline, until nothing of the program is left on the host; for programs
 * that honour TERM, as root and as another user. sshd itself would deliver a signal to the one and never to the other.
 */
import { addSystemUsers } from '../../src/lab/system-users.ts';
import { isRoot } from '../support/requirements.ts';
import type { EndingOps } from './support/ending-worker.ts';
import { type Entrant, interleave } from './support/interleave.ts';
import { atMost, type RowResult, seriesOf } from './support/report.ts';
import type { World } from './support/world.ts';

const OTHER_USER = 'sallyport-bench';
const TIMEOUT_MS = 300;

const PROGRAMS = [
  { name: 'sleep', script: 'echo $$; exec sleep 300', processes: 1 },
  {
    name: 'a tree that honours TERM',
    script: 'trap "exit 3" TERM; sleep 300 & sleep 300 & echo $$; wait',
    processes: 3,
  },
];

export async function ending(world: World): Promise<RowResult> {
  const host = await world.sshd();
  const gateway = await world.gateway();
  const worker = await world.worker<EndingOps>('ending-worker.ts');
  const workspaces = [{ workspace: 'real', user: host.username }];
  const notes: string[] = [];
  if (isRoot()) {
    world.atEnd(await addSystemUsers([{ name: OTHER_USER, shell: '/bin/bash' }]));
    await gateway.addWorkspace('other-user', { port: host.port, osUser: OTHER_USER });
    workspaces.push({ workspace: 'other-user', user: 'another user' });
  } else {
    notes.push('another user: only root can make one');
  }

  const entrants = workspaces.flatMap(({ workspace, user }) =>
    PROGRAMS.flatMap(({ name, script, processes }): Entrant[] => {
      const cmd = ['/bin/sh', '-c', script];
      const soon = gateway.exec(workspace, cmd, { timeout_s: TIMEOUT_MS / 1000 });
      return [
        {
          name: `hang-up, ${name}, ${user}`,
          run: () => worker.ask('hangUp', { target: gateway.exec(workspace, cmd), processes }),
        },
        {
          name: `deadline, ${name}, ${user}`,
          run: () => worker.ask('deadline', { target: soon, processes, timeoutMs: TIMEOUT_MS }),
        },
      ];
    }),
  );
  const { quick, signal } = world;
  const samples = await interleave(entrants, { rounds: quick ? 4 : 20, warmUps: 1, signal });
  const series = seriesOf(samples, 'ms');
  return {
    row: 11,
    title: 'hang-up or deadline to the process tree gone',
    series,
    ratios: series.map(({ name, p95 }) => ({ what: `${name}: p95, ms`, value: p95, goal: atMost(250) })),
    notes,
  };
}
