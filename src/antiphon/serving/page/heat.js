// Attention as a table: a row a word of the answer, a column a word of the source.

import { CJK } from "./alignment.js";
import { find, make } from "./dom.js";
import { focus, seen, watch } from "./look.js";
import { percent, say } from "./words.js";

const MOST = 60;

const panel = find("attention");
let cells = [];
let at = [0, 0];

/** Draws the table of the answer that is seen. */
export function show() {
  cells = [];
  if (!seen?.looks) {
    panel.replaceChildren(make("p", { class: "small" }, say("heat.none")));
    return;
  }
  const [targets, sources] = [seen.targets.slice(0, MOST), seen.sources.slice(0, MOST)];
  const head = make("tr", {}, make("td"), ...sources.map(column));
  const body = targets.map((word, row) => line(word, sources, row));
  const table = make(
    "table",
    { class: "heat", onkeydown: walk, onpointerover: point, onpointerleave: () => focus({}) },
    head,
    ...body,
  );
  const cut = Math.max(seen.targets.length, seen.sources.length) > MOST;
  panel.replaceChildren(
    make("p", { class: "small" }, say("heat.help"), cut ? ` ${say("heat.long", { count: MOST })}` : ""),
    make("div", { class: "scroll" }, table),
    make("p", { id: "heat-value", class: "small value" }, "\u00a0"),
  );
}

const column = ({ text }) =>
  make("th", { scope: "col" }, make("span", { class: CJK.test(text) ? "upright" : null }, text));

function line(word, sources, row) {
  const squares = sources.map((source, column) => {
    const weight = seen.weights[row][column];
    const label = say("heat.cell", { target: word.text, source: source.text, percent: percent(weight) });
    const first = !row && !column;
    const cell = make("td", {
      tabindex: first ? 0 : -1,
      "aria-label": label,
      "data-row": row,
      "data-column": column,
      onfocus: look,
    });
    cell.style.setProperty("--heat", Math.sqrt(Math.min(1, Math.max(0, weight))).toFixed(3));
    return cell;
  });
  cells.push(squares);
  return make("tr", { "data-row": row }, make("th", { scope: "row", dir: "auto" }, word.text), ...squares);
}

function look(event) {
  const { row, column } = event.target.dataset;
  at = [Number(row), Number(column)];
  find("heat-value").textContent = event.target.getAttribute("aria-label");
  focus({ target: at[0] });
}

function point(event) {
  const cell = event.target.closest("[data-column]");
  const row = event.target.closest("tr")?.dataset.row;
  find("heat-value").textContent = cell?.getAttribute("aria-label") ?? "\u00a0";
  focus({ target: Number(row ?? -1) });
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function walk(event) {
  const step = STEPS[event.key];
  const next = step && cells[at[0] + step[0]]?.[at[1] + step[1]];
  if (!step) return;
  event.preventDefault();
  if (!next) return;
  cells[at[0]][at[1]].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

/** Marks the row of the word that is looked at. */
export function begin() {
  watch(({ target }) => {
    for (const row of panel.querySelectorAll("tr[data-row]"))
      row.classList.toggle("lit", Number(row.dataset.row) === target);
  });
}
