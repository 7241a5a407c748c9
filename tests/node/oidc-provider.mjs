// A certified OpenID provider for tests of single sign-on, with the development login page that it brings along:
// whoever types a name is that account. It says "ready" when it listens.
//
//   node oidc-provider.mjs '{"port": 9000, "redirectUri": "…", "accounts": "accounts.json", …}'
//
// `accounts` is a file with the claims of each account, read anew at each sign-in. `algorithm` signs ID tokens,
// `claimsInIdToken` puts all claims there, which are at the userinfo endpoint otherwise.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import Provider from "oidc-provider";

const { port, redirectUri, accounts, algorithm = "RS256", claimsInIdToken = false, authMethod, issuer } =
  JSON.parse(process.argv[2]);

const key = (alg, pair) => ({ ...pair.privateKey.export({ format: "jwk" }), alg, use: "sig", kid: randomUUID() });

const provider = new Provider(issuer ?? `http://127.0.0.1:${port}`, {
  clients: [{
    client_id: "lockgate",
    client_secret: "the client's secret",
    redirect_uris: [redirectUri],
    id_token_signed_response_alg: algorithm,
    token_endpoint_auth_method: authMethod ?? "client_secret_basic",
  }],
  clientAuthMethods: [authMethod ?? "client_secret_basic"],
  jwks: { keys: [
    key("RS256", generateKeyPairSync("rsa", { modulusLength: 2048 })),
    key("ES256", generateKeyPairSync("ec", { namedCurve: "P-256" })),
  ] },
  scopes: ["openid", "offline_access", "roles"],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"], roles: ["roles", "teams"] },
  conformIdTokenClaims: !claimsInIdToken,
  pkce: { required: () => true },
  cookies: { keys: [randomUUID()] },
  findAccount: (_, sub) => ({
    accountId: sub,
    claims: () => ({ sub, ...JSON.parse(readFileSync(accounts))[sub] }),
  }),
});

provider.listen(port, "127.0.0.1", () => console.log("ready"));
