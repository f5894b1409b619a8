/**
 * `sallyport exec`: runs one argv in a workspace as if it ran here: its bytes, its exit code.
 *
 * stdout and stderr are the program's, byte for byte; our own words go to stderr only. What the exit code means stands
 * in output.ts and the table of outcomes. With `--json` the result, or the problem, is the one document on stdout.
 */
import type { Client } from '../client/client.ts';
import type { ExecBody, ExecDocument, WireErrorFrame, WireExitFrame, WireFrame, WireStream } from '../client/wire.ts';
import { frameBytes } from '../client/wire.ts';
import { SallyportError } from '../errors.ts';
import { addConnectOptions, type ConnectOptions, connect } from './connect.ts';
import { type Ending, watchEnding } from './ending.ts';
import type { Io } from './io.ts';
import { EXIT, execExitOf, exitOfFailure, failureDocument, noteFailure, noteProblem, type Output } from './output.ts';
import { readStdin } from './stdin.ts';
import { collect, type Verb } from './verb.ts';

interface ExecFlags extends ConnectOptions {
  timeout?: string;
  connectTimeout?: string;
  env?: string[];
  cwd?: string;
  maxOutput?: string;
  stdin?: boolean;
  idempotencyKey?: string;
  dryRun?: boolean;
  json?: boolean;
}

const HELP = `
Options stand before the workspace id; what follows it belongs to the program.

Standard input: a pipe or file is sent (at most 1 MiB); a terminal is not. Use --no-stdin inside "while read" loops.

Exit status: the program's own; 124 its timeout ended it; 125 refused or failed before it started; 126, 127 not
executable, not found; 128+n killed by signal n; 130 after Ctrl-C, which ends it there; 141 the reader of our output
closed it; 255 the link was lost, the stream is unfinished, or a replay has no output to show.

Example: sallyport exec --timeout 10 ws-1 -- journalctl -u nginx -n 50`;

export const verb: Verb = {
  define(command, { action, io, output }) {
    addConnectOptions(command)
      .usage('[options] <workspace> -- <argv...>')
      .argument('<workspace>')
      .argument('<argv...>')
      .option('--timeout <s>', 'end the program after this many seconds (gateway: 30, at most 120)')
      .option('--connect-timeout <s>', 'seconds to reach the host (gateway: 20, at most 60)')
      .option('-e, --env <name=value>', 'set a variable; a name alone takes its value from here', collect)
      .option('--cwd <dir>', 'absolute directory to run in')
      .option('--max-output <bytes>', 'cut each stream here (gateway: 1 MiB)')
      .option('--stdin', 'read standard input to its end, whatever it is')
      .option('--no-stdin', 'leave standard input alone')
      .option('--idempotency-key <key>', 'never run twice under this key')
      .option('--dry-run', 'print what would be decided, run nothing')
      .option('--json', 'print the result, or the problem, as one JSON document')
      .addHelpText('after', HELP)
      .passThroughOptions();
    command.action(
      action((workspaceId: string, words: string[], flags: ExecFlags) =>
        exec({ workspaceId, words, flags, io, output }),
      ),
    );
  },
};

interface Request {
  workspaceId: string;
  words: string[];
  flags: ExecFlags;
  io: Io;
  output: Output;
}

/** Resolves with the exit code; what fails is printed here. */
async function exec(request: Request): Promise<number> {
  const { io, output, flags } = request;
  const ending = watchEnding(io, output);
  try {
    return await Promise.race([ending.left, run(request, ending)]);
  } catch (error) {
    // The failure of leaving is no news: what was asked for is what happened.
    if (ending.exitCode !== null) return ending.exitCode;
    noteFailure(output, error);
    if (flags.json === true) await output.json(failureDocument(error));
    return execExitOf(error);
  } finally {
    ending.release();
  }
}

async function run({ workspaceId, words, flags, io, output }: Request, ending: Ending): Promise<number> {
  const body = bodyOf(programOf(words), flags, io.env);
  const client = connect(flags, io.env);
  const choice = flags.stdin === undefined ? 'auto' : flags.stdin ? 'always' : 'never';
  const stdin = await readStdin(choice, { stdin: () => io.stdin, output, signal: ending.signal });
  const how = { signal: ending.signal, stdin: stdin ?? undefined, idempotencyKey: flags.idempotencyKey };
  const call = { client, workspaceId, body, how, output };
  const exitCode =
    flags.json === true || flags.dryRun === true ? await printDocument(call) : await stream(call, ending);
  await output.flush();
  return ending.exitCode ?? exitCode;
}

interface ExecCall {
  client: Client;
  workspaceId: string;
  body: ExecBody;
  how: { signal: AbortSignal; stdin?: Buffer; idempotencyKey?: string };
  output: Output;
}

