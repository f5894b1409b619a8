/** The nouns: org, workspace, tier, and the target that a driver reaches. Shapes only; rules live in access/. */
import { z } from 'zod';

/** Ids of orgs and workspaces: also safe in a URL path, a log line and a label. */
export const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

export const DRIVERS = ['ec2', 'ssh', 'docker', 'local'] as const;
export type DriverName = (typeof DRIVERS)[number];

/** Execs and everything else that logs in need at least this tier. Source: contract, section 2. */
export const EXEC_TIER = 3;

export interface Org {
  id: string;
  name: string;
  frozen: boolean;
}

/** How the host is reached: one arm per driver. No field of it can be set by a tenant. */
export type Target =
  | { driver: 'ec2'; instanceId: string | null; region: string; osUser: string; route: Route | null }
  | { driver: 'ssh'; host: string; port: number; osUser: string }
  | { driver: 'docker'; container: string; osUser: string }
  | { driver: 'local'; osUser: string };

/** `endpoint`: through EC2 Instance Connect Endpoint; `direct`: TCP to the address; `auto`: public address first. */
export const ROUTES = ['endpoint', 'direct', 'auto'] as const;
export type Route = (typeof ROUTES)[number];

export interface Workspace {
  id: string;
  orgId: string;
  name: string;
  tier: number;
  labels: Record<string, string>;
  target: Target;
}

export const labelsSchema = z.record(z.string().min(1).max(63), z.string().max(255));
