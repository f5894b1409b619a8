/** A program for embedded.test.ts: writes audit rows into an embedded database and says which are acknowledged. */
import { openDatabase } from '../../src/db/database.ts';
import { silent } from '../support/database-url.ts';
import { execOf, exited } from './facts.ts';

const dataDir = process.argv[2] ?? '';
const database = await openDatabase({ url: null, migrateUrl: null, dataDir, replica: 'killed', log: silent });
while (true) {
  const entry = await database.audit.open(execOf());
  process.stdout.write(`opened ${entry.execId}\n`);
  await entry.close(exited());
  process.stdout.write(`closed ${entry.execId}\n`);
}
