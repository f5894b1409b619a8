/**
 * Slow clients in a process of their own, so that they take no time from whoever measures: opens what it is told on its
 * command line (port, token, how many), says `open`, and then, about ten times a second, how many are left of each kind.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const [port, token, count] = [Number(process.argv[2]), process.argv[3], Number(process.argv[4])];
/** Each fills the buffers of the kernel on both sides, some MiB. */
const UNREADING = 20;
/** As many at once as the queue of a listener commonly holds. */
const AT_ONCE = 100;

interface Kind {
  /** Sent at first, */
  first: string;
  /** and then every second. */
  more?: string;
  reads?: boolean;
}

const HEAD = `Host: x\r\nAuthorization: Bearer ${token}\r\n`;
const KINDS: Record<string, Kind> = {
  silent: { first: '' },
  'slow with its headers': { first: 'GET /healthz HTTP/1.1\r\nX-Slow: ', more: 'x' },
  'slow with its body': {
    first: `POST /workspaces/ws-1/exec HTTP/1.1\r\n${HEAD}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{`,
    more: ' ',
  },
  idle: { first: 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n' },
  'reads nothing': { first: 'GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(200), reads: false },
};

function open({ first, more, reads = true }: Kind): Socket {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => {}); // being cut off is what this is about
  if (reads) socket.resume();
  else socket.pause();
  socket.once('connect', () => {
    socket.write(first);
    const drip = more === undefined ? undefined : setInterval(() => socket.write(more), 1_000);
    socket.once('close', () => clearInterval(drip));
  });
  return socket;
}

const names = Object.keys(KINDS);
const others = names.filter((name) => name !== 'reads nothing');
const sockets: { name: string; socket: Socket }[] = [];
for (let index = 0; index < count; index += 1) {
  const name = index < UNREADING ? 'reads nothing' : (others[index % others.length] ?? '');
  const socket = open(KINDS[name] ?? { first: '' });
  sockets.push({ name, socket });
  if (index % AT_ONCE !== AT_ONCE - 1) continue;
  const opening = sockets.slice(-AT_ONCE).filter((one) => one.socket.connecting);
  await Promise.all(opening.map((one) => once(one.socket, 'connect')));
}

const left = (): Record<string, number> =>
  Object.fromEntries(
    names.map((name) => [name, sockets.filter((one) => one.name === name && !one.socket.closed).length]),
  );
process.send?.({ open: left() });
while (process.connected) {
  await sleep(100);
  if (process.connected) process.send?.({ left: left() });
}
process.exit(0);
