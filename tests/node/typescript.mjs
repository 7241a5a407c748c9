// What a client of the TypeScript SDK finds at a server: `node typescript.mjs URL MAJOR [MODE]`.
// MAJOR is the SDK's version, 1 or 2; MODE, of version 2, how it chooses a revision: auto, or legacy.
// Tells on standard output, a JSON object a line: {"authorize": URL} for a browser to open, whose answer is one line
// on standard input with the URL that the browser was sent back to, and at last {"found": ...}.
import { once } from 'node:events';
import readline from 'node:readline';
import * as version2 from '@modelcontextprotocol/client';
import * as auth from '@modelcontextprotocol/sdk/client/auth.js';
import * as clients from '@modelcontextprotocol/sdk/client/index.js';
import * as transports from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [url, major, mode] = process.argv.slice(2);
const version1 = { ...auth, ...clients, ...transports };
const { Client, StreamableHTTPClientTransport, UnauthorizedError } = major === '1' ? version1 : version2;
const input = readline.createInterface({ input: process.stdin });
const tell = (message) => console.log(JSON.stringify(message));

class Login {
  redirectUrl = 'http://127.0.0.1:33418/callback';
  clientMetadata = {
    client_name: 'TypeScript SDK',
    redirect_uris: [this.redirectUrl],
    grant_types: ['authorization_code', 'refresh_token'],
    token_endpoint_auth_method: 'none',
  };
  clientInformation = () => this.client;
  saveClientInformation = (client) => { this.client = client; };
  tokens = () => this.granted;
  saveTokens = (tokens) => { this.granted = tokens; };
  codeVerifier = () => this.verifier;
  saveCodeVerifier = (verifier) => { this.verifier = verifier; };
  redirectToAuthorization = (url) => tell({ authorize: url.href });
}

async function connect(url) {
  const login = new Login();
  const options = major === '1' ? {} : { versionNegotiation: { mode } };
  const make = () => [
    new Client({ name: 'matrix', version: '1' }, options),
    new StreamableHTTPClientTransport(url, { authProvider: login }),
  ];
  let [client, transport] = make();
  try {
    await client.connect(transport);
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    const [location] = await once(input, 'line');
    const { searchParams } = new URL(location);
    await transport.finishAuth(major === '1' ? searchParams.get('code') : searchParams);
    [client, transport] = make();
    await client.connect(transport);
  }
  return [client, transport];
}

// Version 1 has a schema of the result before the options.
const call = (client, params, options) => client.callTool(params, ...(major === '1' ? [undefined, options] : [options]));
const text = (result) => result.content[0].text;
const echo = { name: 'echo', arguments: { message: 'grüße 🎈' } };
const long = (duration, steps) => ({ name: 'trigger-long-running-operation', arguments: { duration, steps } });

async function cancelACall(client) {
  const abort = new AbortController();
  const options = { signal: abort.signal, onprogress: () => abort.abort('enough') };
  await call(client, long(60, 600), options).then(
    () => { throw new Error('it was not cancelled'); },
    () => {},
  );
}

const [client, transport] = await connect(new URL(url));
const found = { revision: transport.protocolVersion };
found.tools = (await client.listTools()).tools.map((tool) => tool.name);
found.echoed = text(await call(client, echo));
found.progress = [];
const onprogress = ({ progress }) => found.progress.push(progress);
found.completed = text(await call(client, long(0.4, 4), { onprogress }));
const error = await call(client, { name: 'echo', arguments: {} });
found.refused = error.isError ? text(error) : '';
await cancelACall(client);
found.after_cancelling = text(await call(client, echo));
tell({ found });
await transport.terminateSession();
await client.close();
process.exit();
