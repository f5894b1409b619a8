/** `sallyport diagnose`: the way to a host as a timeline, then what is wrong and what to do. Exit 0: all is well, 1: not. */
import type { DiagnosisStepView, DiagnosisView } from '../client/wire.ts';
import { EXIT, neutralise, type Output } from './output.ts';
import { definePlain, type Verb } from './verb.ts';

const WIDTH = 100;
const CONSOLE_LINES = 12;
/** Where the machine itself is the suspect, and its console may say more. */
const MACHINE_STEPS = ['status', 'tunnel', 'banner', 'login', 'channel'];
/** Keys and fingerprints that cloud-init prints at boot: the last thing on most consoles, and no help. */
const KEY_NOISE = /SSH HOST KEY|^(?:ssh|ecdsa)-\S+ AAAA|cloud-init: (?:\d+ SHA256:|#+$)/;

export const verb: Verb = {
  define(command, context) {
    command.argument('<workspace>', 'the workspace whose host is looked at');
    definePlain(command, context, async ({ client, flags, output }, id = '') => {
      const found = await client.diagnose(id);
      if (flags.json === true) await output.json(found);
      else await printDiagnosis(output, found);
      return found.ok ? 0 : EXIT.failed;
    });
  },
};

/** Everything that stands in it comes from a host or from AWS: no control character leaves here. */
export async function printDiagnosis(
  output: Output,
  found: Omit<DiagnosisView, 'workspace_id'> & { workspace_id?: string },
): Promise<void> {
  const { ok, first_failure, cause, remedy, steps, instance, console_tail } = found;
  const verdict = ok ? verdictOf(steps) : `fails at ${first_failure}`;
  const lines = [
    [found.workspace_id, verdict].filter((word) => word !== undefined).join(' '),
    ...(instance === null ? [] : instanceLines(instance)),
    '',
    ...steps.flatMap((step) => stepLines(step, cause)),
    ...(cause === null ? [] : ['', ...paragraph('cause', cause)]),
    ...(remedy === null ? [] : ['', ...paragraph('remedy', remedy)]),
    ...(console_tail !== null && MACHINE_STEPS.includes(first_failure ?? '')
      ? ['', 'the end of the console', ...lastLines(console_tail)]
      : []),
  ];
  await output.write('stdout', lines.map((line) => `${neutralise(line)}\n`).join(''));
}

function verdictOf(steps: readonly DiagnosisStepView[]): string {
  return steps.find(({ name }) => name === 'channel')?.ok === true ? 'is well' : 'is well as far as was walked';
}

function instanceLines(instance: Record<string, unknown>): string[] {
  const { id, state, type, availability_zone, private_ip, launch_time, gateway_clock_offset_s: offsetS } = instance;
  const words = [id, state, type, availability_zone, private_ip, launch_time && `launched ${String(launch_time)}`];
  const clock =
    typeof offsetS === 'number'
      ? [`  the gateway's clock is ${Math.abs(offsetS)} s ${offsetS > 0 ? 'slow' : 'fast'}`]
      : [];
  const unread = typeof instance.console_error === 'string' ? [`  console: ${instance.console_error}`] : [];
  return [`  ${words.filter((word) => word !== null && word !== undefined).join('  ')}`, ...clock, ...unread];
}

/** What the cause says anyway is not said twice. */
function stepLines({ name, ok, duration_ms, error, detail }: DiagnosisStepView, cause: string | null): string[] {
  const mark = ok === null ? '-' : ok ? 'ok' : 'FAIL';
  const time = duration_ms === null ? '' : `${duration_ms} ms`;
  const head = `  ${mark.padEnd(4)}  ${name.padEnd(8)}  ${time.padStart(8)}`;
  const text = error !== undefined && cause?.includes(error) ? 'see the cause below' : (error ?? detail ?? '');
  return wrap(text, { first: `${head}  `, rest: ' '.repeat(head.length + 2) });
}

function paragraph(title: string, text: string): string[] {
  return wrap(text, { first: title.padEnd(8), rest: ' '.repeat(8) });
}

/** Lines of WIDTH at most, unless one word is longer. */
function wrap(text: string, { first, rest }: { first: string; rest: string }): string[] {
  const lines: string[] = [];
  let line = first;
  for (const word of text.split(/\s+/)) {
    const begun = line !== first && line !== rest;
    if (begun && line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = rest;
    }
    line += line === first || line === rest ? word : ` ${word}`;
  }
  return [...lines, line].map((done) => done.trimEnd());
}

function lastLines(text: string): string[] {
  return text
    .trimEnd()
    .split('\n')
    .filter((line) => line.trim() !== '' && !KEY_NOISE.test(line))
    .slice(-CONSOLE_LINES)
    .map((line) => `  ${line}`);
}
