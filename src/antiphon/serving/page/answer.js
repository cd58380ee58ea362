// The answer: it grows while it is made, then its words can be looked at.

import { difference } from "./alignment.js";
import { find, framed, make, moved } from "./dom.js";
import { focus, lookers, see, seen, watch } from "./look.js";
import { decimal, percent, say } from "./words.js";

const place = find("answer");
const facts = find("facts-of-answer");
const others = find("alternatives");
const pulse = find("pulse");

let shown = "";
let coming = "";
let asked = () => {};

const paint = framed(() => {
  if (shown === coming) return;
  const last = place.lastChild;
  const grown = shown && coming.startsWith(shown) && place.dataset.growing;
  if (grown && last) place.append(make("span", { class: "come" }, coming.slice(shown.length)));
  else replace(coming);
  place.dataset.growing = "yes";
  shown = coming;
});

/** Keeps what has not changed where it is, so that only what is new comes in. */
function replace(text) {
  let same = 0;
  while (same < Math.min(text.length, shown.length) && text[same] === shown[same]) same += 1;
  const cut = text.lastIndexOf(" ", same) + 1;
  place.replaceChildren(text.slice(0, cut), make("span", { class: "come" }, text.slice(cut)));
}

/** A request has begun: what was said before stays, fainter, until something new comes. */
export function waiting() {
  place.classList.add("old");
  place.setAttribute("aria-busy", "true");
  pulse.hidden = false;
  see(null, "", "");
}

/** The answer as far as it goes. */
export function growing(text) {
  place.classList.remove("old");
  if (!place.dataset.growing) shown = "";
  coming = text;
  paint();
}

/** Nothing is asked any more. */
export function resting() {
  pulse.hidden = true;
  place.removeAttribute("aria-busy");
}

/** There is no answer. */
export function clear() {
  resting();
  shown = coming = "";
  delete place.dataset.growing;
  place.classList.remove("old");
  for (const each of [place, facts, others]) each.replaceChildren();
  others.hidden = find("doubt").hidden = true;
  find("aloud").textContent = "";
  see(null, "", "");
}

/**
 * The whole answer to a source: its words, how sure it is, and others. `given` is what it was to begin with, `seconds`
 * how long it took; where it `leads` on, a press on a word offers others.
 */
export function finish(answer, { source, given, seconds, leads }) {
  resting();
  coming = shown = answer.text;
  delete place.dataset.growing;
  place.classList.remove("old");
  see(answer.details ?? null, source, answer.text);
  place.replaceChildren(...(seen ? inWords(answer.text, given, leads) : [answer.text]));
  facts.replaceChildren(...told(answer, seconds));
  find("doubt").hidden = !seen?.chances.length;
  find("doubt").textContent = say(leads ? "doubt" : answer.words ? "doubt.heard" : "doubt.only");
  list(answer.alternatives, answer.text);
  find("aloud").textContent = answer.text;
}

function inWords(text, given, leads) {
  const parts = [];
  const pressed = leads ? { role: "button", "aria-haspopup": "dialog" } : {};
  let at = 0;
  seen.targets.forEach((word, number) => {
    if (word.from === null) return;
    const span = make(
      "span",
      {
        class: word.from < given.length && text.startsWith(given) ? "word given" : "word",
        tabindex: at ? -1 : 0,
        "data-target": number,
        ...pressed,
      },
      text.slice(word.from, word.to),
    );
    span.style.setProperty("--doubt", (1 - seen.chances[number]).toFixed(3));
    parts.push(text.slice(at, word.from), span);
    at = word.to;
  });
  return [...parts, text.slice(at)];
}

function told(answer, seconds) {
  const parts = [];
  if (answer.confidence !== null) parts.push(say("sure", { percent: percent(answer.confidence) }));
  else if (answer.score !== null && !answer.numbers) parts.push(`${say("score")} ${decimal(answer.score, 2)}`);
  if (seconds !== null) parts.push(say("seconds", { seconds: decimal(seconds, 2) }));
  if (!answer.finished) parts.push(say("unfinished"));
  if (!answer.text) parts.unshift(say("empty"));
  const copy = make(
    "button",
    { type: "button", class: "plain", onclick: () => copied(copy, answer.text) },
    say("copy"),
  );
  return [...parts.map((part) => make("span", {}, part)), copy];
}

async function copied(button, text) {
  await navigator.clipboard?.writeText(text);
  button.textContent = say("copied");
}

function list(alternatives, best) {
  others.hidden = !alternatives.length;
  others.replaceChildren(
    ...alternatives.map((each) => {
      const parts = difference(each.text, best).map(({ text, fresh }) => (fresh ? make("b", {}, text) : text));
      return make("li", {}, make("span", { class: "text", dir: "auto" }, ...parts), score(each.score));
    }),
  );
}

function score(value) {
  if (value === null) return null;
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.setProperty("--share", Math.exp(Math.min(0, value)).toFixed(3));
  const made = make("span", { class: "score", "aria-label": `${say("score")} ${decimal(value, 2)}` });
  made.append(bar, make("span", { class: "figure" }, decimal(value, 2)));
  return made;
}

/** The element of a word of the answer. */
export const wordOf = (number) => place.querySelector(`[data-target="${number}"]`);

function light({ target, source }) {
  const weights = source >= 0 ? lookers(source) : [];
  for (const word of place.querySelectorAll(".word")) {
    const number = Number(word.dataset.target);
    const look = number === target ? 0.28 : (weights[number] ?? 0) * 0.5;
    word.classList.toggle("lit", look > 0);
    word.style.setProperty("--look", look);
  }
}

function walk(event) {
  const all = [...place.querySelectorAll(".word")];
  const at = all.indexOf(event.target);
  if (at < 0) return;
  if (event.key === "Enter" || event.key === " ") press(event.target);
  else {
    const next = moved(event.key, at, all.length, getComputedStyle(place).direction === "rtl");
    if (next < 0) return;
    all[at].tabIndex = -1;
    all[next].tabIndex = 0;
    all[next].focus();
  }
  event.preventDefault();
}

const press = (word) => word.hasAttribute("role") && asked(word);

/** Listens to pointer and keys; `instead(word)` is called when somebody asks what else might stand there. */
export function begin(instead) {
  asked = instead;
  watch(light);
  const number = (event) => Number(event.target.closest?.(".word")?.dataset.target ?? -1);
  place.addEventListener("pointerover", (event) => focus({ target: number(event) }));
  place.addEventListener("pointerleave", () => focus({}));
  place.addEventListener("focusin", (event) => focus({ target: number(event) }));
  place.addEventListener("focusout", () => focus({}));
  place.addEventListener("keydown", walk);
  place.addEventListener("click", (event) => {
    if (number(event) >= 0 && !String(getSelection())) press(event.target.closest(".word"));
  });
}
