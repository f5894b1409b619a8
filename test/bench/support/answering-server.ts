/**
 * An SSH server that only answers: every command ends with 0 at once and nothing runs, so that what is left is the
 * client's own cost. To the gateway's bootstrap (src/drivers/bootstrap.ts) it says what a host says: the line of preamble is
 * read to its end, the nonce answered on both streams.
 *
 * It listens on every address of 127.0.0.0/8, so that it can be as many hosts as a test wants.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import ssh2, { type ServerChannel } from 'ssh2';
import { BOOTSTRAP } from '../../../src/drivers/bootstrap.ts';
import { answerAsks } from './worker.ts';

const HALVES = / ([0-9a-f]{16}) ([0-9a-f]{16}) \$\$/;
const STAT = '4242 (sh) S 1 4242 4242 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 123456 2600000 200';

const ops = {
  async listen({ hostKey }: { hostKey: string }): Promise<{ port: number }> {
    const ssh = new ssh2.Server({ hostKeys: [hostKey] }, (client) => {
      // Whoever hangs up has its reasons.
      client.on('error', () => undefined);
      client.on('authentication', (context) => context.accept());
      client.on('session', (accept) => {
        const session = accept();
        session.on('exec', (acceptExec, _reject, { command }) => answer(acceptExec(), command));
      });
    });
    const server = createServer({ noDelay: true }, (socket) => ssh.injectSocket(socket));
    server.listen(0, '0.0.0.0', 4096);
    await once(server, 'listening');
    return { port: (server.address() as AddressInfo).port };
  },
};

function answer(channel: ServerChannel, command: string): void {
  if (command === BOOTSTRAP) answerPreamble(channel);
  else end(channel);
}

function answerPreamble(channel: ServerChannel): void {
  let text = '';
  const onData = (chunk: Buffer): void => {
    text += chunk.toString('latin1');
    if (!text.includes('\n')) return;
    channel.off('data', onData);
    channel.resume();
    const [, first = '', second = ''] = HALVES.exec(text) ?? [];
    channel.write(`${first}${second} ok 4242 ${STAT}\n`);
    channel.stderr.write(`${first}${second}\n`);
    end(channel);
  };
  channel.on('data', onData);
}

function end(channel: ServerChannel): void {
  channel.exit(0);
  channel.end();
}

export type AnsweringOps = typeof ops;
answerAsks(ops);
