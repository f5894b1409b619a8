/**
 * Which way to an instance: through an endpoint or straight to an address, and which of each. Pure, but for `dialDirect`.
 *
 * Addresses come from AWS, never from a tenant; they are checked all the same, because one that led to the gateway's own
 * loopback or metadata service would hand out more than a host.
 */
import { BlockList, connect, isIP, type Socket } from 'node:net';
import { SallyportError } from '../errors.ts';
import type { Route } from '../workspace.ts';
import type { Endpoint, Instance } from './aws.ts';

export type Way =
  | { kind: 'endpoint'; endpointId: string; dnsName: string; address: string }
  | { kind: 'direct'; address: string };

export function sameWay(a: Way, b: Way): boolean {
  if (a.kind === 'direct' || b.kind === 'direct') return a.kind === b.kind && a.address === b.address;
  return a.endpointId === b.endpointId && a.dnsName === b.dnsName && a.address === b.address;
}

/** As the AWS CLI: `auto` takes a public IPv4 directly, else an endpoint to the private one, else IPv6 directly. */
export function isDirect(route: Route, instance: Instance): boolean {
  if (route !== 'auto') return route === 'direct';
  return instance.publicIp !== null || instance.privateIp === null;
}

export function directWay(instance: Instance): Way {
  const address = instance.publicIp ?? instance.ipv6 ?? instance.privateIp;
  if (address === null) throw noAddress(instance);
  return { kind: 'direct', address };
}

/** Same subnet, then same zone (traffic across zones is billed), then the smallest id. Throws `host_unreachable`. */
export function endpointWay(instance: Instance, endpoints: readonly Endpoint[]): Way {
  if (instance.privateIp === null && instance.ipv6 === null) throw noAddress(instance);
  const [best] = endpoints
    .filter((endpoint) => endpoint.vpcId === instance.vpcId)
    .flatMap((endpoint) => {
      const address = addressFor(endpoint, instance);
      return address === null || endpoint.dnsName === null ? [] : [{ endpoint, address, dnsName: endpoint.dnsName }];
    })
    .sort(
      (a, b) => distance(a.endpoint, instance) - distance(b.endpoint, instance) || order(a.endpoint.id, b.endpoint.id),
    );
  if (best !== undefined) {
    return { kind: 'endpoint', endpointId: best.endpoint.id, dnsName: best.dnsName, address: best.address };
  }
  throw new SallyportError(
    'host_unreachable',
    `no usable EC2 Instance Connect Endpoint in ${instance.vpcId ?? 'no VPC'}`,
    {
      failedStep: 'endpoint',
      remedy: `create an EC2 Instance Connect Endpoint in the VPC of ${instance.id}, or wait until it is complete; its address type must fit the instance`,
    },
  );
}

function addressFor(endpoint: Endpoint, instance: Instance): string | null {
  const ipv4 = endpoint.ipAddressType === 'ipv6' ? null : instance.privateIp;
  const ipv6 = endpoint.ipAddressType === 'ipv4' ? null : instance.ipv6;
  return ipv4 ?? ipv6;
}

function distance(endpoint: Endpoint, instance: Instance): number {
  if (endpoint.subnetId !== null && endpoint.subnetId === instance.subnetId) return 0;
  return endpoint.zone !== null && endpoint.zone === instance.zone ? 1 : 2;
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function noAddress(instance: Instance): SallyportError {
  return new SallyportError('host_unreachable', `instance ${instance.id} has no address to dial`, {
    failedStep: 'instance',
    remedy: 'check the network interfaces of the instance',
  });
}

/** This host, unspecified, link-local with the metadata services of EC2, multicast, reserved. Covers IPv4 in IPv6. */
function forbiddenAddresses(): BlockList {
  const list = new BlockList();
  list.addSubnet('0.0.0.0', 8, 'ipv4');
  list.addSubnet('127.0.0.0', 8, 'ipv4');
  list.addSubnet('169.254.0.0', 16, 'ipv4');
  list.addSubnet('224.0.0.0', 3, 'ipv4');
  // ::, ::1 and the old way to write IPv4 in IPv6.
  list.addSubnet('::', 96, 'ipv6');
  // NAT64 carries any IPv4 address.
  list.addSubnet('64:ff9b::', 96, 'ipv6');
  list.addSubnet('fe80::', 10, 'ipv6');
  list.addSubnet('ff00::', 8, 'ipv6');
  list.addSubnet('fd00:ec2::', 32, 'ipv6');
  return list;
}

/** Throws `host_unreachable` for an address that no instance can have. */
export function requireDialable(address: string): void {
  const family = isIP(address);
  if (family !== 0 && !forbiddenAddresses().check(address, family === 4 ? 'ipv4' : 'ipv6')) return;
  throw new SallyportError('host_unreachable', 'the address of the instance is none that may be dialled', {
    failedStep: 'instance',
    remedy: 'loopback, link-local, metadata and multicast addresses are never dialled',
  });
}

/** TCP to the address. Rejects with `host_unreachable` at step tunnel, or with the signal's reason. */
export function dialDirect(address: string, port: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    // Before the handshake: without it each exec of a session waits 40 ms for a delayed acknowledgement.
    const socket = connect({ host: address, port, noDelay: true });
    const onAbort = () => {
      socket.destroy();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('connect', () => {
      signal.removeEventListener('abort', onAbort);
      resolve(socket);
    });
    // Stays: an error after the connect belongs to whoever reads, and must not end the process before they do.
    socket.on('error', (error: NodeJS.ErrnoException) => {
      signal.removeEventListener('abort', onAbort);
      reject(
        new SallyportError(
          'host_unreachable',
          `port ${port} of the instance cannot be reached (${error.code ?? 'error'})`,
          {
            failedStep: 'tunnel',
            retryable: true,
            remedy: "the instance's security group must admit the gateway at port 22, and sshd must be running",
            cause: error,
          },
        ),
      );
    });
  });
}
