/** What a row found, as a table for people and as JSON for tools. */
import { type Summary, summarize } from './stats.ts';

export interface Goal {
  bound: 'at most' | 'at least';
  value: number;
  stretch?: number;
}

/** One line: who was measured. */
export type Series = Summary & { name: string; unit: string };

/** One comparison. `goal` null: told for comparison only. */
export interface Ratio {
  what: string;
  value: number;
  goal: Goal | null;
}

export interface RowResult {
  row: number;
  title: string;
  series: Series[];
  ratios: Ratio[];
  /** CPU time, user and system, of each process that takes part, for one exec through the gateway; absent: not measured. */
  cpuUsPerExec?: Readonly<Record<string, number>>;
  /** How it was measured, and what was not: peers that are not installed. */
  notes: string[];
}

export function seriesOf(samples: ReadonlyMap<string, readonly number[]>, unit: string): Series[] {
  return [...samples].map(([name, values]) => ({ name, unit, ...summarize(values) }));
}

/** How often `of` goes into `name`, median by median. */
export function ratio(series: readonly Series[], name: string, of: string): number {
  const medianOf = (wanted: string): number => {
    const found = series.find((one) => one.name === wanted);
    if (found === undefined) throw new Error(`bug: ${wanted} was not measured`);
    return found.median;
  };
  return medianOf(name) / medianOf(of);
}

export const atMost = (value: number, stretch?: number): Goal => ({ bound: 'at most', value, ...given(stretch) });
export const atLeast = (value: number, stretch?: number): Goal => ({ bound: 'at least', value, ...given(stretch) });

function given(stretch: number | undefined): { stretch?: number } {
  return stretch === undefined ? {} : { stretch };
}

/** A word for the reader; nothing depends on it. */
export function markOf({ value, goal }: Ratio): string {
  if (goal === null) return '';
  const reaches = (bound: number): boolean => (goal.bound === 'at most' ? value <= bound : value >= bound);
  if (goal.stretch !== undefined && reaches(goal.stretch)) return 'ok, stretch';
  return reaches(goal.value) ? 'ok' : goal.bound === 'at most' ? 'high' : 'low';
}

export function printRow({ row, title, series, ratios, cpuUsPerExec, notes }: RowResult): void {
  console.log(`\nRow ${row}: ${title}`);
  console.table(
    series.map(({ name, unit, ...figures }) => ({
      name,
      unit,
      median: shown(figures.median),
      p95: shown(figures.p95),
      p99: shown(figures.p99),
      'middle half': `${shown(figures.q1)} … ${shown(figures.q3)}`,
      'min … max': `${shown(figures.min)} … ${shown(figures.max)}`,
      samples: figures.samples,
    })),
  );
  if (ratios.length > 0) console.table(ratios.map(ratioLine));
  if (cpuUsPerExec !== undefined) console.log(`  ${cpuLine(cpuUsPerExec)}`);
  for (const note of notes) console.log(`  ${note}`);
}

function cpuLine(cpuUsPerExec: Readonly<Record<string, number>>): string {
  const parts = Object.entries(cpuUsPerExec).map(([who, us]) => `${who} ${us}`);
  const together = Object.values(cpuUsPerExec).reduce((sum, us) => sum + us, 0);
  return `CPU time of an exec through the gateway, µs: ${parts.join(' · ')} · together ${together}`;
}

function ratioLine(one: Ratio): Record<string, string | number> {
  const { what, value, goal } = one;
  return {
    what,
    value: shown(value),
    goal: goal === null ? '' : `${goal.bound} ${goal.value}`,
    stretch: goal?.stretch ?? '',
    mark: markOf(one),
  };
}

/** Three digits that count. */
function shown(value: number): number {
  if (!Number.isFinite(value)) return value;
  return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3));
}
