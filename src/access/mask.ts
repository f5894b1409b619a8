/**
 * What may be shown or stored: secrets in argv and text become `***`, values in messages are short and harmless.
 *
 * By rule, not by guess: a secret is found by its name (`--password=…`, `DB_TOKEN=…`, `"apiKey": "…"`), by its form (PEM,
 * JWT, `scheme://user:…@`, an Authorization header) or by a prefix its issuer is known for. What has neither
 * (`mysql -phunter2`) stays. Masking twice changes nothing.
 *
 * Decision: every pattern is linear in its input, because callers choose the input. A match can begin only where a word
 * begins (the lookbehind), and nothing stands behind a repetition that could fail and make it try again.
 */
const MASK = '***';

/** What makes a name secret, matched against the name in lower case with `-` between its words. */
const SECRET_NAMES = [
  /(?:password|passwd|passphrase|secret|token|credential|apikey|privatekey|accesskey)\d*(?:-|$)/,
  /(?:passwords|secrets|credentials)(?:-|$)/,
  /(?:^|-)(?:pass|pwd|passin|passout)\d*(?:-|$)/,
  /(?:^|-)(?:api|private|access|account|signing|encryption|master)-key(?:-|$)/,
];

/** `--password-file` names where a secret is, `--token-ttl` how long it lives: their values are needed to read a row. */
const HARMLESS_LAST_WORD = new Set(
  (
    'file path dir stdin fd env url uri endpoint type ttl expiry expires length policy count limit size timeout prompt ' +
    'arn version format name ref helper provider store required enabled'
  ).split(' '),
);

function isSecretName(name: string): boolean {
  if (name === 'PWD') return false; // the shell's working directory
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .toLowerCase()
    .split(/[-_.]+/)
    .filter((word) => word !== '');
  if (HARMLESS_LAST_WORD.has(words.at(-1) ?? '')) return false;
  const normal = words.join('-');
  return SECRET_NAMES.some((pattern) => pattern.test(normal));
}

/** Issuers that mark their secrets: the mark at the beginning of a word, and the least length such a secret has. */
const KNOWN_PREFIXES = [
  /(?:AKIA|ASIA)[A-Z0-9]{16}/, // AWS access key ids
  /gh[oprsu]_[A-Za-z0-9]{16,}/,
  /github_pat_\w{16,}/,
  /glpat-[\w-]{12,}/,
  /xox[a-z]-[A-Za-z0-9-]{8,}/, // Slack
  /sk-[\w-]{16,}/, // OpenAI, Anthropic
  /[rs]k_(?:live|test)_[A-Za-z0-9]{8,}/, // Stripe
  /npm_[A-Za-z0-9]{30,}/,
  /AIza[\w-]{30,}/, // Google
  /hv[bs]\.[\w-]{20,}/, // Vault
  /AGE-SECRET-KEY-1[A-Z0-9]{20,}/,
  /eyJ[\w-]{4,}(?:\.[\w-]*){2,4}/, // JWT: JWS and JWE
];

/** The prose "basic understanding" is no header: the decoded text of a real one is `user:password`. */
function maskBasic(all: string, before: string, encoded: string): string {
  return Buffer.from(encoded, 'base64').includes(':') ? `${before}${MASK}` : all;
}

