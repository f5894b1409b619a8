/** `sallyport console`: the serial console log of a host, secrets masked by the gateway. */
import { neutralise } from './output.ts';
import { definePlain, type Verb } from './verb.ts';

export const verb: Verb = {
  define(command, context) {
    command.argument('<workspace>', 'the workspace whose host is looked at');
    definePlain(command, context, async ({ client, flags, output }, id = '') => {
      const found = await client.console(id);
      if (flags.json === true) return await output.json(found);
      if (found.output === null) return output.note(`nothing was posted on the console of ${found.instance_id} yet`);
      const lines = found.output.split('\n').map((line) => neutralise(line.replaceAll('\t', '        ')));
      await output.write('stdout', `${lines.join('\n').trimEnd()}\n`);
    });
  },
};
