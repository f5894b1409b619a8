/** What stands in infra/ agrees with the code that it is about. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

function at(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}

function read(path: string): string {
  return readFileSync(at(path), 'utf8');
}

function all(pattern: RegExp, text: string): string[] {
  return [...new Set(Array.from(text.matchAll(pattern), ([match]) => match))].sort();
}

test('the policy allows every AWS call that the code makes, and no other', () => {
  const policy: { Statement: { Action: string | string[] }[] } = JSON.parse(read('infra/iam-policy.json'));
  const calls = all(/(?<=')(ec2|ec2-instance-connect):[A-Z]\w+(?=')/g, read('src/drivers/aws.ts'));
  expect(calls).toContain('ec2-instance-connect:OpenTunnel');
  expect(policy.Statement.flatMap(({ Action }) => Action).sort()).toEqual(calls);
});

test.each(['Dockerfile', 'compose.yaml', 'README.md', 'smoke-aws.sh'])(
  'infra/%s sets only variables that exist',
  (file) => {
    const settings = readdirSync(at('src/config')).map((name) => read(`src/config/${name}`));
    const known = all(/\bSALLYPORT_\w+|\bDATABASE_URL\b/g, settings.join('\n'));
    // The command line's own, the script's own, and passwords of roles, which only the database's image reads.
    known.push(
      'SALLYPORT_URL',
      'SALLYPORT_TOKEN',
      'SALLYPORT_SMOKE',
      'SALLYPORT_MIGRATE_PASSWORD',
      'SALLYPORT_SERVE_PASSWORD',
    );
    const used = all(/\bSALLYPORT_\w+|\bDATABASE_URL\b/g, read(`infra/${file}`));
    expect(used.length).toBeGreaterThan(0);
    expect(used.filter((name) => !known.includes(name))).toEqual([]);
  },
);

test('the image is built from files that exist and are let into its context', () => {
  const copied = all(/(?<=^COPY )(?!--from).*(?= \S+$)/gm, read('infra/Dockerfile')).flatMap((line) => line.split(' '));
  const context = read('.dockerignore')
    .split('\n')
    .filter((line) => line.startsWith('!'))
    .map((line) => line.slice(1));
  expect(copied.filter((path) => path !== '.' && !(context.includes(path) && existsSync(at(path))))).toEqual([]);
  const { scripts }: { scripts: Record<string, string> } = JSON.parse(read('package.json'));
  expect(scripts).toHaveProperty('build');
});
