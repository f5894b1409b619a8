/** A B C, B C A, C A B …: whatever the machine does meanwhile hits all alike, and none always comes after the same other. */

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
    const first = (round + warmUps) % entrants.length;
    for (const { name, run, every = 1 } of [...entrants.slice(first), ...entrants.slice(0, first)]) {
      signal.throwIfAborted();
      if (round % every !== 0) continue;
      const sample = await run();
      if (round >= 0) samples.get(name)?.push(sample);
    }
  }
  return samples;
}
