// What went wrong, in plain words: what, what was found, what helps.

import { useKey } from "./api.js";
import { find, make } from "./dom.js";
import { say } from "./words.js";

const LOCKED = 401;

const place = find("problem");

/** Shows a problem; `again()` tries once more. What was given up is none; a mistake of the page itself is thrown. */
export function tell(problem, again) {
  if (problem.name === "AbortError") return;
  if (problem.what === undefined) throw problem;
  // Here there is but one input, and everybody knows which.
  const where = problem.where && !problem.where.startsWith("inputs") ? `${problem.where}: ` : "";
  const retry = make("button", { type: "button", onclick: again }, say("again"));
  place.replaceChildren(
    make("p", {}, `${where}${problem.what}.`),
    ...(problem.got ? [make("p", {}, say("problem.got", { got: problem.got }))] : []),
    ...(problem.do ? [make("p", {}, say("problem.do", { do: problem.do }))] : []),
    problem.status === LOCKED ? locked(again) : make("div", { class: "row" }, retry, close()),
  );
  place.hidden = false;
}

const close = () => make("button", { type: "button", class: "plain", onclick: clear }, say("close"));

function locked(again) {
  const field = make("input", {
    type: "password",
    "aria-label": say("key"),
    placeholder: say("key"),
    autocomplete: "off",
  });
  const use = (event) => {
    event.preventDefault();
    useKey(field.value);
    again();
  };
  return make("form", { class: "row", onsubmit: use }, field, make("button", {}, say("key.use")));
}

/** The server is busy, and is asked again in so many seconds. */
export function wait(seconds) {
  place.replaceChildren(make("p", {}, say("busy", { seconds })));
  place.hidden = false;
}

/** All is well. */
export function clear() {
  place.hidden = true;
  place.replaceChildren();
}
