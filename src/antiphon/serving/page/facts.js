// The facts beside a source: rows of subject, relation and object.

import { find, make } from "./dom.js";
import { say } from "./words.js";

const PARTS = ["subject", "relation", "object"];

const place = find("facts");
let rows = [];
let changed = () => {};

/** The facts that are whole. */
export const whole = () => rows.filter((row) => row.every((part) => part.trim()));

/** Shows these facts; `told()` is called when people change them. */
export function show(facts, told = changed) {
  changed = told;
  rows = facts.length ? facts.map((fact) => [...fact]) : [["", "", ""]];
  paint();
}

/** All that is in words, once more, with the rows as they are. */
export const write = paint;

function paint() {
  place.replaceChildren(
    make("h2", {}, say("facts")),
    ...rows.map((row, number) =>
      make("div", { class: "fact" }, ...PARTS.map((part, at) => field(row, number, part, at)), removal(number)),
    ),
    make("button", { type: "button", onclick: () => add() }, say("fact.add")),
    make("p", { class: "small" }, say("fact.hint")),
  );
}

function field(row, number, part, at) {
  const write = (event) => {
    row[at] = event.target.value;
    changed();
  };
  const label = `${say(part)} ${number + 1}`;
  const made = make("input", {
    type: "text",
    dir: "auto",
    "aria-label": label,
    placeholder: say(part),
    oninput: write,
    onpaste: (event) => paste(event, number),
    onkeydown: (event) => event.key === "Enter" && add(),
  });
  made.value = row[at];
  return made;
}

function removal(number) {
  const remove = () => {
    rows.splice(number, 1);
    show(rows);
    changed();
  };
  return make(
    "button",
    { type: "button", class: "plain", "aria-label": say("fact.remove", { number: number + 1 }), onclick: remove },
    "×",
  );
}

function add() {
  rows.push(["", "", ""]);
  paint();
  place.querySelector(".fact:last-of-type input")?.focus();
}

/** Lines with bars or tabs are facts, wherever they are pasted. */
function paste(event, number) {
  const lines = event.clipboardData.getData("text/plain").split(/\n| && /);
  const facts = lines
    .map((line) => line.split(/\s*[|\t]\s*/).map((part) => part.trim()))
    .filter((fact) => fact.length === 3);
  if (!facts.length) return;
  event.preventDefault();
  const empty = rows[number].every((part) => !part);
  rows.splice(number + !empty, Number(empty), ...facts);
  paint();
  changed();
}
