/** The tables of migrations/ as kysely sees them. JSON goes in as text that was made storable (storable.ts). */
import type { ColumnType, Generated } from 'kysely';
import type { CommandRule, Scope } from '../access/access.ts';
import type { AuditStatus } from '../outcome.ts';

type Json<T> = ColumnType<T, string, string>;
type NullableJson<T> = ColumnType<T | null, string | null | undefined, string | null>;

export interface Schema {
  orgs: OrgTable;
  workspaces: WorkspaceTable;
  tokens: TokenTable;
  activity_logs: ActivityTable;
  host_keys: HostKeyTable;
  rescues: RescueTable;
  frozen_people: FrozenPersonTable;
  exec_shares: { replica: string; held: Json<Record<string, number>> };
}

interface OrgTable {
  id: string;
  name: string;
  frozen: Generated<boolean>;
}

export interface WorkspaceTable {
  id: string;
  org_id: string;
  name: string;
  tier: number;
  labels: Json<Record<string, string>>;
  driver: string;
  instance_id: string | null;
  region: string | null;
  os_user: string;
  host: string | null;
  port: number | null;
  container: string | null;
  route: string | null;
  updated_at: Generated<Date>;
  deleted_at: Generated<Date | null>;
}

interface TokenTable {
  id: string;
  org_id: string;
  workspace_id: string | null;
  kind: 'org' | 'workspace';
  name: string;
  scopes: Json<Scope[]>;
  allow: NullableJson<CommandRule[]>;
  created_at: Date;
  expires_at: Date;
  revoked_at: Date | null;
  created_by: string;
  /** bigint: text in JavaScript. */
  seq: ColumnType<string, never, never>;
}

export interface ActivityTable {
  id: string;
  org_id: string;
  workspace_id: string | null;
  activity_type: string;
  source_id: Generated<string | null>;
  target_id: string | null;
  method: string;
  summary: string;
  request_body: NullableJson<Record<string, unknown>>;
  response_body: NullableJson<Record<string, unknown>>;
  tool_trace: NullableJson<unknown>;
  duration_ms: Generated<number | null>;
  status: AuditStatus;
  error_detail: Generated<string | null>;
  actor: string;
  request_id: string;
  replica: string;
  created_at: Generated<Date>;
  finished_at: Generated<Date | null>;
  seq: ColumnType<string, never, never>;
}

interface RescueTable {
  id: string;
  org_id: string;
  workspace_id: string;
  actor: string;
  diagnosis: Json<Record<string, unknown>>;
  sections: Json<unknown[]>;
  created_at: Date;
  seq: ColumnType<string, never, never>;
}

interface FrozenPersonTable {
  org_id: string;
  sub: string;
  frozen_at: Generated<Date>;
}

interface HostKeyTable {
  region: string;
  instance_id: string;
  type: string;
  blob: string;
  source: 'console' | 'first-use' | 'admin';
}
