/**
 * Rounds in which everybody is measured once: whatever the machine does meanwhile hits all alike. Each round has an order of
 * its own, by chance, so that nobody always pays for what the same neighbour left behind.
 */
import { randomInt } from 'node:crypto';

export interface Entrant {
  name: string;
  /** One measurement. Rejects when it was no valid one, and so ends the row. */
  run(): Promise<number>;
  /** In every how many-th round it runs: slow peers need fewer samples. Default: each. */
  every?: number;
}

export interface Rounds {
  rounds: number;
  /** Rounds before, of which nothing is kept. */
  warmUps: number;
  signal: AbortSignal;
}

/** Samples by name of the entrant. */
export async function interleave(
  entrants: readonly Entrant[],
  { rounds, warmUps, signal }: Rounds,
): Promise<Map<string, number[]>> {
  const samples = new Map<string, number[]>(entrants.map(({ name }) => [name, []]));
  for (let round = -warmUps; round < rounds; round += 1) {
    for (const { name, run, every = 1 } of shuffled(entrants)) {
      signal.throwIfAborted();
      if (round % every !== 0) continue;
      const sample = await run();
      if (round >= 0) samples.get(name)?.push(sample);
    }
  }
  return samples;
}

/** Every order is as likely as every other (Fisher and Yates). `below(n)`: a number from 0 to n - 1. */
export function shuffled<T>(items: readonly T[], below: (n: number) => number = randomInt): T[] {
  const left = [...items];
  const order: T[] = [];
  while (left.length > 0) order.push(...left.splice(below(left.length), 1));
  return order;
}
