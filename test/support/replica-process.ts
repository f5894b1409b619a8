/** One gateway as a process of its own, from the sources; its pace in PACE as JSON. Says `listening on <url>`. */
import { readConfig } from '../../src/config.ts';
import { createLog } from '../../src/log.ts';
import { type Pace, startGateway } from '../../src/serve.ts';

const { PACE = '{}', ...env } = process.env;
const config = readConfig(env);
const gateway = await startGateway(config, createLog(config.logLevel), JSON.parse(PACE) as Pace);
process.stdout.write(`listening on ${gateway.url}\n`);
process.on('SIGTERM', () => void gateway.stop(0).then(() => process.exit(0)));
