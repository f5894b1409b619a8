/** Reads the parameters of the EC2 query protocol, and the error that every action answers with. */

export class Ec2Error extends Error {
  readonly code: string;
  readonly status: number;
  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** `*` any run, `?` any one character. */
export function matchesPattern(value: string, pattern: string): boolean {
  if (!/[*?]/.test(pattern)) return value === pattern;
  const source = pattern
    .replace(/[\\^$.+()|[\]{}]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 's').test(value);
}

export function requireParam(params: URLSearchParams, name: string): string {
  const value = params.get(name);
  if (value === null || value === '') {
    throw new Ec2Error('MissingParameter', `The request must contain the parameter ${name}`);
  }
  return value;
}

/** `Name.1`, `Name.2` … without gaps. */
export function readList(params: URLSearchParams, name: string): string[] {
  const values: string[] = [];
  for (let index = 1; ; index++) {
    const value = params.get(`${name}.${index}`);
    if (value === null) return values;
    values.push(value);
  }
}

export function readFilters(params: URLSearchParams): Map<string, string[]> {
  const filters = new Map<string, string[]>();
  for (let index = 1; ; index++) {
    const name = params.get(`Filter.${index}.Name`);
    if (name === null) return filters;
    filters.set(name, readList(params, `Filter.${index}.Value`));
  }
}

interface Page {
  offset: number;
  size: number;
}

export function readPage(params: URLSearchParams, limits: { min: number; max: number; ids: readonly string[] }): Page {
  const rawSize = params.get('MaxResults');
  const rawToken = params.get('NextToken');
  if (rawSize === null && rawToken === null) return { offset: 0, size: limits.max };
  if (limits.ids.length > 0) {
    throw new Ec2Error(
      'InvalidParameterCombination',
      'The parameter instancesSet cannot be used with the parameter maxResults',
    );
  }
  const size = rawSize === null ? limits.max : Number(rawSize);
  if (!Number.isInteger(size) || size < limits.min || size > limits.max) {
    throw new Ec2Error('InvalidParameterValue', `MaxResults must be ${limits.min} to ${limits.max}, not ${rawSize}`);
  }
  return { offset: rawToken === null ? 0 : readToken(rawToken), size };
}

function readToken(token: string): number {
  const match = /^offset:(\d+)$/.exec(Buffer.from(token, 'base64url').toString());
  if (match === null) throw new Ec2Error('InvalidNextToken', 'The token is not valid');
  return Number(match[1]);
}

export function cutPage<T>(all: readonly T[], page: Page): { items: readonly T[]; nextToken: string | undefined } {
  const end = page.offset + page.size;
  const nextToken = end < all.length ? Buffer.from(`offset:${end}`).toString('base64url') : undefined;
  return { items: all.slice(page.offset, end), nextToken };
}
