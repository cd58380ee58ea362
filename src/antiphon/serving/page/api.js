// The server's interface: JSON, server-sent events, uploads. Whatever goes wrong becomes a Problem.

import { say } from "./words.js";

/** Where the server is: the page may lie at its root, or under /page/. */
export const ROOT = new URL(document.baseURI.replace(/page\/?([?#].*)?$/, "").replace(/[?#].*$/, ""));
const TRIES = 6;
const BUSY = [429, 503];

/** What went wrong: where, what, what was found, what to do. */
export class Problem extends Error {
  constructor(error, status = 0) {
    super(error.what);
    Object.assign(this, { where: "", got: "", do: "", ...error, status });
  }
}

let key = "";

/** The key that is sent from now on. It is kept nowhere else. */
export const useKey = (value) => (key = value.trim());

/** JSON from the server. */
export const get = async (path) => (await ask(path, {})).json();

/** JSON for JSON. `options`: a signal to give up, and `waiting(seconds)`, told before each wait for a busy server. */
export async function post(path, body, options = {}) {
  return (await ask(path, sending(body, options), options.waiting)).json();
}

/** JSON for a form with a file. */
export async function upload(path, form, options = {}) {
  return (await ask(path, { method: "POST", body: form, signal: options.signal }, options.waiting)).json();
}

/** The events of a stream: {event, data} each. */
export async function* stream(path, body, options = {}) {
  const response = await ask(path, sending(body, options), options.waiting);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(unreachable);
    if (done) return;
    const events = (rest + value.replaceAll("\r", "")).split("\n\n");
    rest = events.pop();
    for (const lines of events) yield read(lines);
  }
}

function read(lines) {
  const found = { event: "message", data: "" };
  for (const line of lines.split("\n")) {
    const [, name, value] = /^(event|data): ?(.*)$/.exec(line) ?? [];
    if (name) found[name] = name === "data" ? found.data + value : value;
  }
  const data = JSON.parse(found.data);
  if (found.event === "error") throw new Problem(data.error);
  return { event: found.event, data };
}

function sending(body, { signal }) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
}

async function ask(path, request, waiting = () => {}) {
  const headers = { ...request.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  for (let left = TRIES; ; left--) {
    const response = await fetch(new URL(path, ROOT), { ...request, headers }).catch(unreachable);
    if (response.ok) return response;
    const problem = await told(response);
    if (!left || !BUSY.includes(response.status)) throw problem;
    const seconds = Math.min(60, Number(response.headers.get("Retry-After")) || 1);
    waiting(seconds);
    await pause(seconds, request.signal);
  }
}

async function told(response) {
  const said = await response.json().catch(() => null);
  return new Problem(said?.error ?? { what: say("failed"), got: `HTTP ${response.status}` }, response.status);
}

function unreachable(error) {
  if (error.name === "AbortError") throw error;
  throw new Problem({ what: say("unreachable"), do: say("unreachable.do") });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
  });
}
