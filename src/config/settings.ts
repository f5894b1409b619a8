/** The environment as settings: each read by name and kind; what is wrong with any becomes a sentence in one list. */
import { readFileSync } from 'node:fs';
import { showValue } from '../access/mask.ts';
import { ANY_TEXT, type Kind, oneOf } from './kinds.ts';

export interface Settings {
  readonly problems: string[];
  isSet(name: string): boolean;
  /** Null: not set, or wrong and then among the problems. */
  read<T>(name: string, kind: Kind<T>): T | null;
  /** The text of the file that the variable names. */
  readFile(name: string): string | null;
  /** Names of ours that are set and that nobody asked for, each with the names that were asked for. */
  unread(): { name: string; known: readonly string[] }[];
}

export function createSettings(env: NodeJS.ProcessEnv): Settings {
  const problems: string[] = [];
  const known = new Set<string>(['SALLYPORT_URL', 'SALLYPORT_TOKEN']); // the command line reads these

  function isSet(name: string): boolean {
    known.add(name);
    return env[name] !== undefined;
  }

  function read<T>(name: string, { expected, parse, isSecret = false }: Kind<T>): T | null {
    known.add(name);
    const text = env[name];
    if (text === undefined) return null;
    const value = text === '' ? null : parse(text);
    const came =
      text === '' ? ', and is empty: unset it or give it a value' : isSecret ? '' : `, not ${showValue(text)}`;
    if (value === null) problems.push(`${name} must be ${expected}${came}.`);
    return value;
  }

  function readFile(name: string): string | null {
    const path = read(name, ANY_TEXT);
    if (path === null) return null;
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : 'an unknown error';
      problems.push(`${name} must name a file that can be read: ${showValue(path)} gives ${code}.`);
      return null;
    }
  }

  function unread(): { name: string; known: readonly string[] }[] {
    const names = Object.keys(env).filter((name) => name.startsWith('SALLYPORT_') && !known.has(name));
    return names.sort().map((name) => ({ name, known: [...known] }));
  }

  return { problems, isSet, read, readFile, unread };
}

export function isOn(settings: Settings, name: string): boolean {
  return settings.read(name, oneOf(['on', 'off'])) === 'on';
}
