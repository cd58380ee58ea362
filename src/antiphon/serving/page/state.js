// What is asked, in the address, so that it can be shared; on this device, what people allow to be kept.

const KEPT = "antiphon.";
const RECENT = 12;
const LONGEST = 6000;

/** What is asked. */
export const state = {
  model: "",
  adapter: "",
  source: "",
  prefix: "",
  facts: [],
  context: {},
  turns: [],
  view: "attention",
  talk: false,
  beam: 0,
  best: 3,
  sample: false,
  temperature: 1,
  required: "",
  banned: "",
};

const START = structuredClone(state);

/** Takes what the address says; true where it says anything. */
export function fromAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, structuredClone(START));
  for (const [name, value] of said) {
    if (name in START) state[name] = taken(START[name], value);
  }
  return said.size > 0;
}

function taken(usual, text) {
  if (typeof usual === "string") return text;
  try {
    const value = JSON.parse(text);
    return fits(value, usual) ? value : structuredClone(usual);
  } catch {
    return structuredClone(usual);
  }
}

function fits(value, usual) {
  if (value === null || typeof value !== typeof usual || Array.isArray(value) !== Array.isArray(usual)) return false;
  if (usual === START.facts)
    return value.every((fact) => Array.isArray(fact) && fact.length === 3 && fact.every(isText));
  return typeof value !== "object" || Object.values(value).every(isText);
}

const isText = (value) => typeof value === "string";

/** Writes the address; what is too long for one is left out. */
export function toAddress() {
  const said = new URLSearchParams();
  for (const [name, usual] of Object.entries(START)) {
    const value = typeof usual === "string" ? state[name] : JSON.stringify(state[name]);
    const same = value === (typeof usual === "string" ? usual : JSON.stringify(usual));
    if (!same && value.length < LONGEST) said.set(name, value);
  }
  history.replaceState(null, "", said.size ? `#${said}` : location.pathname + location.search);
}

/** What is kept on this device under a name, "" where nothing is, or nothing may be. */
export function kept(name) {
  try {
    return localStorage.getItem(KEPT + name) ?? "";
  } catch {
    return "";
  }
}

/** Keeps a text; "" removes it. */
export function keep(name, text) {
  try {
    if (text) localStorage.setItem(KEPT + name, text);
    else localStorage.removeItem(KEPT + name);
  } catch {
    // Storage is full or not allowed: the page works without.
  }
}

/** The last inputs, newest first. */
export function recent() {
  try {
    const found = JSON.parse(kept("inputs") || "[]");
    return Array.isArray(found) ? found.filter(isText) : [];
  } catch {
    return [];
  }
}

/** Whether the last inputs may be kept. */
export const remembering = () => kept("remember") === "yes";

/** Allows it or not; what was kept goes with the leave. */
export function remember(allowed) {
  keep("remember", allowed ? "yes" : "");
  if (!allowed) keep("inputs", "");
}

/** Keeps an input among the last, where that is allowed. */
export function note(text) {
  if (!remembering() || !text.trim()) return;
  keep("inputs", JSON.stringify([text, ...recent().filter((each) => each !== text)].slice(0, RECENT)));
}
