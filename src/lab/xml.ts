/** Answers of the EC2 query protocol: camelCase members, every list as `<name>` with `<item>` children. */

export type XmlValue =
  | string
  | number
  | boolean
  | null
  | readonly XmlValue[]
  | { readonly [name: string]: XmlValue | undefined };

/** One element. `undefined` members are left out; null is an empty element. */
export function element(name: string, value: XmlValue, attributes = ''): string {
  const inner = content(value);
  return inner === '' ? `<${name}${attributes}/>` : `<${name}${attributes}>${inner}</${name}>`;
}

function content(value: XmlValue): string {
  if (value === null) return '';
  if (isList(value)) return value.map((item) => element('item', item)).join('');
  if (typeof value !== 'object') return escapeText(String(value));
  return Object.entries(value)
    .map(([name, member]) => (member === undefined ? '' : element(name, member)))
    .join('');
}

function isList(value: XmlValue): value is readonly XmlValue[] {
  return Array.isArray(value);
}

function escapeText(text: string): string {
  return text.replace(/[&<>"]/g, (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[char] ?? char);
}
