// The command line as a process of its own, as main.ts runs it; the first argument is the folder of the built gateway.
import { pathToFileURL } from 'node:url';

const [built, ...args] = process.argv.slice(2);
const load = (name) => import(new URL(name, pathToFileURL(`${built}/`)).href);
const [{ runCli }, { processIo }] = await Promise.all(['cli/cli.js', 'cli/io.js'].map(load));
const serverVerbs = {
  serve: {
    description: 'run the gateway',
    run: async (words) => {
      process.stdout.write(`serve ${JSON.stringify(words)}\n`);
      return 7;
    },
  },
};

process.exit(await runCli(args, processIo(), serverVerbs));
