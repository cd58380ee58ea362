// A conversation: what was said stands above, what is said now is written below.

import { find, make } from "./dom.js";
import { say } from "./words.js";

const place = find("talking");

let turns = [];
let answered = async () => "";
let told = () => {};
let going = null;
let stale = false;
let speakers = [];
let names = { speaker: "", partner: "" };

/** `answer(turns, growing, signal)` gives the next turn, `growing(text)` is as much of it as is there; `changed(turns)`
 * hears of each. */
export function begin(answer, changed) {
  answered = answer;
  told = changed;
}

/** Who talks and who answers, where the model knows more than two. */
export const roles = () => (speakers.length ? names : {});

/** Shows a conversation, of two out of these `speakers` where there are some. */
export function show(said, known) {
  going?.abort();
  going = null;
  turns = [...said];
  if (known.join() !== speakers.join()) names = { speaker: known[0] ?? "", partner: known[1] ?? "" };
  speakers = known;
  build("");
}

/** All that is in words, once more: what is half written stays; where an answer is on its way, once it is here. */
export function write() {
  stale = going !== null;
  if (!stale) build(find("saying").value);
}

function build(written) {
  const input = make("input", {
    type: "text",
    id: "saying",
    dir: "auto",
    autocomplete: "off",
    "aria-label": say("talk.hint"),
    placeholder: say("talk.hint"),
  });
  input.value = written;
  const form = make(
    "form",
    { class: "saying", onsubmit: speak },
    input,
    make("button", { class: "strong", id: "send" }, say("send")),
    make("button", { type: "button", class: "plain fresh", onclick: fresh }, say("fresh")),
  );
  place.replaceChildren(
    make("div", { class: "turns", role: "log", "aria-live": "polite", "aria-label": say("said") }),
    ...(speakers.length ? [make("div", { class: "roles" }, role("speaker", "you"), role("partner", "it"))] : []),
    form,
  );
  paint();
}

function role(name, word) {
  const options = speakers.map((each) => make("option", { value: each, selected: each === names[name] }, each));
  const take = (event) => (names = { ...names, [name]: event.target.value });
  return make("label", {}, say(word), make("select", { onchange: take }, ...options));
}

function paint() {
  const log = place.querySelector(".turns");
  const nothing = make("p", { class: "nothing" }, say("talk.empty"));
  log.replaceChildren(...(turns.length ? turns.map((text, number) => turn(text, number % 2 === 0)) : [nothing]));
}

function turn(content, mine, busy = false) {
  const sign = make("span", { class: mine ? "versicle" : "responsory", "aria-hidden": "true" }, mine ? "V" : "R");
  const who = make("span", { class: "unseen" }, `${say(mine ? "you" : "it")}: `);
  const about = { class: mine ? "turn mine" : "turn", ...(busy ? { "aria-busy": "true" } : {}) };
  return make("div", about, sign, make("p", { dir: "auto" }, who, content));
}

function dots() {
  return make(
    "span",
    { class: "dots" },
    make("i"),
    make("i"),
    make("i"),
    make("span", { class: "unseen" }, say("thinking")),
  );
}

async function speak(event) {
  event.preventDefault();
  const input = find("saying");
  const text = input.value.trim();
  if (!text || going) return;
  going = new AbortController();
  const mine = going;
  input.value = "";
  const asked = [...turns, text];
  const log = place.querySelector(".turns");
  if (!turns.length) log.replaceChildren();
  log.append(turn(text, true), turn(dots(), false, true));
  input.scrollIntoView({ block: "nearest" });
  const growing = (said) => going === mine && said && log.lastChild.replaceWith(turn(said, false, true));
  const answer = await answered(asked, growing, going.signal);
  if (going !== mine || !place.contains(input)) return;
  going = null;
  if (answer === null) {
    input.value = text;
    paint();
  } else {
    turns = [...asked, answer];
    log.lastChild.replaceWith(turn(answer, false));
    told(turns);
  }
  if (stale) write();
  find("saying").scrollIntoView({ block: "nearest" });
  find("saying").focus();
}

function fresh() {
  going?.abort();
  going = null;
  turns = [];
  told(turns);
  paint();
  find("saying").focus();
}
