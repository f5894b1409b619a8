/** Samples → the figures of one line of a table. */

export interface Summary {
  samples: number;
  median: number;
  p95: number;
  p99: number;
  min: number;
  max: number;
  /** First and third quartile. */
  q1: number;
  q3: number;
}

export function summarize(samples: readonly number[]): Summary {
  if (samples.length === 0) throw new Error('bug: nothing was measured');
  const sorted = [...samples].sort((one, other) => one - other);
  const at = (part: number): number => quantile(sorted, part);
  return {
    samples: sorted.length,
    median: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    min: at(0),
    max: at(1),
    q1: at(0.25),
    q3: at(0.75),
  };
}

export function median(samples: readonly number[]): number {
  return summarize(samples).median;
}

/** Between two samples it interpolates, as R and NumPy do by default. */
function quantile(sorted: readonly number[], part: number): number {
  const place = (sorted.length - 1) * part;
  const [below, above] = [sorted[Math.floor(place)] ?? Number.NaN, sorted[Math.ceil(place)] ?? Number.NaN];
  return below + (above - below) * (place - Math.floor(place));
}
