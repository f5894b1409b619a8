// Exit code 0 when the gateway of this container is live. No curl in the image, and the certificate names another host.
import http from 'node:http';
import https from 'node:https';

const port = process.env.SALLYPORT_PORT ?? '8080';
const { get } = process.env.SALLYPORT_TLS_CERT === undefined ? http : https;
const request = get({ host: '127.0.0.1', port, path: '/healthz', rejectUnauthorized: false, timeout: 4000 });
request.on('response', ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1));
request.on('timeout', () => process.exit(1));
request.on('error', () => process.exit(1));
