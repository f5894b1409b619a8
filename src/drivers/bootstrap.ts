/**
 * How a program is started through any login shell: one constant command line, and a preamble on standard input.
 *
 * sshd hands a command to the user's login shell, whatever that is. BOOTSTRAP means the same to sh, dash, bash, zsh,
 * csh, tcsh and fish; it reads one line from its standard input without reading past it (`read` takes one byte per
 * system call) and evaluates it as POSIX sh. That line, the preamble, sets directory and environment, answers, and
 * replaces itself by the program. So argv, environment, directory and stdin never meet the login shell or a command line.
 *
 * The answer is one line on stdout, `<nonce> ok <pid> <line of /proc/pid/stat>`, and the nonce alone on stderr: what
 * came before it on either stream is noise of rc files and is dropped. The preamble carries the nonce in two halves, so
 * that a forced command that echoes its input is not taken for an answer.
 *
 * The /bin/sh between costs a fifth of a warm exec. So the answer also says what the login shell is, and once a
 * connection has heard that it is bash, bash itself reads the preamble (LOGIN_SHELL). What its rc files may have done to
 * it is taken back first. $SHELL alone proves nothing, rc files set it; but of the shells that are known only bash, zsh
 * and ksh make two words of x{1..2}, and what reads the preamble asks for BASH_VERSION once more.
 *
 * A preamble for bash begins with its length, because `read -N` takes so many characters in a few system calls: a line of
 * 500 bytes cost a host a tenth of what a small program costs it. What a character is, the locale of the login decides; in
 * all of them one of ASCII is one byte, so anything else is left to BOOTSTRAP.
 */
import { randomUUID } from 'node:crypto';
import type { StartSpec } from '../sessions/session.ts';
import { quote, quoteInLine } from './shell-quote.ts';

/** For a POSIX sh: read the preamble, become it. */
export const READ_PREAMBLE = 'IFS= read -r sallyport;eval "$sallyport"';

/** For a login shell of any kind, which counts x{1..2} as one word or as two. */
export const BOOTSTRAP = `exec /bin/sh -c 'sallyport_=$#;${READ_PREAMBLE}' sallyport x{1..2}`;

const LENGTH_DIGITS = 8;

/** For a login shell that is bash, and a preamble written for it. Where it is none that knows -N, /bin/sh reads the line. */
export const LOGIN_SHELL =
  `IFS= read -rN${LENGTH_DIGITS} sallyport 2>/dev/null||` +
  `exec /bin/sh -c 'IFS= read -r sallyport;eval "\${sallyport#${'?'.repeat(LENGTH_DIGITS)}}"';` +
  `IFS= read -rN"$sallyport" sallyport;eval "$sallyport"`;

/**
 * Options, traps and functions of rc files must not change what the preamble does: posix makes a failing export end the
 * shell, and finds `export`, `exec` and `trap` before functions of those names. Any other shell hands the rest to /bin/sh.
 */
const AS_BASH = `if [ -n "$BASH_VERSION" ];then set +aeux -o posix;trap - DEBUG ERR;else exec /bin/sh -c "\${sallyport#*[Z]:;}";fi;: Z:`;

/** Where a token with command rules looks programs up. */
export const FIXED_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Linux never limits arguments and environment together below 128 KiB, and one string to 128 KiB; the login environment
 * needs some of it. Above this the preamble tries whether the kernel takes them before it answers, which costs one fork.
 */
const TRY_EXEC_ABOVE_BYTES = 64 * 1024;

/** `execId` null: no marker, for our own control scripts, which must not find themselves. */
export type BootstrapSpec = Pick<StartSpec, 'argv' | 'env' | 'cwd' | 'fixedPath'> & { execId: string | null };

export interface Preamble {
  /** The line for standard input, with its newline. */
  line: Buffer;
  /** 32 hex digits. */
  nonce: string;
}

/** What is so large that a shell may not hand it on as one argument is left to BOOTSTRAP, and so is all but ASCII. */
export function fitsLoginShell(spec: BootstrapSpec): boolean {
  return !mayExceedLimits(spec) && textsOf(spec).every(isAscii);
}

function textsOf({ argv, env, cwd }: BootstrapSpec): string[] {
  return [...argv, ...Object.values(env), cwd ?? ''];
}

function isAscii(text: string): boolean {
  return /^[\0-\x7f]*$/.test(text);
}