async function printDocument({ client, workspaceId, body, how, output }: ExecCall): Promise<number> {
  const document: Partial<ExecDocument> = await client.execJson(workspaceId, body, how);
  await output.json(document);
  if (body.dry_run === true) return 0;
  noteSurvivors(output, document.survivors);
  if (document.replayed === true && document.complete !== true) return noteReplay(output);
  return document.exit_code ?? EXIT.lost;
}

async function stream({ client, workspaceId, body, how, output }: ExecCall, ending: Ending): Promise<number> {
  const { execId, frames } = await client.exec(workspaceId, body, how);
  if (execId !== null) ending.started((signal) => client.cancel(workspaceId, execId, { signal }));
  const seen = { stdout: 0, stderr: 0 };
  for await (const frame of frames) {
    if (!('stream' in frame)) return end(frame, { seen, body, output, leaving: ending.exitCode !== null });
    await print(frame, seen, output);
  }
  throw new Error('bug: the frames ended without a terminal frame and without an error');
}

async function print(
  frame: Extract<WireFrame, { stream: WireStream }>,
  seen: Record<WireStream, number>,
  output: Output,
) {
  if (frame.truncated) {
    output.note(`${frame.stream} was cut at ${seen[frame.stream]} bytes (--max-output moves the cut)`);
    return;
  }
  const bytes = frameBytes(frame);
  seen[frame.stream] += bytes.length;
  await output.write(frame.stream, bytes);
}

interface Run {
  /** Bytes that came. */
  seen: Record<WireStream, number>;
  body: ExecBody;
  output: Output;
  /** Whoever left knows why it was cancelled. */
  leaving: boolean;
}

function end(frame: WireExitFrame | WireErrorFrame, run: Run): number {
  if (!('exit_code' in frame)) return endWithoutExit(frame, run);
  const { seen, output } = run;
  noteSurvivors(output, frame.survivors);
  if (frame.replayed === true) return frame.complete ? frame.exit_code : noteReplay(output);
  if (frame.complete && (frame.stdout_bytes !== seen.stdout || frame.stderr_bytes !== seen.stderr)) {
    output.note(
      `output is missing: ${seen.stdout} and ${seen.stderr} bytes came of ${frame.stdout_bytes} and ${frame.stderr_bytes}`,
    );
    return EXIT.lost;
  }
  return frame.exit_code;
}

function endWithoutExit(frame: WireErrorFrame, { body, output, leaving }: Run): number {
  if (!leaving || frame.outcome !== 'cancelled') noteProblem(output, frame.error, frame);
  if (frame.timeout_s !== undefined && body.timeout_s !== undefined && frame.timeout_s < body.timeout_s) {
    output.note(`${body.timeout_s} s were asked for; the gateway allows ${frame.timeout_s} s`);
  }
  noteSurvivors(output, frame.survivors);
  return exitOfFailure(frame.outcome, frame.code) ?? EXIT.lost;
}

function noteReplay(output: Output): number {
  output.note('this is the replay of an earlier run, whose output is not kept: nothing ran now');
  return EXIT.lost;
}

function noteSurvivors(output: Output, survivors: number[] | null | undefined): void {
  if (survivors === undefined || survivors?.length === 0) return;
  if (survivors === null) output.note('nobody could look whether processes are left on the host');
  else output.note(`processes are left on the host: ${survivors.join(', ')}`);
}

/** The words after the workspace id; the `--` that ends our options is ours, every later one the program's. */
function programOf(words: string[]): string[] {
  const [first, ...rest] = words;
  if (first === '--') return rest;
  if (first?.startsWith('-')) {
    throw new SallyportError('invalid_request', `options stand before the workspace id; "${first}" came after it`, {
      remedy: `a program of that name is run with: <workspace> -- ${first}`,
    });
  }
  return words;
}

function bodyOf(cmd: string[], flags: ExecFlags, env: Io['env']): ExecBody {
  if (cmd.length === 0)
    throw new SallyportError('invalid_request', 'there is no program to run after the workspace id');
  return {
    cmd,
    timeout_s: numberOf('--timeout', flags.timeout),
    connect_timeout_s: numberOf('--connect-timeout', flags.connectTimeout),
    env: flags.env && Object.fromEntries(flags.env.map((pair) => envPair(pair, env))),
    cwd: flags.cwd,
    max_output_bytes: numberOf('--max-output', flags.maxOutput),
    dry_run: flags.dryRun,
  };
}

function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value)) return value;
  throw new SallyportError('invalid_request', `${option} takes a number; "${text}" is none`);
}

function envPair(pair: string, env: Io['env']): [string, string] {
  const equals = pair.indexOf('=');
  if (equals > 0) return [pair.slice(0, equals), pair.slice(equals + 1)];
  const value = equals === 0 ? undefined : env[pair];
  if (value !== undefined) return [pair, value];
  throw new SallyportError(
    'invalid_request',
    `--env takes NAME=value, or the NAME of a variable set here; "${pair}" is neither`,
  );
}
