// Tokens that no provider should give: each is refused, and the next right one is taken.

import { strict as assert } from "node:assert";
import { generateKeyPairSync, sign } from "node:crypto";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { World } from "./world.mjs";

const CLIENT = "zeroone";
const provider = { keys: [], token: () => "", asked: [], away: false };
let world;
let server;

function newKey(kid) {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { kid, privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kid, use: "sig", alg: "RS256" } };
}

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function signed(key, claims, header = {}) {
  const text = `${part({ alg: "RS256", kid: key.kid, ...header })}.${part(claims)}`;
  return `${text}.${sign("RSA-SHA256", Buffer.from(text), key.privateKey).toString("base64url")}`;
}

before(async () => {
  server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://here");
    provider.asked.push(pathname);
    if (provider.away) return request.socket.destroy();
    const answer = (value) => response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(value));
    if (pathname === "/.well-known/openid-configuration") {
      const issuer = provider.issuer;
      return answer({
        issuer, authorization_endpoint: `${issuer}/auth`, token_endpoint: `${issuer}/token`, jwks_uri: `${issuer}/keys`,
        response_types_supported: ["code"], subject_types_supported: ["public"], id_token_signing_alg_values_supported: ["RS256"],
      });
    }
    if (pathname === "/keys") return answer({ keys: provider.keys.map((it) => it.jwk) });
    return answer({ access_token: "a", token_type: "Bearer", id_token: provider.token() });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  provider.issuer = `http://127.0.0.1:${server.address().port}`;
  world = await World.start({ ZEROONE_OIDC__ISSUER: provider.issuer, ZEROONE_OIDC__CLIENT_ID: CLIENT });
});
after(async () => {
  await world?.stop();
  server.close();
  server.closeAllConnections();
});

/** The whole way of a browser, and where it ends; `token` makes the token of the nonce. */
async function comeWith(token, { cookie: other, next = "/" } = {}) {
  const start = await fetch(`${world.url}/api/auth/oidc/start?next=${encodeURIComponent(next)}`, { redirect: "manual" });
  assert.equal(start.status, 302);
  const cookie = start.headers.get("set-cookie").split(";")[0];
  const asked = new URL(start.headers.get("location")).searchParams;
  assert.deepEqual([asked.get("code_challenge_method"), asked.get("response_type")], ["S256", "code"]);
  provider.token = () => token(asked.get("nonce"));
  const back = await fetch(`${world.url}/api/auth/oidc/callback?code=c&state=${asked.get("state")}`, {
    headers: { Cookie: other ?? cookie, Accept: "text/html" },
    redirect: "manual",
  });
  const session = back.headers.getSetCookie().some((it) => it.startsWith("zeroone_session=zs_"));
  return { to: back.headers.get("location"), session };
}

const now = () => Math.floor(Date.now() / 1000);
const good = (nonce) => ({
  iss: provider.issuer, sub: "ada", aud: CLIENT, iat: now(), exp: now() + 300, nonce, email: "ada@example.com", email_verified: true,
});

test("only a token of this provider, for this service and this attempt, signs somebody in", async () => {
  const key = newKey("first");
  provider.keys = [key];
  assert.deepEqual(await comeWith((nonce) => signed(key, good(nonce))), { to: "/", session: true });
  const stranger = newKey("first");
  const forged = {
    "another issuer": (nonce) => signed(key, { ...good(nonce), iss: "https://evil.test" }),
    "another service's": (nonce) => signed(key, { ...good(nonce), aud: "other" }),
    "this service among others": (nonce) => signed(key, { ...good(nonce), aud: [CLIENT, "other"] }),
    "over": (nonce) => signed(key, { ...good(nonce), iat: now() - 900, exp: now() - 600 }),
    "another attempt's": () => signed(key, good("another nonce")),
    "no attempt's": (nonce) => signed(key, { ...good(nonce), nonce: undefined }),
    "signed by a stranger": (nonce) => signed(stranger, good(nonce)),
    "not signed": (nonce) => `${part({ alg: "none" })}.${part(good(nonce))}.`,
    "changed after it was signed": (nonce) => {
      const [header, , signature] = signed(key, good(nonce)).split(".");
      return `${header}.${part({ ...good(nonce), email: "admin@localhost" })}.${signature}`;
    },
    "no token": () => "hello",
  };
  for (const [what, token] of Object.entries(forged)) {
    assert.deepEqual(await comeWith(token), { to: "/sign-in?reason=provider", session: false }, what);
  }
  for (const claims of [{ email_verified: false }, { email_verified: undefined }, { email: undefined }, { email: "nobody" }]) {
    const { to, session } = await comeWith((nonce) => signed(key, { ...good(nonce), sub: "eve", ...claims }));
    assert.deepEqual([to, session], ["/sign-in?reason=address", false], JSON.stringify(claims));
  }
  assert.deepEqual(await comeWith((nonce) => signed(key, good(nonce)), { cookie: "zeroone_oidc=" }), { to: "/sign-in?reason=again", session: false });
});

test("one goes on to a page of this service alone", async () => {
  const [key] = provider.keys;
  for (const [next, to] of [["/agents?status=ERROR", "/agents?status=ERROR"], ["//evil.test", "/"], ["https://evil.test/", "/"], ["/\\evil.test", "/"]]) {
    assert.equal((await comeWith((nonce) => signed(key, good(nonce)), { next })).to, to);
  }
});

test("a provider that signs with a new key is asked for its keys, and one that is away costs a sentence", async () => {
  const next = newKey("second");
  provider.keys = [next];
  // It is asked again after some seconds at the earliest, whoever comes with whatever.
  let came;
  const end = Date.now() + 30_000;
  do {
    came = await comeWith((nonce) => signed(next, good(nonce)));
    if (!came.session) await new Promise((resolve) => setTimeout(resolve, 500));
  } while (!came.session && Date.now() < end);
  assert.deepEqual(came, { to: "/", session: true });
  const before = provider.asked.length;
  for (let tries = 0; tries < 5; tries++) {
    await comeWith((nonce) => signed(newKey(`unknown-${tries}`), good(nonce)));
  }
  const questions = provider.asked.slice(before).filter((path) => path === "/keys").length;
  assert.ok(questions <= 1, `${questions} questions for unknown keys`);
  provider.away = true;
  const lost = await comeWith((nonce) => signed(next, good(nonce)));
  assert.deepEqual(lost, { to: "/sign-in?reason=provider", session: false });
});
