/** Untrusted input → a typed value, or `invalid_request` that names the field, what was expected and what came. */
import { z } from 'zod';
import { showValue } from '../access/mask.ts';
import { SallyportError } from '../errors.ts';

export function validate<Schema extends z.ZodType>(schema: Schema, raw: unknown): z.output<Schema> {
  const result = schema.safeParse(raw, { reportInput: true });
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new SallyportError('invalid_request', issue === undefined ? 'the request is invalid' : describe(issue));
}

/** Text that PostgreSQL can hold: no NUL, no half characters. */
export function textSchema(minChars: number, maxChars: number): z.ZodString {
  return z
    .string()
    .min(minChars)
    .max(maxChars)
    .regex(/^[^\0\p{Cs}]*$/u, { error: 'expected text without NUL and lone surrogates' });
}

function describe(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') return `unknown field ${showValue(issue.keys[0])}`;
  return `${issue.path.join('.') || 'the request'}: ${issue.message}, got ${showValue(issue.input)}`;
}
