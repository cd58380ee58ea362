// The search as a tree: what may come next, and next after that. Any way can be opened, and answered from.

import { arrange } from "./branches.js";
import { draw, find, make, still } from "./dom.js";
import { percent, say } from "./words.js";

const WIDTH = 4;
const OPENED = 3;
// Where words are tokens, this mark says that one stands close to the word before.
const JOINED = "\uffed";

const panel = find("tree");
const all = new Map();

let root = null;
let chosen = null;
let calls = { explore: async () => null, from: () => {} };
let stage = null;
let width = WIDTH;
let answers = [];
let apart = false;

/** `explore({prefix, pieces, width})` asks the server; `from(prefix)` has the answer begun so. */
export const begin = (given) => (calls = given);

/** Nothing is known of the tree: it belongs to another question. */
export const forget = () => (root = null);

/** Says everything again, in another language. */
export function write() {
  if (!root) return;
  all.clear();
  setUp();
  pick(chosen);
}

/** Grows the tree from a beginning, unless it stands. `texts` are the answers, `pieces` those of the first. */
export async function show(prefix, texts, pieces) {
  if (root?.prefix === prefix) return;
  answers = texts;
  apart = !pieces.some((piece) => /\s/.test(piece)) && pieces.join("") !== texts[0];
  await grow(prefix);
}

async function grow(prefix) {
  root = null;
  const mine = await opened({
    pieces: null,
    prefix,
    text: prefix || say("tree.start"),
    chance: 1,
    parent: null,
    end: false,
  });
  if (!mine) return;
  root = mine;
  all.clear();
  setUp();
  pick(root);
  for (let depth = 1; depth < OPENED; depth++) {
    const node = chosen.ways?.find((way) => says(way, answers[0])) ?? chosen.ways?.[0];
    if (!node || node.end || !(await opened(node)) || root !== mine) break;
    pick(node);
  }
}

/** Asks what follows a node. */
async function opened(node) {
  const found = await calls.explore({ prefix: node.pieces ? "" : node.prefix, pieces: node.pieces ?? [], width });
  if (!found) return null;
  Object.assign(node, { pieces: found.pieces, path: found.prefix, open: true });
  node.ways = found.next.map((way) => ({
    pieces: [...found.pieces, way.piece],
    text: way.text,
    chance: way.probability ?? 0,
    end: way.end,
    ahead: way.ahead,
    parent: node,
    ways: null,
    open: false,
    path: null,
  }));
  return node;
}

function setUp() {
  const ways = make("input", { type: "number", min: 2, max: 12, value: width, onchange: widen });
  stage = make("div", { class: "stage", role: "tree", "aria-label": say("tree"), onkeydown: walk });
  panel.replaceChildren(
    make(
      "div",
      { class: "bar" },
      make("p", { class: "small" }, say("tree.help")),
      make("label", { class: "small" }, say("tree.width"), ways),
    ),
    make("div", { id: "tree-path", class: "path" }),
    make("div", { class: "scroll" }, stage),
  );
}

function widen(event) {
  if (!root) return;
  width = Math.min(12, Math.max(2, Number(event.target.value) || WIDTH));
  const { prefix } = root;
  forget();
  grow(prefix);
}

/** Whether an answer goes this way: of "a" and "an", "another" goes the longer. */
function says(node, text) {
  const way = written(node);
  if (node.end) return text === way;
  const longer = node.parent?.ways.some(
    (other) => !other.end && written(other).length > way.length && text.startsWith(written(other)),
  );
  return text.startsWith(way) && !longer;
}

/** Opens or closes a node, and chooses it. */
async function toggle(node) {
  if (!root) return;
  pick(node);
  if (node.end) return;
  if (node.ways) node.open = !node.open;
  else if (!(await opened(node))) return;
  pick(node);
}

function pick(node) {
  if (!root) return;
  chosen = node;
  paint();
  const frame = stage.parentElement;
  const far =
    Math.max(...(node.open ? node.ways : [node]).map((way) => way.x + all.get(way).offsetWidth)) - frame.clientWidth;
  const left = Math.max(Math.min(frame.scrollLeft, node.x), Math.min(far + 20, node.x));
  frame.scrollTo({ left, behavior: still() ? "auto" : "smooth" });
}

/** The nodes from the root to this one. */
function line(node) {
  return node ? [...line(node.parent), node] : [];
}

function describe() {
  const way = line(chosen);
  const chance = way.reduce((product, node) => product * node.chance, 1);
  const text = written(chosen);
  const from = make(
    "button",
    { type: "button", class: "strong", disabled: !text, onclick: () => follow(chosen) },
    say("tree.from"),
  );
  const ahead = chosen.end ? ` ∎ ${say("ends.long")}` : (chosen.ahead ?? "");
  find("tree-path").replaceChildren(
    make("p", { dir: "auto" }, text || say("tree.empty"), make("span", { class: "ahead" }, ahead)),
    make("span", { class: "small" }, say("tree.path", { percent: percent(chance) })),
    from,
  );
}

