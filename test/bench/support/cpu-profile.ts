/** A CPU profile of V8 (`node --cpu-prof`) → how much of a time each part of a program had. */

export interface CpuProfile {
  nodes: readonly ProfileNode[];
  /** µs of the monotonic clock, that of process.hrtime. */
  startTime: number;
  /** By node id, one for each tick. */
  samples: readonly number[];
  /** µs before each sample. */
  timeDeltas: readonly number[];
}

interface ProfileNode {
  id: number;
  callFrame: { functionName: string; url: string };
  children?: readonly number[];
}

/** The part that a frame belongs to; null: that of whoever called it. */
export type PartOf = (frame: { functionName: string; url: string }) => string | null;

/** Stands in no part: nothing was to be done. */
const IDLE = '(idle)';

/** µs by part, the largest first. What no frame of its stack gives a part to is `rest`. */
export function partsOf(
  { nodes, startTime, samples, timeDeltas }: CpuProfile,
  { partOf, rest, fromUs, toUs }: { partOf: PartOf; rest: string; fromUs: number; toUs: number },
): Map<string, number> {
  const partById = new Map<number, string | null>();
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const todo: [number | undefined, string][] = [[nodes[0]?.id, rest]];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const [id = 0, around] = next;
    const node = byId.get(id);
    if (node === undefined) continue;
    const part = partOf(node.callFrame) ?? around;
    partById.set(id, node.callFrame.functionName === IDLE ? null : part);
    for (const child of node.children ?? []) todo.push([child, part]);
  }
  const sums = new Map<string, number>();
  let atUs = startTime;
  for (const [index, id] of samples.entries()) {
    const tookUs = timeDeltas[index] ?? 0;
    atUs += tookUs;
    const part = partById.get(id);
    if (part === null || part === undefined || atUs < fromUs || atUs > toUs) continue;
    sums.set(part, (sums.get(part) ?? 0) + tookUs);
  }
  return new Map([...sums].sort(([, one], [, other]) => other - one));
}
