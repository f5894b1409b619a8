/** What is sealed of one org, in the order of its chain, with all that somebody else needs to recheck it (audit-chain.ts). */
import type pg from 'pg';
import { rowsOf } from './audit-access.ts';
import { chainStart, utcText } from './audit-chain.ts';

export interface ExportedEntry {
  org_id: string;
  position: number;
  previous_hash: string;
  hash: string;
  entry_id: string;
  activity_id: string;
  kind: string;
  at: string;
  /** The canonical text, byte for byte. */
  body: string;
  /** Null where none was made. */
  checkpoint: { at: string; kid: string; signature: string } | null;
}

export interface ExportOptions {
  orgId: string;
  /** When the entry was appended: from, and before. */
  since: Date | null;
  until: Date | null;
}

type ExportRow = Omit<ExportedEntry, 'position' | 'checkpoint' | 'previous_hash'> & {
  position: string;
  previous_hash: string | null;
  checkpoint_at: string | null;
  kid: string;
  signature: string;
};

/** An entry that is gone is not in it; `sallyport audit verify` names it. */
const EXPORT = `
select s.org_id, s.position, encode(p.hash, 'hex') as previous_hash, encode(s.hash, 'hex') as hash, e.id as entry_id,
  e.activity_id, e.kind, ${utcText('e.at')} as at, e.body,
  ${utcText('c.at')} as checkpoint_at, c.kid, replace(encode(c.signature, 'base64'), E'\\n', '') as signature
from audit_seals s
join audit_entries e on e.id = s.entry_id
left join audit_seals p on p.org_id = s.org_id and p.position = s.position - 1
left join audit_checkpoints c on c.org_id = s.org_id and c.position = s.position
where s.org_id = $1 and ($2::timestamptz is null or e.at >= $2) and ($3::timestamptz is null or e.at < $3)
order by s.position`;

/** Needs a snapshot around it (inSnapshot). */
export async function* exportEntries(client: pg.Client, options: ExportOptions): AsyncGenerator<ExportedEntry> {
  const { orgId, since, until } = options;
  for await (const row of rowsOf<ExportRow>(client, EXPORT, [orgId, since, until])) {
    const { checkpoint_at: at, kid, signature, position, previous_hash, ...entry } = row;
    yield {
      org_id: entry.org_id,
      position: Number(position),
      previous_hash: previous_hash ?? (position === '1' ? chainStart(orgId) : ''),
      hash: entry.hash,
      entry_id: entry.entry_id,
      activity_id: entry.activity_id,
      kind: entry.kind,
      at: entry.at,
      body: entry.body,
      checkpoint: at === null ? null : { at, kid, signature },
    };
  }
}

/** How much is not in an export because it is not sealed yet. */
export async function countUnsealed(client: pg.Client, orgId: string): Promise<number> {
  const { rows } = await client.query('select count(*)::int as entries from audit_unsealed where org_id = $1', [orgId]);
  return rows[0]?.entries;
}