/** What is said up to a node, as well as it is known: the server says it of those that were opened. */
function written(node) {
  if (node.path !== undefined && node.path !== null) return node.path;
  const before = written(node.parent);
  if (node.end || !before) return before + node.text.trimStart();
  return before + (apart && !node.pieces.at(-1).startsWith(JOINED) ? " " : "") + node.text;
}

async function follow(node) {
  const last = node.end ? node.parent : node;
  if (last.path === null && !(await opened(last))) return;
  calls.from(last.path);
}

/** Puts every node that can be seen where it belongs, and draws the lines between. */
function paint() {
  const nodes = [];
  const visit = (node, depth) => {
    nodes.push(Object.assign(node, { depth }));
    if (node.open) node.ways.forEach((way) => visit(way, depth + 1));
  };
  visit(root, 1);
  for (const [node, button] of all) if (!nodes.includes(node)) button.remove();
  const fresh = nodes.filter((node) => !all.get(node)?.isConnected);
  for (const node of fresh) all.set(node, button(node));
  for (const node of fresh) put(node, node.parent?.x === undefined ? node : node.parent);
  stage.append(...nodes.map((node) => dress(node)));
  const size = arrange(root, (node) => all.get(node).offsetWidth);
  for (const node of nodes) put(node, node);
  stage.style.width = `${size.width}px`;
  stage.style.height = `${size.height}px`;
  stage.querySelector("svg")?.remove();
  stage.prepend(
    draw(
      "svg",
      { "aria-hidden": "true", width: size.width, height: size.height },
      ...nodes.filter((n) => n.parent).map(branch),
    ),
  );
  describe();
}

/** New nodes begin where their parent stands, and go to their own place from there. */
function put(node, { x = 0, y = 0 }) {
  all.get(node).style.transform = `translate(${x}px, ${y}px)`;
}

function button(node) {
  const label = node.end ? "∎" : node.text.trim() || "␣";
  const ahead = !node.end && node.ahead ? make("span", { class: "ahead", "aria-hidden": "true" }, node.ahead) : "";
  const chance = node.parent ? make("span", { class: "chance" }, percent(node.chance)) : "";
  return make(
    "div",
    { class: "node", role: "treeitem", tabindex: -1, onclick: () => toggle(node) },
    make("span", { class: "piece", dir: "auto" }, label),
    chance,
    ahead,
  );
}

function dress(node) {
  const made = all.get(node);
  const text = node.end ? say("ends.long") : node.text.trim();
  made.setAttribute("aria-level", node.depth);
  made.setAttribute("aria-label", say("tree.node", { text, percent: percent(node.chance) }));
  made.setAttribute("aria-selected", node === chosen);
  if (!node.end) made.setAttribute("aria-expanded", node.open);
  made.classList.toggle("on", line(chosen).includes(node));
  made.classList.toggle("said", says(node, answers[0]));
  made.classList.toggle(
    "held",
    answers.slice(1).some((text) => says(node, text)),
  );
  made.classList.toggle("opened", node.open);
  made.classList.toggle("passed", Boolean(node.parent?.ways.some((way) => way.open)));
  made.tabIndex = node === chosen ? 0 : -1;
  return made;
}

function branch(node) {
  const [x, y, z, w] = [node.parent.x + all.get(node.parent).offsetWidth, node.parent.y, node.x, node.y].map(
    Math.round,
  );
  const path = draw("path", { d: `M${x},${y + 16} C${(x + z) / 2},${y + 16} ${(x + z) / 2},${w + 16} ${z},${w + 16}` });
  path.setAttribute("stroke-width", (0.75 + 5 * node.chance).toFixed(2));
  if (line(chosen).includes(node)) path.setAttribute("class", "on");
  return path;
}

function walk(event) {
  if (!root) return;
  const seen = [...stage.querySelectorAll(".node")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const next = step && [...all].find(([, made]) => made === seen[seen.indexOf(all.get(chosen)) + step])?.[0];
  if (event.key === "Enter") follow(chosen);
  else if (event.key === " " || (event.key === "ArrowRight" && !chosen.open)) toggle(chosen).then(refocus);
  else if (event.key === "ArrowRight") pick(chosen.ways[0]);
  else if (event.key === "ArrowLeft" && chosen.open && chosen.parent) toggle(chosen);
  else if (event.key === "ArrowLeft") pick(chosen.parent ?? chosen);
  else if (next) pick(next);
  else if (!step) return;
  event.preventDefault();
  refocus();
}

const refocus = () => all.get(chosen)?.focus({ preventScroll: true });
