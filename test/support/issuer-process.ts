/**
 * An OIDC issuer as a process of its own: oidc-provider, unchanged, on loopback. JWT access tokens by the grant
 * `client_credentials`; what else the token shall claim is asked for with the token, in the form field `claims`.
 *
 * Gets ISSUER_KEYS (private keys, JSON) and ISSUER_PORT; takes new keys by message and answers with `{ rotated: true }`.
 * Says `listening on <url>`, and `asked for <path>` for each request but those for tokens.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import Provider, { type Configuration, type JWKS, type KoaContextWithOIDC } from 'oidc-provider';

type Handler = (req: IncomingMessage, res: ServerResponse) => unknown;

const { ISSUER_KEYS = '', ISSUER_PORT = '0' } = process.env;
let handle: Handler = (_req, res) => void res.writeHead(503).end();
const server = createServer((req, res) => {
  if (req.method === 'GET') process.stdout.write(`asked for ${req.url}\n`);
  void handle(req, res);
});
await new Promise<void>((resolve) => server.listen(Number(ISSUER_PORT), '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

function provide(keys: JWKS): void {
  const provider = new Provider(issuer, configuration(keys));
  provider.on('server_error', (_ctx, error) => process.stdout.write(`${error.stack}\n`));
  handle = provider.callback();
}

function configuration(keys: JWKS): Configuration {
  return {
    jwks: keys,
    clients: [
      {
        client_id: 'test',
        client_secret: 'test-secret',
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
      },
    ],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: '',
          audience: resource,
          accessTokenTTL: 600,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: formOf(ctx).alg as 'RS256' } },
        }),
      },
    },
    formats: {
      customizers: {
        jwt(ctx, _token, jwt) {
          Object.assign(jwt.payload ?? {}, JSON.parse(formOf(ctx).claims ?? '{}'));
        },
      },
    },
  };
}

/** The form as it came: the provider passes on only what its grant knows. */
function formOf({ oidc }: KoaContextWithOIDC): Record<string, string> {
  return (oidc.body ?? {}) as Record<string, string>;
}

provide(JSON.parse(ISSUER_KEYS));
process.on('message', (keys: JWKS) => {
  provide(keys);
  process.send?.({ rotated: true });
});
process.stdout.write(`listening on ${issuer}\n`);
