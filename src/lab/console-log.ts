/**
 * The console log of an instance, as a first boot with cloud-init leaves it: fingerprints through `logger -s`, the keys
 * plain between their markers, ordinary boot noise around. Source: cloud-init tools/write-ssh-key-fingerprints.
 */
import { createHash } from 'node:crypto';
import type { HostKey } from './world.ts';

export interface ConsoleInput {
  privateIp: string;
  launchTime: string;
  hostKeys: readonly HostKey[];
}

const KEYS_BEGIN = '-----BEGIN SSH HOST KEY KEYS-----';
const KEYS_END = '-----END SSH HOST KEY KEYS-----';

export function bootLog(input: ConsoleInput): string {
  const host = hostName(input.privateIp);
  return lines([
    ...kernelNoise(),
    ...networkNoise(input),
    ...fingerprintBlock(input.hostKeys, host, input.launchTime),
    ...keyBlock(input.hostKeys, host),
    ...lateNoise(host, input.launchTime),
  ]);
}

/** The log as read while the instance still prints: cut inside the last key line. */
export function partialLog(input: ConsoleInput): string {
  const whole = bootLog(input);
  return whole.slice(0, whole.indexOf(KEYS_END) - 60);
}

/** A log with a second block that names other keys of the same types. */
export function conflictingLog(input: ConsoleInput, otherKeys: readonly HostKey[]): string {
  return bootLog(input) + lines(keyBlock(otherKeys, hostName(input.privateIp)));
}

function kernelNoise(): string[] {
  return [
    '[    0.000000] Linux version 6.1.115-126.197.amzn2023.x86_64 (mockbuild@ip-10-0-0-1) (gcc 11.4.1) #1 SMP PREEMPT_DYNAMIC',
    '[    0.000000] Command line: BOOT_IMAGE=(hd0,gpt1)/boot/vmlinuz root=UUID=5b3 ro console=tty0 console=ttyS0,115200n8 nvme_core.io_timeout=4294967295',
    '[    1.284113] nvme nvme0: pci function 0000:00:04.0',
    '[    2.910244] systemd[1]: Detected virtualization amazon.',
    '\u001b[0;32m  OK  \u001b[0m] Started \u001b[0;1;39msystemd-journald.service\u001b[0m - Journal Service.',
  ];
}

/** The table of user keys names `ssh-rsa` too: a reader that looks for the type anywhere takes the wrong key. */
function networkNoise(input: ConsoleInput): string[] {
  const userKey = fingerprint(Buffer.from(`user key of ${input.privateIp}`));
  return [
    `[   11.507731] cloud-init[1402]: Cloud-init v. 22.2.2 running 'init' at ${input.launchTime}. Up 11.41 seconds.`,
    'ci-info: ++++++++++++++++++++++++++++++++++++++Net device info+++++++++++++++++++++++++++++++++++++++',
    `ci-info: |  ens5  | True | ${input.privateIp.padEnd(15)} | 255.255.255.0 | global | 0a:ff:d1:4e:27:01 |`,
    'ci-info: ++++++++++++++++++++Authorized keys from /home/ec2-user/.ssh/authorized_keys for user ec2-user++++++++++++++++++++',
    'ci-info: | Keytype |                Fingerprint (sha256)                | Options | Comment |',
    `ci-info: | ssh-rsa | ${userKey} |    -    | admin-1 |`,
    '[   13.001207] cloud-init[1455]: Generating public/private ed25519 key pair.',
    '[   13.001209] cloud-init[1455]: Your identification has been saved in /etc/ssh/ssh_host_ed25519_key',
  ];
}

function fingerprintBlock(keys: readonly HostKey[], host: string, launchTime: string): string[] {
  const prefix = `<14>${syslogTime(launchTime)} cloud-init: `;
  const rows = keys.map((key) => {
    const [type = '', base64 = ''] = key.publicKey.split(' ');
    return `256 ${fingerprint(Buffer.from(base64, 'base64'))} root@${host} (${type.startsWith('ecdsa') ? 'ECDSA' : 'ED25519'})`;
  });
  const frame = '#############################################################';
  const block = [
    frame,
    '-----BEGIN SSH HOST KEY FINGERPRINTS-----',
    ...rows,
    '-----END SSH HOST KEY FINGERPRINTS-----',
    frame,
  ];
  return block.map((row) => prefix + row);
}

function keyBlock(keys: readonly HostKey[], host: string): string[] {
  return [KEYS_BEGIN, ...keys.map((key) => `${key.publicKey} root@${host}`), KEYS_END];
}

function lateNoise(host: string, launchTime: string): string[] {
  return [
    `[   14.771902] cloud-init[1502]: Cloud-init v. 22.2.2 finished at ${launchTime}. Datasource DataSourceEc2.  Up 14.76 seconds`,
    '',
    'Amazon Linux 2023.6.20241121',
    'Kernel 6.1.115-126.197.amzn2023.x86_64 on an x86_64 (-)',
    '',
    `${host} login: `,
  ];
}

function fingerprint(wire: Buffer): string {
  return `SHA256:${createHash('sha256').update(wire).digest('base64').replace(/=+$/, '')}`;
}

function hostName(privateIp: string): string {
  return `ip-${privateIp.replaceAll('.', '-')}.ec2.internal`;
}

function syslogTime(iso: string): string {
  const [, month = '', day = '', time = ''] = /^\w+, (\d+) (\w+) \d+ ([\d:]+)/.exec(new Date(iso).toUTCString()) ?? [];
  return `${day} ${month.replace(/^0/, ' ')} ${time}`;
}

/** A serial line ends its lines with both characters. */
function lines(rows: readonly string[]): string {
  return rows.map((row) => `${row}\r\n`).join('');
}
