/** A far network: everything arrives after a delay, in both directions, however much it is. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { answerAsks } from './worker.ts';

const ops = {
  /** `delayMs`: each way. */
  async listen({ toPort, delayMs }: { toPort: number; delayMs: number }): Promise<{ port: number }> {
    const server = createServer({ noDelay: true, allowHalfOpen: true }, (near) => {
      const far = connect({ host: '127.0.0.1', port: toPort, noDelay: true, allowHalfOpen: true });
      carry(near, far, delayMs);
      carry(far, near, delayMs);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { port: (server.address() as AddressInfo).port };
  },
};

/** In order: what left first arrives first. */
function carry(from: Socket, to: Socket, delayMs: number): void {
  const underway: { dueMs: number; deliver(): void }[] = [];
  let waits = false;
  const deliverDue = (): void => {
    waits = false;
    for (let next = underway[0]; next !== undefined && next.dueMs <= performance.now(); next = underway[0]) {
      underway.shift();
      next.deliver();
    }
    wait();
  };
  const wait = (): void => {
    const next = underway[0];
    if (waits || next === undefined) return;
    waits = true;
    setTimeout(deliverDue, Math.max(0, next.dueMs - performance.now()));
  };
  const send = (deliver: () => void): void => {
    underway.push({ dueMs: performance.now() + delayMs, deliver });
    wait();
  };
  from.on('data', (chunk: Buffer) => send(() => to.write(chunk)));
  from.on('end', () => send(() => to.end()));
  from.on('error', () => send(() => to.destroy()));
  from.on('close', () => send(() => to.destroy()));
}

export type RelayOps = typeof ops;
answerAsks(ops);
