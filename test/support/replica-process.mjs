// One gateway as a process of its own; argv[2] is the folder of the built gateway, PACE its pace as JSON. Says
// `listening on <url>`.
import { pathToFileURL } from 'node:url';

const load = (name) => import(new URL(name, pathToFileURL(`${process.argv[2]}/`)).href);
const [{ readConfig }, { createLog }, { startGateway }] = await Promise.all(
  ['config/config.js', 'log.js', 'serve.js'].map(load),
);
const { PACE = '{}', ...env } = process.env;
const config = readConfig(env);
const gateway = await startGateway(config, createLog(config.logLevel), JSON.parse(PACE));
process.stdout.write(`listening on ${gateway.url}\n`);
process.on('SIGTERM', () => void gateway.stop(0).then(() => process.exit(0)));
