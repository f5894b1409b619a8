/** `sallyport rescue`: evidence from a host that fails, collected now or, with --show, as it was kept last. */
import type { RescueSectionView, RescueView } from '../client/wire.ts';
import { printDiagnosis } from './diagnose.ts';
import { neutralise, type Output } from './output.ts';
import { definePlain, type PlainCall, type PlainFlags, type Verb } from './verb.ts';

interface RescueFlags extends PlainFlags {
  show?: boolean;
}

export const verb: Verb = {
  define(command, context) {
    command
      .argument('<workspace>', 'the workspace whose host is looked at')
      .option('--show', 'show what was collected last, without going to the host');
    definePlain(command, context, async ({ client, flags, output }: PlainCall<RescueFlags>, id = '') => {
      const bundle = flags.show === true ? await client.lastRescue(id) : await client.rescue(id);
      if (flags.json === true) await output.json(bundle);
      else await printBundle(output, bundle);
    });
  },
};

async function printBundle(output: Output, bundle: RescueView): Promise<void> {
  const { id, workspace_id, actor, created_at, diagnosis, sections } = bundle;
  await output.write(
    'stdout',
    `${neutralise(`rescue ${id}`)}\n${neutralise(`collected ${created_at} by ${actor}`)}\n\n`,
  );
  await printDiagnosis(output, { ...diagnosis, workspace_id });
  for (const section of sections) await output.write('stdout', `\n${sectionText(section)}`);
}

function sectionText({ name, command, exit_code, output, truncated, error }: RescueSectionView): string {
  const facts = [
    command === undefined ? [] : [command.join(' ')],
    exit_code === undefined || exit_code === 0 || exit_code === null ? [] : [`exit code ${exit_code}`],
    truncated === true ? ['shortened'] : [],
    error === undefined ? [] : [error],
  ].flat();
  const title = neutralise(`=== ${name}${facts.length === 0 ? '' : `: ${facts.join('; ')}`}`);
  const lines = (output ?? '').split('\n').map((line) => neutralise(line.replaceAll('\t', '        ')));
  return `${[title, ...lines].join('\n').trimEnd()}\n`;
}
