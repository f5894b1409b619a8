/** `sallyport diagnose`: the way to a host as a timeline, then what is wrong and what to do. Exit 0: all is well, 1: not. */
import type { DiagnosisStepView, DiagnosisView } from '../client/wire.ts';
import { EXIT, neutralise, type Output } from './output.ts';
import { definePlain, type Verb } from './verb.ts';

const WIDTH = 100;
const CONSOLE_LINES = 12;

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
    ...(instance === null ? [] : [`  ${instanceLine(instance)}`]),
    '',
    ...steps.flatMap(stepLines),
    ...(cause === null ? [] : ['', ...paragraph('cause', cause)]),
    ...(remedy === null ? [] : ['', ...paragraph('remedy', remedy)]),
    ...(ok || console_tail === null ? [] : ['', 'the end of the console', ...lastLines(console_tail)]),
  ];
  await output.write('stdout', lines.map((line) => `${neutralise(line)}\n`).join(''));
}

function verdictOf(steps: readonly DiagnosisStepView[]): string {
  return steps.find(({ name }) => name === 'channel')?.ok === true ? 'is well' : 'is well as far as was walked';
}

function instanceLine(instance: Record<string, unknown>): string {
  const { id, state, type, availability_zone, private_ip, launch_time } = instance;
  const words = [id, state, type, availability_zone, private_ip, launch_time && `launched ${String(launch_time)}`];
  return words.filter((word) => word !== null && word !== undefined).join('  ');
}

function stepLines({ name, ok, duration_ms, error, detail }: DiagnosisStepView): string[] {
  const mark = ok === null ? '-' : ok ? 'ok' : 'FAIL';
  const time = duration_ms === null ? '' : `${duration_ms} ms`;
  const head = `  ${mark.padEnd(4)}  ${name.padEnd(8)}  ${time.padStart(8)}`;
  return wrap(error ?? detail ?? '', { first: `${head}  `, rest: ' '.repeat(head.length + 2) });
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
    .filter((line) => line.trim() !== '')
    .slice(-CONSOLE_LINES)
    .map((line) => `  ${line}`);
}
