// What `npm run build` does: src/ becomes a folder that runs. Usage: node infra/build.js [folder], by default dist.
//
// dist/ is laid out like the repository, with gateway/ for src/, so that paths relative to a source file hold in both:
//   main.js, verbs.js   the command line, each one CommonJS file. Measured for an exec beside an empty node of 23 ms: 49 as
//                       the ES modules that it is written in, 43 as one of them, 37 as one CommonJS file
//   gateway/            everything else, a file for a file
// No package from npm goes into the two files: they stay where their licences are.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const src = join(root, 'src');
const out = resolve(process.argv[2] ?? join(root, 'dist'));
const { name, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
/** Of src/, besides main.ts: what the two files are made of. Whatever else main.ts loads is the gateway. */
const COMMAND_LINE = ['cli', 'client', 'errors.ts', 'outcome.ts'];

/** Leaves the gateway where it is, and verbs.ts to its own file. */
const cut = {
  name: 'cut',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^\.\.?\// }, ({ path, resolveDir, namespace }) => {
      if (namespace === 'verbs') return { path, external: true };
      const target = relative(src, resolve(resolveDir, path)).replaceAll(sep, '/');
      if (target === 'cli/verbs.ts') return { path: target, namespace: 'verbs' };
      if (COMMAND_LINE.includes(target.split('/')[0] ?? '')) return null;
      return { path: `./gateway/${target.replace(/\.ts$/, '.js')}`, external: true };
    });
    // By require, because import() would start the ES module loader after all.
    onLoad({ filter: /./, namespace: 'verbs' }, () => ({ contents: `module.exports = require('./verbs.js');` }));
    // One file less to read, and no path that depends on where the code has gone.
    onLoad({ filter: /cli.version\.ts$/ }, () => ({
      contents: `export const readVersion = () => ${JSON.stringify(version)};`,
    }));
  },
};

async function compileGateway() {
  const compiler = join(root, 'node_modules/typescript7/bin/tsc');
  const args = [compiler, '-p', join(root, 'tsconfig.build.json'), '--outDir', join(out, 'gateway')];
  const [code] = await once(spawn(process.execPath, args, { cwd: root, stdio: 'inherit' }), 'exit');
  return code;
}

async function bundle(entry, file) {
  await build({
    entryPoints: [join(src, entry)],
    outfile: join(out, file),
    absWorkingDir: root,
    bundle: true,
    platform: 'node',
    target: 'node20.19',
    format: 'cjs',
    packages: 'external',
    sourcemap: true,
    logLevel: 'warning',
    plugins: [cut],
  });
}

rmSync(out, { recursive: true, force: true });
mkdirSync(join(out, 'gateway'), { recursive: true });
const [code] = await Promise.all([compileGateway(), bundle('main.ts', 'main.js'), bundle('cli/verbs.ts', 'verbs.js')]);
chmodSync(join(out, 'main.js'), 0o755);
cpSync(join(root, 'migrations'), join(out, 'migrations'), { recursive: true });
writeFileSync(join(out, 'gateway', 'package.json'), '{"type":"module"}\n');
writeFileSync(join(out, 'package.json'), `${JSON.stringify({ name, version, type: 'commonjs' })}\n`);
process.exitCode = code ?? 1;
