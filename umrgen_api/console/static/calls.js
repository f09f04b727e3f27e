// Requests to this console's own endpoints: the cookie goes along by itself, the form token in a header.

const token = document.querySelector('meta[name="form-token"]').content;
const UNREACHABLE = "The service cannot be reached just now. Try again in a moment.";

/** An answer that was not what was asked for: `status` (0 where none came) and the contract's error body. */
export class Refusal extends Error {
  constructor(status, body) {
    super(body.message ?? UNREACHABLE);
    this.status = status;
    this.body = body;
  }
}

/** The response, whatever its status; who is no longer signed in is led to the sign-in, after a "signed-out" event. */
export async function ask(method, path, { headers = {}, body, signal } = {}) {
  let response;
  try {
    response = await fetch(path, { method, headers: { "X-Form-Token": token, ...headers }, body, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(0, {});
  }
  if (response.status === 401 || response.url.includes("/console/sign-in")) {
    document.dispatchEvent(new CustomEvent("signed-out"));
    location.assign("/console/sign-in?next=" + encodeURIComponent(location.pathname + location.search));
    throw new Refusal(401, { message: "You are signed out." });
  }
  return response;
}

/** The JSON of a good answer. Throws Refusal. */
export async function call(method, path, options) {
  const response = await ask(method, path, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, body);
  return body;
}

/** A part of a page as the server renders it. Throws Refusal. */
export async function fetchPart(path) {
  const response = await ask("GET", path);
  if (!response.ok) throw new Refusal(response.status, { message: "That is no longer there." });
  const template = document.createElement("template");
  template.innerHTML = await response.text(); // escaped by the server; the policy of the page runs nothing in it
  return template.content;
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
