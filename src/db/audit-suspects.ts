/** Entries that do not fit where they stand in the chain: which of them were edited, and which only moved. */
import { type ChainedEntry, chainHash } from './audit-chain.ts';
import type { Findings } from './audit-findings.ts';

/** Faulty positions that are tried against each other, with every hash before them: 12 cubed hashes take milliseconds. */
export const SUSPECTS_MAX = 12;

/** A seal whose hash does not follow from what stands before it. */
export interface Suspect {
  position: number;
  stored: string;
  previous: string;
  entry: ChainedEntry;
}

/**
 * What became of the entries that do not fit where they stand: one that fits at another suspect's position, whatever
 * hashes were moved, was moved there from here. What fits nowhere was edited.
 */
export function explain(suspects: readonly Suspect[], findings: Findings): void {
  for (const suspect of suspects) {
    const { position, entry } = suspect;
    const home = homeOf(suspect, suspects);
    // Only what stands before it was changed, and that is a suspect itself.
    if (home === position) continue;
    const where = { activityId: entry.activityId, position };
    if (home === null) findings.add('edited', where, misfit(entry));
    else
      findings.add('swapped', where, `entry ${entry.entryId} was sealed at position ${home} and stands at ${position}`);
  }
}

export function misfit({ entryId, position }: ChainedEntry): string {
  return `entry ${entryId} does not follow from position ${position - 1}: it, or a seal beside it, is not what was sealed`;
}

/** The position at which one of the hashes that are stored was made of this entry. */
function homeOf({ entry }: Suspect, suspects: readonly Suspect[]): number | null {
  const stored = new Set(suspects.map((suspect) => suspect.stored));
  // Also what should have been stored before it.
  const computed = suspects.map((suspect) => chainHash(suspect.previous, suspect.entry));
  for (const { position, previous, entry: there } of suspects) {
    // Rows may have changed their ids, or the rest of what they say.
    for (const entryId of new Set([entry.entryId, there.entryId])) {
      const moved = { ...entry, position, entryId };
      if ([previous, ...stored, ...computed].some((before) => stored.has(chainHash(before, moved)))) return position;
    }
  }
  return null;
}