/** Secrets that show what they are. Replaced in this order. */
const FORMS: readonly (readonly [pattern: RegExp, replacement: string | typeof maskBasic])[] = [
  [/-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|$)/g, MASK],
  [/(?<![\w+.-])([A-Za-z][\w+.-]*:\/\/[^\s/:@"']*:)[^\s/"'?#]+@/g, `$1${MASK}@`],
  [/(authorization\\{0,3}["']?[ \t]*[:=][ \t]*\\{0,3}["']?)[^\r\n"'\\]+/gi, `$1${MASK}`],
  [/\b(bearer[ \t]+)(?!bearer\b)[\w.~+/-]{6,}=*/gi, `$1${MASK}`],
  [/\b(basic[ \t]+)(?!basic\b)([A-Za-z0-9+/]{4,}={0,2})/gi, maskBasic],
  [new RegExp(`(?<![\\w-])(?:${KNOWN_PREFIXES.map(({ source }) => source).join('|')})`, 'g'), MASK],
];

/** Secrets that a name announces: the head is found first, and only behind a secret name is the value read at all. */
interface NamedForm {
  /** Groups: `quote`, `name`. */
  head: RegExp;
  /** Sticky: begins where the head ended. */
  value: RegExp;
}

/** A shell word: pieces in quotes and out of them. A quote followed by a space closes what stands around the word. */
const SHELL_WORD = /(?:"[^"]*"|'[^']*')?(?:[^\s"'\\;&|]|\\[\s\S]|"(?=[^\s;&|])[^"]*"?|'(?=[^\s;&|])[^']*'?)*/y;
/** A JSON or YAML scalar on the line of its name; the second form is JSON inside a quoted string. */
const SCALAR = /"(?:[^"\\]|\\[\s\S])*"|\\{1,3}"[^"]*"|'[^']*'|[^\s"',;&|{[\\][^\s"',;\\]*/y;

const ASSIGNMENT: NamedForm = {
  head: /(?<![\w.-])-{0,2}(?<name>[A-Za-z_][\w.-]*)(?:=(?!=)|[ \t]+=[ \t]+)/g,
  value: SHELL_WORD,
};
const FLAG: NamedForm = { head: /(?<![\w.-])--?(?<name>[A-Za-z][\w.-]*)[ \t]+(?![-=])/g, value: SHELL_WORD };
const FIELD: NamedForm = {
  head: /(?<![\w.-])(?<quote>\\{0,3}["']|)(?<name>[A-Za-z_][\w.-]*)\k<quote>[ \t]*:[ \t]*/g,
  value: SCALAR,
};

function maskNamed(text: string, form: NamedForm): string {
  let masked = '';
  let done = 0;
  for (const found of text.matchAll(form.head)) {
    if (found.index < done || !announcesSecret(text, found, form)) continue;
    const from = found.index + found[0].length;
    form.value.lastIndex = from;
    const value = form.value.exec(text)?.[0] ?? '';
    if (value === '') continue;
    const quote = /^\\{0,3}["']/.exec(value)?.[0] ?? '';
    masked += `${text.slice(done, from)}${quote}${MASK}${quote}`;
    done = from + value.length;
  }
  return masked + text.slice(done);
}

/**
 * `"token": "x"` and `X-Api-Key: x` are fields, `token: expired` in the middle of a line is a message: without a quote
 * the name of a field needs two words or the beginning of the line.
 */
function announcesSecret(text: string, found: RegExpExecArray, form: NamedForm): boolean {
  const { name = '', quote = '' } = found.groups ?? {};
  if (!isSecretName(name)) return false;
  return form !== FIELD || quote !== '' || /[-_]/.test(name) || beginsLine(text, found.index);
}

/** Only blanks and list dashes before it. */
function beginsLine(text: string, at: number): boolean {
  let index = at - 1;
  while (index >= 0 && ' \t-'.includes(text.charAt(index))) index -= 1;
  return index < 0 || text.charAt(index) === '\n';
}

/** Text with its secrets masked: console output, summaries, one argument of a command. */
export function maskText(text: string): string {
  let masked = text;
  for (const [pattern, replacement] of FORMS) {
    masked =
      typeof replacement === 'string' ? masked.replace(pattern, replacement) : masked.replace(pattern, replacement);
  }
  return [ASSIGNMENT, FLAG, FIELD].reduce(maskNamed, masked);
}

/** The same number of arguments. Knows what text alone does not: where an argument ends, and which one comes before. */
export function maskArgv(argv: readonly string[]): string[] {
  return argv.map((argument, index) => maskArgument(argument, argv[index - 1] ?? ''));
}

function maskArgument(argument: string, before: string): string {
  if (isSecretFlag(before) && !/^--[A-Za-z]/.test(argument)) return MASK;
  const [, prefix = '', dashes = '', name = ''] = /^((-{0,2})([A-Za-z_][\w.-]*)=)[\s\S]/.exec(argument) ?? [];
  // After `-c` stands a script: `sh -c "PGPASSWORD=x pg_dump app"` is more than one long password.
  const isScript = dashes === '' && /^-[a-z]*c$/.test(before);
  if (isSecretName(name) && !isScript) return `${prefix}${MASK}`;
  return maskText(argument);
}

function isSecretFlag(argument: string): boolean {
  const name = /^--?([A-Za-z][\w.-]*)$/.exec(argument)?.[1];
  return name !== undefined && isSecretName(name);
}

const SHOWN_MAX_CHARS = 80;

/** "What came", for a message: short, on one line, without control or direction characters, secrets masked. */
export function showValue(raw: unknown): string {
  if (raw === undefined) return 'nothing';
  if (Array.isArray(raw)) return `an array of ${raw.length}`;
  if (typeof raw === 'object' && raw !== null) return 'an object';
  if (typeof raw !== 'string') return String(raw);
  const masked = maskText(raw); // before the cut: half a secret is known by no rule
  const head = masked.slice(0, SHOWN_MAX_CHARS).replace(/[\ud800-\udbff]$/, ''); // no half of a character
  const short = masked.length > SHOWN_MAX_CHARS ? `${head}…` : masked;
  return JSON.stringify(short).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, escapeCharacter);
}

function escapeCharacter(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}
