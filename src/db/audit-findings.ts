/** What a verification finds wrong, each with its place. */

/** Of one org; further ones are counted. */
const FINDINGS_MAX = 1_000;

export interface Finding {
  kind: 'edited' | 'removed' | 'inserted' | 'swapped' | 'forged';
  activity_id: string | null;
  position: number | null;
  detail: string;
}

export interface Findings {
  readonly list: Finding[];
  total(): number;
  add(kind: Finding['kind'], where: { activityId?: string | null; position?: number | null }, detail: string): void;
}

export function createFindings(): Findings {
  const list: Finding[] = [];
  let total = 0;
  return {
    list,
    total: () => total,
    add(kind, { activityId = null, position = null }, detail) {
      total += 1;
      if (list.length < FINDINGS_MAX) list.push({ kind, activity_id: activityId, position, detail });
    },
  };
}
