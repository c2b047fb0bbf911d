// The REST API, as every other client uses it. The session's cookie says who is asking.

export const base = document.documentElement.dataset.base ?? "";
/** The agent of this page. */
export const agentId = document.documentElement.dataset.agent ?? "";
export const to = (path) => base + path;

/** What the API says when it does not do what was asked (RFC 9457), or that it cannot be reached. */
export class Problem extends Error {
  constructor(status, body = {}) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.code = body.code ?? (status === 0 ? "offline" : "");
    this.body = body;
    /** What is wrong, by field. */
    this.errors = body.errors ?? [];
  }
}

export const offline = () => new Problem(0, { code: "offline", detail: "The service cannot be reached." });

const remedies = new Map();

/** What happened and what to do next, in sentences. */
export async function sentence(problem) {
  if (!(problem instanceof Problem)) return `Something went wrong in this page: ${problem?.message ?? problem}. Load it again.`;
  if (problem.code === "offline") return `${problem.message} Check the connection; nothing is lost, try again.`;
  if (problem.errors.length) {
    return `${problem.message} ${problem.errors.map((it) => `${it.pointer ?? it.parameter ?? ""} ${it.detail}`.trim()).join("; ")}.`;
  }
  const remedy = problem.code ? await remedyOf(problem.code) : "";
  return remedy && !problem.message.includes(remedy) ? `${problem.message} ${remedy}` : problem.message;
}

/** The service itself knows what to do about each of its problems. */
async function remedyOf(code) {
  if (!remedies.has(code)) {
    const page = await fetch(to(`/problems/${encodeURIComponent(code)}`), { headers: { Accept: "application/json" } })
      .then((response) => (response.ok ? response.json() : {}))
      .catch(() => ({}));
    remedies.set(code, page.remedy ?? "");
  }
  return remedies.get(code);
}

/** Sends a request and gives the response, whatever kind it is. */
export async function request(path, { method = "GET", json, headers = {}, ...rest } = {}) {
  const options = { method, headers: { Accept: "application/json", ...headers }, cache: "no-store", ...rest };
  if (json !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(json);
  }
  let response;
  try {
    response = await fetch(to(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    dispatchEvent(new CustomEvent("service-away"));
    throw offline();
  }
  dispatchEvent(new CustomEvent("service-there"));
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  if (response.status === 401 && !path.startsWith("/api/auth/")) dispatchEvent(new CustomEvent("signed-out"));
  throw new Problem(response.status, body);
}

/** Sends a request and gives the JSON of its answer. */
export async function call(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

/** The same, with the entity tag. */
export async function read(path) {
  const response = await request(path);
  return { etag: response.headers.get("ETag"), body: await response.json() };
}

/** An address with these parameters; empty ones are left out. */
export function query(path, parameters) {
  const entries = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(entries).toString();
  return text ? `${path}?${text}` : path;
}

/** A name for one request, so that a retry is not a second one. */
export const once = () => ({ "Idempotency-Key": [...crypto.getRandomValues(new Uint8Array(16))].map((it) => it.toString(16).padStart(2, "0")).join("") });
