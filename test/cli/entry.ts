/** The command line as a process of its own, as main.ts runs it. */
import { runCli } from '../../src/cli/cli.ts';
import { processIo } from '../../src/cli/io.ts';

const serverVerbs = {
  serve: {
    description: 'run the gateway',
    run: async (args: string[]) => {
      process.stdout.write(`serve ${JSON.stringify(args)}\n`);
      return 7;
    },
  },
};

process.exit(await runCli(process.argv.slice(2), processIo(), serverVerbs));
