// An identity provider: the certified `oidc-provider`, on loopback, with people who need no password there.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.ZEROONE_CONSOLE_MODULES}/`);

export const CLIENT = { id: "zeroone", secret: "a secret of the test's own" };

/** Listens at once, because the service wants its address, and answers once it knows the service's. */
export async function startIdentityProvider() {
  const identity = { people: new Map() };
  let handle = (_, response) => response.writeHead(503).end();
  const server = createServer((request, response) => handle(request, response));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  // To the browser another site than the service at 127.0.0.1, as a provider is.
  identity.issuer = `http://localhost:${server.address().port}`;
  identity.close = () => {
    server.close();
    server.closeAllConnections();
  };
  identity.serve = async (service) => {
    const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")).href);
    const provider = new Provider(identity.issuer, {
      clients: [{ client_id: CLIENT.id, client_secret: CLIENT.secret, redirect_uris: [`${service}/api/auth/oidc/callback`] }],
      claims: { openid: ["sub"], email: ["email", "email_verified"] },
      // In the ID token itself, as most providers have it.
      conformIdTokenClaims: false,
      features: { devInteractions: { enabled: true } },
      findAccount: (_, sub) => {
        const person = identity.people.get(sub);
        return person && { accountId: sub, claims: () => ({ sub, ...person }) };
      },
    });
    handle = provider.callback();
  };
  return identity;
}
