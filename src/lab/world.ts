/**
 * The world that the lab shows: one account, one VPC with two subnets, one instance connect endpoint, the instances with
 * their host keys. Made once and kept in the data folder, so that a restart shows the same ids, addresses and host keys.
 */
import { randomBytes, randomInt } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ssh2 from 'ssh2';

export interface World {
  region: string;
  accountId: string;
  accessKeyId: string;
  secretAccessKey: string;
  vpcId: string;
  securityGroupId: string;
  subnets: [Subnet, Subnet];
  endpoint: { id: string; dnsName: string; fipsDnsName: string; networkInterfaceId: string; createdAt: string };
  instances: InstanceRecord[];
}

export interface Subnet {
  id: string;
  availabilityZone: string;
  availabilityZoneId: string;
}

export interface InstanceRecord {
  id: string;
  privateIp: string;
  subnet: 0 | 1;
  networkInterfaceId: string;
  reservationId: string;
  launchTime: string;
  hostKeys: HostKey[];
}

export interface HostKey {
  type: string;
  /** OpenSSH PEM. */
  privateKey: string;
  /** `type base64`, no comment. */
  publicKey: string;
}

const DEFAULT_REGION = 'us-east-1';
const WORLD_FILE = 'lab.json';
/** Two subnets, and in each the addresses from .10 to .249. */
export const INSTANCES_MAX = 480;

/** Reads the world of this folder, or makes one; adds instances until there are `count`, and never takes one away. */
export function openWorld(dataDir: string, options: { count: number; region: string | null; nowMs: number }): World {
  if (!Number.isInteger(options.count) || options.count < 1 || options.count > INSTANCES_MAX) {
    throw new Error(`the lab takes 1 to ${INSTANCES_MAX} instances, not ${options.count}`);
  }
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const path = join(dataDir, WORLD_FILE);
  const known = readWorld(path);
  if (known !== null && options.region !== null && known.region !== options.region) {
    throw new Error(`the lab in ${dataDir} is in region ${known.region}, not ${options.region}`);
  }
  const world = known ?? newWorld(options.region ?? DEFAULT_REGION, options.nowMs);
  const before = world.instances.length;
  for (let index = before; index < options.count; index++) world.instances.push(newInstance(index, options.nowMs));
  if (known === null || world.instances.length > before) writeWorld(path, world);
  return world;
}

function readWorld(path: string): World | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as World;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new Error(`the lab's file ${path} cannot be read; remove it to start a new lab`, { cause: error });
  }
}

/** Through a second file and a rename, so that a kill leaves the old world or the new one. */
function writeWorld(path: string, world: World): void {
  const partial = `${path}.${process.pid}`;
  writeFileSync(partial, JSON.stringify(world, null, 1), { mode: 0o600, flush: true });
  renameSync(partial, path);
}

function newWorld(region: string, nowMs: number): World {
  const endpointId = newId('eice');
  const dns = randomBytes(4).toString('hex');
  const domain = `ec2-instance-connect-endpoint.${region}.amazonaws.com`;
  return {
    region,
    accountId: String(randomInt(100_000_000_000, 281_474_976_710_655)).slice(0, 12),
    accessKeyId: `AKIA${randomLetters(16)}`,
    secretAccessKey: randomBytes(30).toString('base64'),
    vpcId: newId('vpc'),
    securityGroupId: newId('sg'),
    subnets: [
      { id: newId('subnet'), availabilityZone: `${region}a`, availabilityZoneId: `${shortRegion(region)}-az4` },
      { id: newId('subnet'), availabilityZone: `${region}b`, availabilityZoneId: `${shortRegion(region)}-az6` },
    ],
    endpoint: {
      id: endpointId,
      dnsName: `${endpointId}.${dns}.${domain}`,
      fipsDnsName: `${endpointId}.${dns}.fips.${domain}`,
      networkInterfaceId: newId('eni'),
      createdAt: new Date(nowMs).toISOString(),
    },
    instances: [],
  };
}

function newInstance(index: number, nowMs: number): InstanceRecord {
  const subnet = index % 2 === 0 ? 0 : 1;
  return {
    id: newId('i'),
    privateIp: `10.0.${subnet + 1}.${10 + Math.floor(index / 2)}`,
    subnet,
    networkInterfaceId: newId('eni'),
    reservationId: newId('r'),
    launchTime: new Date(Math.floor(nowMs / 1000) * 1000).toISOString(),
    hostKeys: [newHostKey('ed25519'), newHostKey('ecdsa')],
  };
}

/** One ed25519 pair in 256 comes out of ssh2 without the zero byte that its public key begins with: thrown away. */
export function newHostKey(kind: 'ed25519' | 'ecdsa'): HostKey {
  const pair =
    kind === 'ecdsa'
      ? ssh2.utils.generateKeyPairSync('ecdsa', { bits: 256 })
      : ssh2.utils.generateKeyPairSync('ed25519');
  if (ssh2.utils.parseKey(pair.public) instanceof Error) return newHostKey(kind);
  const [type = '', base64 = ''] = pair.public.split(' ');
  return { type, privateKey: pair.private, publicKey: `${type} ${base64}` };
}

/** us-east-1 → use1, ap-southeast-2 → apse2. */
function shortRegion(region: string): string {
  return region.replace(/north|south|east|west|central/g, (word) => word.charAt(0)).replaceAll('-', '');
}

function newId(prefix: string): string {
  return `${prefix}-0${randomBytes(8).toString('hex')}`;
}

function randomLetters(count: number): string {
  return Array.from({ length: count }, () => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.charAt(randomInt(32))).join('');
}
