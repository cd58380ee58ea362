// What else might stand in the place of a word: a small list beside it.

import { find, make } from "./dom.js";
import { seen } from "./look.js";
import { percent, say } from "./words.js";

const WIDTH = 6;

const box = find("instead");

/** Shows the list for a word of the answer. `explore` asks the server, `from` has the answer begun so. */
export async function offer(word, text, { explore, from }) {
  const { from: start } = seen.targets[Number(word.dataset.target)];
  const found = await explore({ prefix: text.slice(0, start).trimEnd(), pieces: [], width: WIDTH });
  if (!found || !word.isConnected) return;
  const ways = found.next.filter((way) => way.text.trim() || way.end);
  box.replaceChildren(
    make("p", { class: "small" }, say("instead.of", { word: word.textContent })),
    ...(ways.length ? ways.map((way) => row(way, found, explore, from, word.dataset.target)) : [make("p", {}, say("instead.none"))]),
  );
  box.showPopover();
  beside(word);
  box.querySelector("button:enabled")?.focus();
  box.addEventListener("toggle", (event) => event.newState === "closed" && word.isConnected && word.focus(), {
    once: true,
  });
}

function row(way, found, explore, from, at) {
  const [rest] = /^\S*/.exec(way.ahead);
  const text = way.end ? `∎ ${say("ends")}` : way.text.trim();
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.setProperty("--share", way.probability ?? 0);
  return make(
    "button",
    { type: "button", disabled: way.end, onclick: () => choose(way, found, explore, from, at) },
    make("span", { class: "way", dir: "auto" }, text, make("span", { class: "ahead" }, rest)),
    make("span", { class: "score" }, bar, make("span", { class: "figure" }, percent(way.probability ?? 0))),
  );
}

async function choose(way, found, explore, from, at) {
  box.hidePopover();
  const beginning = await explore({ prefix: "", pieces: [...found.pieces, way.piece], width: 1 });
  if (beginning) from(beginning.prefix, at);
}

/** Under the word, and within the window. */
function beside(word) {
  const [at, size] = [word.getBoundingClientRect(), box.getBoundingClientRect()];
  const left = Math.max(8, Math.min(at.left - 12, innerWidth - size.width - 8));
  const below = at.bottom + 8 + size.height < innerHeight;
  box.style.left = `${left}px`;
  box.style.top = `${below ? at.bottom + 8 : Math.max(8, at.top - size.height - 8)}px`;
}
