/**
 * The shapes of our HTTP API as a client sees them: what an exec asks for, its frames, and the resources of the lists.
 *
 * Types and one pure helper; nothing here talks to anybody. Source: contract, sections 1, 4 and 5.
 */
import type { Outcome } from '../outcome.ts';

export interface ExecBody {
  cmd: readonly string[];
  timeout_s?: number;
  connect_timeout_s?: number;
  stdin?: string | { base64: string };
  env?: Readonly<Record<string, string>>;
  cwd?: string;
  encoding?: 'auto' | 'base64';
  max_output_bytes?: number;
  dry_run?: boolean;
}

export type WireStream = 'stdout' | 'stderr';

export interface WireOutputFrame {
  stream: WireStream;
  data: string;
  /** True: `data` is the gateway's marker that bytes were left out here, not output. */
  truncated: boolean;
  encoding?: 'base64';
}

interface WireEnd {
  exec_id: string;
  duration_ms: number;
  stdout_bytes: number;
  stderr_bytes: number;
  /** Left out of a replay. */
  stdout_sha256?: string;
  stderr_sha256?: string;
  /** Both streams reached end-of-file and every byte was sent. */
  complete: boolean;
  /** Pids still there; null: nobody could look. Absent: nobody had to. */
  survivors?: number[] | null;
  /** This is the stored end of an earlier request with the same idempotency key; no program ran. */
  replayed?: boolean;
}

/** The program's own end. */
export interface WireExitFrame extends WireEnd {
  /** 128+n when a signal killed it. */
  exit_code: number;
  outcome: Outcome;
  signal: string | null;
}

/** The program's own end is not known. */
export interface WireErrorFrame extends Partial<WireEnd> {
  error: string;
  code: string;
  outcome: Outcome;
  timeout_s?: number;
  failed_step?: string;
}

export type WireTerminalFrame = WireExitFrame | WireErrorFrame;
export type WireFrame = WireOutputFrame | WireTerminalFrame;

/** The one document of an exec asked for as `application/json`. */
export interface ExecDocument {
  exec_id: string;
  exit_code: number;
  signal: string | null;
  outcome: Outcome;
  success: boolean;
  stdout: string;
  stderr: string;
  stdout_encoding: 'utf8' | 'base64';
  stderr_encoding: 'utf8' | 'base64';
  stdout_truncated: boolean;
  stderr_truncated: boolean;
  duration_ms: number;
  complete: boolean;
  survivors?: number[] | null;
  replayed?: boolean;
}

/** RFC 9457, with our members. Any may be missing: what stands between client and gateway answers problems too. */
export interface Problem {
  title?: string;
  status?: number;
  detail?: string;
  code?: string;
  error?: string;
  request_id?: string;
  exec_id?: string;
  outcome?: string;
  failed_step?: string;
  retryable?: boolean;
  timeout_s?: number;
  survivors?: number[] | null;
}

export interface Page<Item> {
  items: Item[];
  next: string | null;
}

/** `limit` is the size of one page, at most 500. */
export interface ListQuery {
  limit?: number;
  after?: string;
}

export interface WorkspaceView {
  id: string;
  org_id: string;
  name: string;
  driver: string;
  instance_id?: string | null;
  region?: string | null;
  os_user?: string | null;
  host?: string | null;
  port?: number | null;
  container?: string | null;
  route?: string | null;
  tier: number;
  labels: Record<string, string>;
  status?: string;
}

/** Everything but `name` and `labels` is the admin token's to set. */
export interface WorkspaceBody {
  org_id?: string;
  name?: string;
  driver?: string;
  instance_id?: string;
  region?: string;
  os_user?: string;
  host?: string;
  port?: number;
  container?: string;
  route?: string;
  tier?: number;
  labels?: Record<string, string>;
}

export interface OrgView {
  id: string;
  name: string;
  frozen: boolean;
}

/** Someone known by the `sub` that an OIDC issuer gives them. */
export interface PersonView {
  org_id: string;
  sub: string;
  frozen: boolean;
  /** In lists. */
  frozen_at?: string;
}

export interface TokenBody {
  kind: 'workspace' | 'org';
  workspace_id?: string;
  org_id?: string;
  name: string;
  scopes: readonly string[];
  allow?: readonly (readonly string[])[];
  expires_in_s?: number;
}

export interface TokenView {
  id: string;
  org_id?: string;
  workspace_id?: string | null;
  kind: string;
  name: string;
  scopes: string[];
  allow?: string[][] | null;
  created_at?: string;
  expires_at?: string;
  revoked_at?: string | null;
  created_by?: string;
}

export interface ActivityQuery extends ListQuery {
  type?: string;
  status?: string;
  actor?: string;
  /** ISO times. */
  since?: string;
  until?: string;
}

export type ActivityView = Record<string, unknown> & { id: string };

export interface RunningExecView {
  exec_id: string;
  argv: string[];
  actor: string;
  started_at: string;
  outcome: null;
}

export interface DiagnosisStepView {
  name: string;
  /** null: not reached, or nobody can say. */
  ok: boolean | null;
  duration_ms: number | null;
  error?: string;
  detail?: string;
}

export interface DiagnosisView {
  workspace_id: string;
  ok: boolean;
  first_failure: string | null;
  cause: string | null;
  remedy: string | null;
  steps: DiagnosisStepView[];
  instance: Record<string, unknown> | null;
  console_tail: string | null;
}

export interface ConsoleView {
  workspace_id: string;
  instance_id: string;
  output: string | null;
}

export interface RescueSectionView {
  name: string;
  /** null: nothing of it could be kept; `error` says why. */
  output: string | null;
  command?: string[];
  exit_code?: number | null;
  truncated?: boolean;
  duration_ms: number;
  error?: string;
}

export interface RescueView {
  id: string;
  workspace_id: string;
  actor: string;
  created_at: string;
  diagnosis: Omit<DiagnosisView, 'workspace_id'>;
  sections: RescueSectionView[];
}

export interface HostKeysView {
  workspace_id: string;
  keys: { type: string; fingerprint: string; source: string }[];
}

/** The program's bytes in a frame; none for a truncation marker and for terminal frames. */
export function frameBytes(frame: WireFrame): Buffer {
  if (!('stream' in frame) || frame.truncated) return Buffer.alloc(0);
  return Buffer.from(frame.data, frame.encoding === 'base64' ? 'base64' : 'utf8');
}
