/** What a variable may say: the kinds that more than one group of settings knows. */
import { ID_PATTERN } from '../workspace.ts';

/** `expected` ends the sentence "… must be". `parse` answers null for what it does not understand. */
export interface Kind<T> {
  expected: string;
  parse(text: string): T | null;
  isSecret?: boolean;
}

export const matching = (expected: string, pattern: RegExp): Kind<string> => ({
  expected,
  parse: (text) => (pattern.test(text) ? text : null),
});

export function oneOf<const T extends string>(words: readonly T[]): Kind<T> {
  return { expected: words.join(' or '), parse: (text) => words.find((word) => word === text) ?? null };
}

export function whole(min: number, max: number): Kind<number> {
  return {
    expected: `a whole number from ${min} to ${max}`,
    parse(text) {
      const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
      return value >= min && value <= max ? value : null;
    },
  };
}

export const PORT = whole(0, 65_535);
export const ANY_TEXT = matching('a path', /./);
export const SECRET_TEXT: Kind<string> = { ...matching('text', /./), isSecret: true };
export const ORG_ID = matching('an id of letters, digits, dots, dashes and underscores, at most 63', ID_PATTERN);
