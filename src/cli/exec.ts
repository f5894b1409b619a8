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
import { connect } from './connect.ts';
import { type Ending, watchEnding } from './ending.ts';
import { EXEC_HELP, type ExecFlags, type ExecWords, parseExecWords } from './exec-options.ts';
import type { Io } from './io.ts';
import { EXIT, execExitOf, exitOfFailure, failureDocument, noteFailure, noteProblem, type Output } from './output.ts';
import { readStdin } from './stdin.ts';

interface Request {
  words: ExecWords;
  io: Io;
  output: Output;
}

/** Gets the words behind `exec`; resolves with the exit code. What fails is printed here. */
export async function exec(rawWords: readonly string[], { io, output }: { io: Io; output: Output }): Promise<number> {
  try {
    const words = parseExecWords(rawWords);
    if (words !== null) return await execWords({ words, io, output });
    await output.write('stdout', EXEC_HELP);
    await output.flush();
    return 0;
  } catch (error) {
    noteFailure(output, error);
    return EXIT.notStarted;
  }
}

async function execWords(request: Request): Promise<number> {
  const { io, output, words } = request;
  const ending = watchEnding(io, output);
  try {
    return await Promise.race([ending.left, run(request, ending)]);
  } catch (error) {
    // The failure of leaving is no news: what was asked for is what happened.
    if (ending.exitCode !== null) return ending.exitCode;
    noteFailure(output, error);
    if (words.flags.json === true) await output.json(failureDocument(error));
    return execExitOf(error);
  } finally {
    ending.release();
  }
}

async function run({ words, io, output }: Request, ending: Ending): Promise<number> {
  const { flags, workspaceId, argv } = words;
  const body = bodyOf(argv, flags, io.env);
  const client = connect(flags, io.env);
  const stdin = await readStdin(flags.stdin ?? 'auto', { io, output, signal: ending.signal });
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
    // Whoever closed our output has cut it earlier.
    if (output.broken.aborted) return;
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

function bodyOf(cmd: string[], flags: ExecFlags, env: Io['env']): ExecBody {
  if (cmd.length === 0)
    throw new SallyportError('invalid_request', 'there is no program to run after the workspace id');
  return {
    cmd,
    timeout_s: numberOf('--timeout', flags.timeout),
    connect_timeout_s: numberOf('--connect-timeout', flags.connectTimeout),
    env: flags.env.length === 0 ? undefined : Object.fromEntries(flags.env.map((pair) => envPair(pair, env))),
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
