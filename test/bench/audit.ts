/**
 * Row 10: what the audit row costs.
 *
 * Nobody can switch the audit off, so there is no exec without it to compare with. Measured is the log itself on the same
 * durable PostgreSQL: an exec waits for the insert (while its channel opens, so the insert is the most that it can cost its
 * caller), not for the update. Beside it the exec of row 1, and how many rows a second go through with a hundred callers.
 */
import type { AuditOps } from './support/audit-worker.ts';
import { interleave } from './support/interleave.ts';
import { perSecond } from './support/load.ts';
import { startHttpCaller } from './support/peers.ts';
import { atLeast, atMost, type RowResult, ratio, seriesOf } from './support/report.ts';
import { median } from './support/stats.ts';
import type { World } from './support/world.ts';

const CALLERS = 100;

export async function auditCost(world: World): Promise<RowResult> {
  const { quick, signal } = world;
  await world.sshd();
  const gateway = await world.gateway();
  const http = await startHttpCaller(world);
  const audit = await world.worker<AuditOps>('audit-worker.ts');
  await audit.ask('open', { url: await world.newDatabase() });
  try {
    const how = { callers: CALLERS, forMs: quick ? 600 : 3_000 };
    const target = gateway.exec('real', ['/bin/true']);
    await http.ask('load', { ...target, callers: 4, forMs: how.forMs });
    const times = await interleave(
      [
        { name: 'gateway, warm exec', run: () => http.ask('once', target) },
        { name: 'insert committed', run: async () => (await audit.ask('once', {})).openMs },
        { name: 'insert and update, both awaited', run: async () => (await audit.ask('once', {})).cycleMs },
      ],
      { rounds: quick ? 60 : 300, warmUps: quick ? 20 : 50, signal },
    );
    const rates = await interleave(
      [
        { name: 'rows opened', run: async () => perSecond(await audit.ask('load', { ...how, finishes: false })) },
        {
          name: 'rows opened and finished',
          run: async () => perSecond(await audit.ask('load', { ...how, finishes: true })),
        },
      ],
      { rounds: quick ? 2 : 4, warmUps: 1, signal },
    );
    const series = [...seriesOf(times, 'ms'), ...seriesOf(rates, 'rows/s')];
    return {
      row: 10,
      title: `the audit row; rates with ${CALLERS} callers`,
      series,
      ratios: [
        {
          what: 'insert / warm exec (the most a caller can wait for it)',
          value: ratio(series, 'insert committed', 'gateway, warm exec'),
          goal: atMost(0.15),
        },
        {
          what: 'insert and update / warm exec (were both awaited)',
          value: ratio(series, 'insert and update, both awaited', 'gateway, warm exec'),
          goal: null,
        },
        { what: 'rows opened in a second', value: median(rates.get('rows opened') ?? []), goal: atLeast(20_000) },
      ],
      notes: ['no exec goes without its row, so the log itself is measured, not the difference'],
    };
  } finally {
    await audit.ask('close', {});
  }
}
