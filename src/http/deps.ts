/** What the HTTP edge needs from the rest of the gateway, given once by the program. */
import type { Tracer } from '@opentelemetry/api';
import type { Logger } from 'pino';
import type { Directory, RateCounter, Registry, TokenStore } from '../access/access.ts';
import type { HashBody } from '../access/body-hash.ts';
import type { SigningKey, Verifier } from '../access/token.ts';
import type { ActivityReader, AuditLog } from '../audit.ts';
import type { OnCall } from '../diagnose/on-call.ts';
import type { PinStore } from '../drivers/host-keys.ts';
import type { CancelExec } from '../exec/cancel.ts';
import type { RunExec } from '../exec/exec.ts';
import type { HostKeyWatch } from '../exec/host-keys.ts';
import type { Room } from '../exec/room.ts';
import type { RunningExecs } from '../exec/running.ts';
import type { Metrics } from './metrics.ts';

export interface HttpDeps {
  verifier: Verifier;
  signingKey: SigningKey;
  hashBody: HashBody;
  directory: Directory;
  tokens: TokenStore;
  registry: Registry;
  audit: AuditLog & ActivityReader;
  exec: RunExec;
  running: RunningExecs;
  /** What is left of the limits on execs at once. */
  room: Room;
  /** On whichever replica it runs. */
  cancel: CancelExec;
  onCall: OnCall;
  /** `look`: sessions of this replica that were opened by replaced keys take nobody any more. */
  hostKeys: HostKeyWatch & { pins: PinStore };
  limits: {
    maxTimeoutS: number;
    outputCapBytes: number;
    maxExecsGateway: number;
  };
  /** Requests per minute and credential; null: no limit. */
  rates: RateCounter | null;
  /** Set: this process serves one org only. */
  processOrgId: string | null;
  /** Express' own setting: whose `X-Forwarded-For` is believed. Used for log lines and the limit on guesses. */
  trustProxy: string | boolean | null;
  ready(): Promise<{ ok: boolean; reasons: string[] }>;
  draining(): boolean;
  metrics: Metrics;
  /** Who records traces, if anybody does. */
  tracer: Tracer;
  /** Of this program. */
  version: string;
  /** Whether metrics are served here, beside everything else. */
  servesMetrics: boolean;
  log: Logger;
}
