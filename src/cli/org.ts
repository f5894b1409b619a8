/** `sallyport org`: tenants and people, with the admin token. Freezing one ends what it runs; `sallyport freeze` is the same, for a hurry. */
import type { OrgView, PersonView } from '../client/wire.ts';
import {
  countOf,
  definePlain,
  type PlainCall,
  type PlainFlags,
  printItem,
  printItems,
  takeItems,
  type Verb,
} from './verb.ts';

const TABLE = {
  header: ['ID', 'NAME', 'FROZEN'],
  row: (org: OrgView) => [org.id, org.name, org.frozen ? 'yes' : 'no'],
};

const PEOPLE = {
  header: ['ORG', 'SUB', 'FROZEN'],
  row: (person: PersonView) => [person.org_id, person.sub, person.frozen ? 'yes' : 'no'],
};

export const verb: Verb = {
  define(command, context) {
    const list = command.command('list').description('list orgs').option('--limit <n>', 'at most so many', '1000');
    definePlain(list, context, async (call: PlainCall<PlainFlags & { limit: string }>) => {
      const page = await takeItems(call.client.orgs.list, {}, countOf('--limit', call.flags.limit));
      await printItems(call, page, TABLE);
    });

    definePlain(command.command('get <id>').description('show one org'), context, async (call, id = '') => {
      await printItem(call, await call.client.orgs.get(id), TABLE);
    });

    const set = command
      .command('set <id>')
      .description('create or rename an org')
      .requiredOption('--name <name>', 'what people call it');
    definePlain(set, context, async (call: PlainCall<PlainFlags & { name: string }>, id = '') => {
      await printItem(call, await call.client.orgs.put(id, { name: call.flags.name }), TABLE);
    });

    freeze.define(command.command('freeze').description('withdraw every right in an org, until unfrozen'), context);
    unfreeze.define(command.command('unfreeze').description('give the rights back'), context);

    const people = command
      .command('frozen-people <id>')
      .description('who is frozen in an org')
      .option('--limit <n>', 'at most so many', '1000');
    definePlain(people, context, async (call: PlainCall<PlainFlags & { limit: string }>, id = '') => {
      const limit = countOf('--limit', call.flags.limit);
      await printItems(call, await takeItems(call.client.orgs.people(id).list, {}, limit), PEOPLE);
    });

    const freezePerson = command
      .command('freeze-person <id> <sub>')
      .description('withdraw every right of a person in an org, also by tokens they have made');
    definePlain(freezePerson, context, async (call, id = '', sub = '') => {
      await printItem(call, await call.client.orgs.freezePerson(id, sub), PEOPLE);
    });

    const unfreezePerson = command.command('unfreeze-person <id> <sub>').description('give the rights back');
    definePlain(unfreezePerson, context, async (call, id = '', sub = '') => {
      await printItem(call, await call.client.orgs.unfreezePerson(id, sub), PEOPLE);
    });
  },
};

export const freeze = freezing('freeze');
export const unfreeze = freezing('unfreeze');

function freezing(action: 'freeze' | 'unfreeze'): Verb {
  return {
    define(command, context) {
      definePlain(command.argument('<id>', 'the org'), context, async (call, id = '') => {
        await printItem(call, await call.client.orgs[action](id), TABLE);
      });
    },
  };
}
