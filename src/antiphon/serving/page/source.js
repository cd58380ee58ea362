// The field where people write. A mirror behind it has the same text in words, which can be lit and found.

import { find, make } from "./dom.js";
import { focus, lookedAt, seen, watch } from "./look.js";
import { recent, state } from "./state.js";

const OFFERED = 6;
const field = find("source");
const mirror = find("mirror");

/** Makes the mirror show what is written, in the words of the last answer where it is still about this text. */
export function reflect(known) {
  const text = field.value;
  const parts = [];
  let at = 0;
  (known?.sources ?? []).forEach((word, number) => {
    if (word.from === null) return;
    parts.push(text.slice(at, word.from), make("span", { "data-source": number }, text.slice(word.from, word.to)));
    at = word.to;
  });
  mirror.replaceChildren(...parts, text.slice(at));
}

/** Offers what was lately asked, as long as nothing is written; `ask` is called when some of it is taken. */
export function offerRecent(ask) {
  const found = recent().slice(0, OFFERED);
  const take = (text) => {
    field.value = state.source = text;
    reflect(null);
    offerRecent(ask);
    ask();
  };
  find("recent").hidden = !found.length || state.source !== "";
  find("recent").replaceChildren(
    ...found.map((text) =>
      make("li", {}, make("button", { type: "button", dir: "auto", onclick: () => take(text) }, text)),
    ),
  );
}

/** The place on the screen of a source word; undefined where it is not in the text. */
export const boxOf = (number) => mirror.querySelector(`[data-source="${number}"]`)?.getBoundingClientRect();

function light({ target, source }) {
  const weights = target >= 0 ? lookedAt(target) : [];
  for (const span of mirror.children) {
    const number = Number(span.dataset.source);
    span.style.setProperty("--look", number === source ? 0.28 : (weights[number] ?? 0) * 0.5);
  }
}

/** The word of the source under the pointer: the field lies above its mirror, so places are compared. */
function under(event) {
  for (const span of mirror.children) {
    for (const box of span.getClientRects()) {
      const inside = event.clientX >= box.left && event.clientX <= box.right;
      if (inside && event.clientY >= box.top && event.clientY <= box.bottom) return Number(span.dataset.source);
    }
  }
  return -1;
}

/** Listens to the pointer. */
export function begin() {
  watch(light);
  let last = -1;
  const point = (number) => {
    if (number !== last && seen) focus({ source: number });
    last = number;
  };
  field.addEventListener("pointermove", (event) => point(under(event)));
  field.addEventListener("pointerleave", () => point(-1));
  field.addEventListener("input", () => reflect(null));
}
