/**
 * The document as one HTML page: made here, once, so that it needs no script and no other file, and its policy can forbid
 * everything but its own style.
 */
import { createHash } from 'node:crypto';
import { STYLE } from './docs-style.ts';

type JsonObject = Record<string, unknown>;

/** Escaped text; only these are joined to a page. */
class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Part = Html | string | number | readonly Part[];

/** Everything that is put in is escaped, unless it is Html already. */
function html(strings: TemplateStringsArray, ...parts: Part[]): Html {
  return new Html(strings.map((text, index) => (index === 0 ? text : toText(parts[index - 1] ?? '') + text)).join(''));
}

function toText(part: Part): string {
  if (part instanceof Html) return part.text;
  if (typeof part === 'object') return part.map(toText).join('');
  return String(part).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

export function renderPage(document: JsonObject): { html: string; policy: string } {
  const digest = createHash('sha256').update(STYLE).digest('base64');
  return {
    html: `<!doctype html>\n${pageOf(document).text}\n`,
    policy: `default-src 'none'; style-src 'sha256-${digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  };
}

interface Shown {
  method: string;
  path: string;
  operation: JsonObject;
}

function pageOf(document: JsonObject): Html {
  const info = objectAt(document, 'info');
  const tags = document.tags as { name: string; description: string }[];
  const all = operationsOf(document);
  const of = (tag: string): Shown[] => all.filter(({ operation }) => (operation.tags as string[]).includes(tag));
  const schemas = Object.entries(objectAt(objectAt(document, 'components'), 'schemas'));
  return html`<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${String(info.title)} API</title>
<style>${new Html(STYLE)}</style>
</head>
<body>
<nav aria-label="Contents">
<a class="brand" href="#top">${String(info.title)} <small>${String(info.version)}</small></a>
${tags.map(({ name }) => html`<h2>${name}</h2><ul>${of(name).map(navItem)}</ul>`)}
<h2>schemas</h2><ul>${schemas.map(([name]) => html`<li><a href="#${name}">${name}</a></li>`)}</ul>
</nav>
<main id="top">
<h1>${String(info.title)} API</h1>
<p>${prose(String(info.description))}</p>
<p>Every request but those to <em>service</em> routes carries <code>Authorization: Bearer &lt;token&gt;</code>.
The same as JSON: <a href="openapi.json">openapi.json</a>.</p>
${tags.map((tag) => html`<h2 class="tag">${tag.name}</h2><p>${tag.description}.</p>${of(tag.name).map(section)}`)}
<h2 class="tag">schemas</h2>
${schemas.map(([name, schema]) => schemaSection(name, schema as JsonObject))}
</main>
</body>
</html>`;
}

function operationsOf(document: JsonObject): Shown[] {
  return Object.entries(objectAt(document, 'paths')).flatMap(([path, methods]) =>
    Object.entries(methods as JsonObject).map(([method, operation]) => ({
      method: method.toUpperCase(),
      path,
      operation: operation as JsonObject,
    })),
  );
}

function navItem({ method, operation }: Shown): Html {
  return html`<li><a href="#${String(operation.operationId)}">${badge(method)} ${String(operation.summary)}</a></li>`;
}

function badge(method: string): Html {
  return html`<b class="m ${method.toLowerCase()}">${method}</b>`;
}

function section({ method, path, operation }: Shown): Html {
  const { operationId, summary, description = '' } = operation;
  const needs = operation['x-required'];
  const words = path.split(/(\{\w+\})/).map((word) => (word.startsWith('{') ? html`<var>${word}</var>` : word));
  return html`<section id="${String(operationId)}">
<h3><a href="#${String(operationId)}">${String(summary)}</a></h3>
<p class="route">${badge(method)} <code>${words}</code>${needs === undefined ? '' : html` <span class="needs">${String(needs)}</span>`}</p>
<p>${prose(String(description))}</p>
${parameterTable((operation.parameters ?? []) as JsonObject[])}
${bodyPart(operation.requestBody as JsonObject | undefined)}
${answerTable(objectAt(operation, 'responses'))}
</section>`;
}

function parameterTable(parameters: readonly JsonObject[]): Part {
  if (parameters.length === 0) return '';
  const rows = parameters.map((one) => {
    const schema = one.schema as JsonObject;
    return html`<tr><td><code>${String(one.name)}</code></td><td>${String(one.in)}</td><td>${typeOf(schema)}</td>
<td>${prose(String(one.description ?? schema.description ?? ''))}</td></tr>`;
  });
  return table('Parameters', rows);
}

function bodyPart(body: JsonObject | undefined): Part {
  if (body === undefined) return '';
  const [[type, { schema, example }]] = Object.entries(objectAt(body, 'content')) as [[string, JsonObject]];
  return html`<h4>Body</h4><p><code>${type}</code>: ${typeOf(schema as JsonObject)}</p>${exampleOf(example)}`;
}

function answerTable(answers: JsonObject): Html {
  const rows = Object.entries(answers).map(([status, raw]) => {
    const answer = raw as JsonObject;
    const contents = Object.entries((answer.content ?? {}) as Record<string, JsonObject>);
    const types = contents.map(
      ([type, { schema }]) => html`<div><code>${type}</code> ${typeOf(schema as JsonObject)}</div>`,
    );
    const examples = contents.map(([, { example }]) => exampleOf(example));
    const isProblem = Number(status) >= 400;
    return html`<tr><td><b class="s s${status.charAt(0)}">${status}</b></td>
<td>${prose(String(answer.description))}${isProblem ? '' : [types, examples]}</td></tr>`;
  });
  return table('Answers', rows);
}

function table(title: string, rows: readonly Html[]): Html {
  return html`<h4>${title}</h4><div class="wide"><table>${rows}</table></div>`;
}

function exampleOf(example: unknown): Part {
  return example === undefined ? '' : html`<pre>${JSON.stringify(example, null, 2)}</pre>`;
}

function schemaSection(name: string, schema: JsonObject): Html {
  const description = schema.description === undefined ? '' : html`<p>${prose(String(schema.description))}</p>`;
  return html`<section id="${name}"><h3><a href="#${name}">${name}</a></h3>${description}${fieldsOf(schema)}</section>`;
}

/** Fields of an object, or of each arm of a union. */
function fieldsOf(schema: JsonObject): Part {
  const arms = (schema.anyOf ?? schema.oneOf) as JsonObject[] | undefined;
  if (arms !== undefined) {
    return arms.map((arm, index) => [
      html`<p class="arm">${index === 0 ? 'One of' : 'or'} ${'$ref' in arm ? typeOf(arm) : ''}</p>`,
      fieldsOf(arm),
    ]);
  }
  if (schema.properties === undefined) return '';
  const required = new Set((schema.required ?? []) as string[]);
  const rows = Object.entries(objectAt(schema, 'properties')).map(([name, raw]) => {
    const field = raw as JsonObject;
    const need = required.has(name) ? '' : html` <small>optional</small>`;
    return html`<tr><td><code>${name}</code>${need}</td><td>${typeOf(field)}</td><td>${prose(noteOf(field))}</td></tr>`;
  });
  return html`<div class="wide"><table>${rows}</table></div>`;
}

/** What a type does not say. */
function noteOf(field: JsonObject): string {
  const isDefaultWorthSaying = field.default !== undefined && JSON.stringify(field.default) !== '{}';
  return [
    field.description,
    // A format says it better than the pattern that comes with it.
    field.pattern === undefined || field.format !== undefined ? undefined : `Matches \`${field.pattern}\`.`,
    isDefaultWorthSaying ? `Default \`${JSON.stringify(field.default)}\`.` : undefined,
  ]
    .filter((note) => note !== undefined)
    .join(' ');
}

function typeOf(schema: JsonObject): Part {
  if (typeof schema.$ref === 'string') {
    const name = schema.$ref.slice(schema.$ref.lastIndexOf('/') + 1);
    return html`<a class="t" href="#${name}">${name}</a>`;
  }
  const arms = (schema.anyOf ?? schema.oneOf ?? schema.allOf) as JsonObject[] | undefined;
  if (arms !== undefined) return arms.map((arm, index) => [index === 0 ? '' : ' or ', typeOf(arm)]);
  const values = (schema.enum ?? (schema.const === undefined ? undefined : [schema.const])) as unknown[] | undefined;
  if (values !== undefined) return values.map((value) => [html`<code class="v">${JSON.stringify(value)}</code>`, ' ']);
  if (schema.type === 'array') return ['array of ', typeOf((schema.items ?? {}) as JsonObject)];
  if (schema.type === 'object' && typeof schema.additionalProperties === 'object')
    return ['map of ', typeOf(schema.additionalProperties as JsonObject)];
  if (schema.type === 'object' && schema.properties !== undefined) return ['object ', memberNames(schema)];
  const types = Array.isArray(schema.type) ? schema.type.join(' or ') : String(schema.format ?? schema.type ?? 'any');
  return html`<span class="t">${types}</span>`;
}

function memberNames(schema: JsonObject): Html {
  return html`<code class="v">{${Object.keys(objectAt(schema, 'properties')).join(', ')}}</code>`;
}

/** Text with `code` in it. */
function prose(text: string): Part {
  return text.split('`').map((piece, index) => (index % 2 === 1 ? html`<code>${piece}</code>` : piece));
}

function objectAt(object: JsonObject, name: string): JsonObject {
  return object[name] as JsonObject;
}
