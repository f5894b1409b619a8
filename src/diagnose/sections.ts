/**
 * What a rescue looks at: a fixed list of commands that only read, each with what to try where the first is not there.
 *
 * Decision: plain argv, no shell and no sudo. Processes are shown by name, not by command line, where secrets stand.
 */
type Argv = readonly [string, ...string[]];

export interface SectionPlan {
  name: string;
  tries: readonly { argv: Argv /** Besides 0: it said what it knows. */; alsoGood?: readonly number[] }[];
}

function plan(name: string, ...tries: (Argv | { argv: Argv; alsoGood: readonly number[] })[]): SectionPlan {
  return { name, tries: tries.map((one) => ('argv' in one ? one : { argv: one })) };
}

const unitStatus = (unit: string) => ({
  argv: ['systemctl', 'status', unit, '--no-pager', '--full', '--lines=50'] as const,
  // A unit that does not run.
  alsoGood: [3],
});

export const SECTIONS: readonly SectionPlan[] = [
  plan('uptime', ['uptime'], ['cat', '/proc/loadavg']),
  plan('clock', ['chronyc', 'tracking'], ['timedatectl', 'status'], ['date', '-u']),
  // 1: one of several file systems could not be looked at.
  plan('disks', { argv: ['df', '-hlT'], alsoGood: [1] }, { argv: ['df', '-h'], alsoGood: [1] }),
  plan('inodes', { argv: ['df', '-il'], alsoGood: [1] }, { argv: ['df', '-i'], alsoGood: [1] }),
  plan('memory', ['free', '-m'], ['cat', '/proc/meminfo']),
  plan('pressure', ['grep', '', '/proc/pressure/cpu', '/proc/pressure/memory', '/proc/pressure/io']),
  plan(
    'processes',
    ['ps', '-eo', 'pid,ppid,user,stat,pcpu,pmem,rss,etime,comm', '--sort=-pcpu'],
    ['ps', '-o', 'pid,ppid,user,stat,comm'],
  ),
  plan('failed_units', ['systemctl', '--failed', '--no-pager', '--plain'], ['service', '--status-all']),
  plan(
    'errors',
    ['journalctl', '--priority=err', '--lines=200', '--no-pager', '--output=short-iso'],
    ['tail', '-n', '200', '/var/log/messages'],
    ['tail', '-n', '200', '/var/log/syslog'],
  ),
  plan('kernel', ['dmesg', '-T'], ['dmesg'], ['journalctl', '--dmesg', '--lines=300', '--no-pager']),
  plan('sshd', unitStatus('sshd'), unitStatus('ssh'), ['service', 'sshd', 'status'], ['pgrep', '-l', 'sshd']),
  plan('addresses', ['ip', '-brief', 'address'], ['ip', 'address'], ['ifconfig', '-a']),
  plan('routes', ['ip', 'route'], ['route', '-n'], ['cat', '/proc/net/route']),
  plan('sockets', ['ss', '-tuln'], ['netstat', '-tuln'], ['cat', '/proc/net/tcp']),
  plan('mounts', ['findmnt', '--list'], ['mount'], ['cat', '/proc/mounts']),
  // 1 and 2: it failed, or with warnings, and says so.
  plan('cloud_init', { argv: ['cloud-init', 'status', '--long'], alsoGood: [1, 2] }, [
    'tail',
    '-n',
    '100',
    '/var/log/cloud-init.log',
  ]),
  plan(
    'boots',
    ['last', '-x', '-n', '20', 'reboot', 'shutdown'],
    ['journalctl', '--list-boots', '--no-pager'],
    ['who', '-b'],
  ),
];