/** `reader`: of the preamble, `sh` behind BOOTSTRAP or `bash` behind LOGIN_SHELL. */
export function writePreamble(spec: BootstrapSpec, reader: 'sh' | 'bash' = 'sh'): Preamble {
  // 122 random bits; Node draws them for many at once.
  const nonce = randomUUID().replaceAll('-', '');
  // Shell variables of ours carry a part of the nonce, so that no variable of the caller's can be hit.
  const [newline, stage, stat] = [`n${nonce.slice(0, 8)}`, `e${nonce.slice(0, 8)}`, `s${nonce.slice(0, 8)}`];
  const halves = `${nonce.slice(0, 16)} ${nonce.slice(16)}`;
  const word = (text: string): string => quoteInLine(text, newline);
  const refuse = (why: string): string => `{ trap - EXIT;printf '%s%s no %s\\n' ${halves} ${why};exit 1;}`;
  const shell = reader === 'bash' ? '' : `"\${SHELL##*/}<$sallyport_"`;
  const steps = reader === 'bash' ? [AS_BASH, 'unset sallyport'] : ['unset sallyport'];
  if (textsOf(spec).some((text) => text.includes('\n')))
    steps.push(`${newline}=$(printf '\\n.')`, `${newline}=\${${newline}%.}`);
  // A failing special builtin (a read-only variable, say) ends the shell; the trap says at which variable.
  steps.push(`trap "printf '%s%s no env %s\\n' ${halves} \\"\\$${stage}\\"" EXIT`);
  if (spec.cwd !== null) {
    const dir = word(spec.cwd);
    const missing = `{ [ -e ${dir} ]||[ -L ${dir} ];}||${refuse('cwd-missing')}`;
    steps.push(
      `command cd -- ${dir} 2>/dev/null||{ ${missing};[ -d ${dir} ]||${refuse('cwd-file')};${refuse('cwd-denied')};}`,
    );
  }
  if (spec.fixedPath) steps.push(`export PATH=${quote(FIXED_PATH)}`);
  for (const [name, value] of Object.entries(spec.env)) steps.push(`${stage}=${name}`, `export ${name}=${word(value)}`);
  if (spec.execId !== null) steps.push(`export EXEC_ID=${quote(spec.execId)}`);
  steps.push(`set -- ${spec.argv.map(word).join(' ')}`, 'trap - EXIT');
  if (mayExceedLimits(spec)) steps.push(`/bin/sh -c : "$@" 2>/dev/null||${refuse('too-long')}`);
  steps.push(
    `{ IFS= read -r ${stat} </proc/$$/stat;} 2>/dev/null`,
    `printf '%s%s ok %s %s %s\\n' ${halves} $$ "$${stat}" ${shell}`,
    `printf '%s%s\\n' ${halves} >&2`,
    // No shell agrees with the next on how a name that looks like an option is executed; env(1) does.
    spec.argv[0].startsWith('-') ? 'exec env -- "$@"' : 'exec "$@"',
  );
  const line = `${steps.join(';')}\n`;
  if (reader === 'sh') return { line: Buffer.from(line), nonce };
  if (!isAscii(line)) throw new Error('bug: a preamble for bash is ASCII');
  return { line: Buffer.from(`${String(line.length).padStart(LENGTH_DIGITS, '0')}${line}`), nonce };
}

function mayExceedLimits(spec: BootstrapSpec): boolean {
  const strings = [...spec.argv, ...Object.entries(spec.env).map(([name, value]) => `${name}=${value}`)];
  return strings.reduce((sum, text) => sum + Buffer.byteLength(text), 0) > TRY_EXEC_ABOVE_BYTES;
}

export type Answer =
  | {
      kind: 'ok';
      pid: number /** Session id and start time in clock ticks after boot; null without /proc. */;
      stat: { sid: number; startTicks: string } | null;
      /** The login shell is bash; only ever told by an `sh` behind BOOTSTRAP. */
      fromBash: boolean;
    }
  | { kind: 'no'; reason: string };

/** Reads the rest of the answer line, after the nonce. Null: not an answer. */
export function parseAnswer(text: string): Answer | null {
  const ok = /^ ok (\d+)(?: (.*))?$/s.exec(text);
  if (ok?.[1] !== undefined) {
    const rest = ok[2] ?? '';
    return { kind: 'ok', pid: Number(ok[1]), stat: parseStat(rest), fromBash: rest.endsWith(' bash<2') };
  }
  const no = /^ no (.+)$/s.exec(text);
  return no?.[1] === undefined ? null : { kind: 'no', reason: no[1] };
}

/** Source: proc_pid_stat(5); fields are counted after the command name, which may hold anything. */
function parseStat(line: string): { sid: number; startTicks: string } | null {
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
  const [sid, startTicks] = [fields[3], fields[19]];
  if (sid === undefined || startTicks === undefined || !/^\d+$/.test(sid) || !/^\d+$/.test(startTicks)) return null;
  return { sid: Number(sid), startTicks };
}

const REFUSALS: Record<string, string> = {
  'cwd-missing': 'cwd does not exist on the host',
  'cwd-file': 'cwd is not a directory on the host',
  'cwd-denied': 'cwd may not be entered by the login user',
  'too-long': 'the argument list and environment are too long for the host',
};

/** Why the program was not started, in words for the caller. */
export function refusalText(reason: string): string {
  const known = REFUSALS[reason];
  if (known !== undefined) return known;
  const name = /^env (\w+)$/.exec(reason)?.[1];
  return name === undefined
    ? 'the host could not prepare the program’s environment'
    : `the host's shell does not allow the environment variable ${name} to be set`;
}
