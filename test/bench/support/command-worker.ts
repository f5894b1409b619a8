/** Runs programs of this machine as a person's shell would, and times them: `ssh`, `sallyport`, `node`, `xargs`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { answerAsks } from './worker.ts';

interface Command {
  file: string;
  args: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Given on standard input; absent: /dev/null. */
  input?: string;
}

const ops = {
  /** From the start of the program to its end; it must end with 0. ms */
  async time({ file, args, env = {}, input }: Command): Promise<number> {
    const from = performance.now();
    const child = spawn(file, args, {
      env: { PATH: process.env.PATH, ...env },
      stdio: [input === undefined ? 'ignore' : 'pipe', 'ignore', 'pipe'],
    });
    child.stdin?.end(input);
    let said = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const [code, signal] = await once(child, 'exit');
    const ms = performance.now() - from;
    if (code !== 0) throw new Error(`${file} ${args.at(-1) ?? ''} ended with ${code ?? signal}: ${said.slice(-400)}`);
    return ms;
  },
};

export type CommandOps = typeof ops;
answerAsks(ops);
