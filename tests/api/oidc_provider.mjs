// The certified OpenID provider `oidc-provider`, with the client, keys and users of the last line of its input.
//
// It prints its port, then "ready" after each line. What it issued stays valid over all lines.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

console.info = console.error; // the provider's notices

let answer = (_request, response) => response.writeHead(503).end();
const server = createServer((request, response) => answer(request, response));
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
console.log(server.address().port);

const stored = new Map();

// A store of all providers of this process; nothing in it expires during a test.
class Store {
  constructor(kind) {
    this.kind = kind;
  }
  async upsert(id, payload) {
    stored.set(`${this.kind} ${id}`, payload);
  }
  async find(id) {
    return stored.get(`${this.kind} ${id}`);
  }
  async findByUid(uid) {
    return [...stored.values()].find((payload) => payload.kind === this.kind && payload.uid === uid);
  }
  async consume(id) {
    stored.get(`${this.kind} ${id}`).consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id) {
    stored.delete(`${this.kind} ${id}`);
  }
  async revokeByGrantId(grantId) {
    for (const [key, payload] of stored) if (payload.grantId === grantId) stored.delete(key);
  }
}

// A user's claims are those in `users`, and those that only the ID token or only the userinfo endpoint has.
function providerOf({ client, keys, users, claims, path }) {
  const provider = new Provider(`http://127.0.0.1:${server.address().port}${path}`, {
    adapter: Store,
    clients: [client],
    jwks: { keys },
    claims,
    conformIdTokenClaims: false, // the claims of the scopes are in the ID token
    issueRefreshToken: async (_context, of) => of.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    pkce: { required: () => true },
    cookies: { keys: ['of a test'] },
    async findAccount(_context, id) {
      if (!(id in users)) return undefined;
      return { accountId: id, claims: async (use) => ({ sub: id, ...users[id], ...users[id][use] }) };
    },
  });
  provider.on('server_error', (_context, error) => console.error(error.stack));
  return provider;
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const callback = providerOf(asked).callback();
  answer = (request, response) => {
    request.originalUrl = request.url; // the provider finds out from both where it is mounted
    if (request.url.startsWith(asked.path)) request.url = request.url.slice(asked.path.length);
    return callback(request, response);
  };
  console.log('ready');
}
process.exit(0);
