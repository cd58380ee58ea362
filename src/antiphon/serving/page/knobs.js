// How it searches: what can be set for a model, and nothing else.

import { find, make } from "./dom.js";
import { state } from "./state.js";
import { say } from "./words.js";

const place = find("knobs");

/** Shows the settings of a model, one that is `plain` cannot draw or be told words; `changed()` hears of a change. */
export function show(model, changed) {
  const text = model.target !== "numbers";
  place.replaceChildren(
    ...(text
      ? [number("beam", { min: 1, max: model.limits.hypotheses, hint: `${say("usual")} (${model.beam})` }, changed)]
      : []),
    ...(text ? [number("best", { min: 1, max: Math.min(10, model.limits.hypotheses), hint: "" }, changed)] : []),
    ...(model.plain
      ? []
      : [check("sample", changed), number("temperature", { min: 0.1, max: 5, step: 0.1, hint: "" }, changed)]),
    ...(text && !model.plain ? [list("required", changed), list("banned", changed)] : []),
    ...(model.adapters.length
      ? [choice(say("adapter"), adapters(model), state.adapter, (value) => (state.adapter = value), changed)]
      : []),
    ...Object.entries(model.context).map(([name, values]) => context(name, values, changed)),
  );
}

function number(name, { min, max, step = 1, hint }, changed) {
  const take = (event) => {
    const value = Number(event.target.value);
    state[name] = value ? Math.min(max, Math.max(min, value)) : 0;
    changed();
  };
  const made = make("input", { type: "number", id: `knob-${name}`, min, max, step, placeholder: hint, onchange: take });
  made.value = state[name] || "";
  return make("label", {}, say(name), made);
}

function check(name, changed) {
  const take = (event) => {
    state[name] = event.target.checked;
    changed();
  };
  return make(
    "label",
    { class: "row" },
    make("input", { type: "checkbox", checked: state[name], onchange: take }),
    say(name),
  );
}

function list(name, changed) {
  const take = (event) => {
    state[name] = event.target.value;
    changed();
  };
  const made = make("input", {
    type: "text",
    id: `knob-${name}`,
    dir: "auto",
    placeholder: say("words.hint"),
    oninput: take,
  });
  made.value = state[name];
  return make("label", {}, say(name), made);
}

const adapters = (model) => [["", say("adapter.none")], ...model.adapters.map((name) => [name, name])];

function choice(label, options, now, put, changed) {
  const take = (event) => {
    put(event.target.value);
    changed();
  };
  const made = make(
    "select",
    { onchange: take },
    ...options.map(([value, text]) => make("option", { value, selected: value === now }, text)),
  );
  return make("label", {}, label, made);
}

/** A column that stands beside the source. The model wants one that it knows, so the first is there at once. */
function context(name, values, changed) {
  const put = (value) => (state.context = { ...state.context, [name]: value });
  if (!(name in state.context)) put(values[0] ?? "");
  if (values.length)
    return choice(
      name,
      values.map((value) => [value, value]),
      state.context[name],
      put,
      changed,
    );
  const take = (event) => {
    put(event.target.value);
    changed();
  };
  const made = make("input", { type: "text", oninput: take });
  made.value = state.context[name];
  return make("label", {}, name, made);
}

/** The words of a list with commas between. */
export const cut = (text) =>
  text
    .split(/[,，、]/)
    .map((word) => word.trim())
    .filter(Boolean);
