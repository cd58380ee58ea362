// The page: what is written becomes a question, its answer is shown, and every change begins anew.

import * as answer from "./answer.js";
import { ROOT, get, post, stream, upload } from "./api.js";
import * as chart from "./chart.js";
import * as chat from "./chat.js";
import { debounced, find, make } from "./dom.js";
import * as facts from "./facts.js";
import * as heat from "./heat.js";
import { offer } from "./instead.js";
import * as knobs from "./knobs.js";
import * as lines from "./lines.js";
import { seen } from "./look.js";
import * as looks from "./looks.js";
import * as problem from "./problem.js";
import * as source from "./source.js";
import * as speech from "./speech.js";
import { fromAddress, note, state, toAddress } from "./state.js";
import * as tree from "./tree.js";

const QUIET = 350;
const field = find("source");

let models = [];
let model = null;
let going = new AbortController();
let last = null;
let next = null;

/** Ends the request that is going, and begins another. */
function begun() {
  going.abort();
  going = new AbortController();
  problem.clear();
  return going.signal;
}

const asking = debounced(ask, QUIET);
const offerRecent = () => source.offerRecent(asking.now);

/** Asks what is written now. */
async function ask() {
  toAddress();
  const signal = begun();
  tree.forget();
  if (!asks()) {
    last = null;
    answer.clear();
    chart.show(null);
    find("inside").hidden = true;
    return;
  }
  answer.waiting();
  const began = performance.now();
  try {
    for await (const { event, data } of stream("v1/stream", question(), { signal, waiting: problem.wait })) {
      problem.clear();
      if (event === "partial") answer.growing(data.text);
      else if (event === "answer") arrived(data, (performance.now() - began) / 1000);
    }
    note(state.source);
  } catch (error) {
    failed(error, ask);
  }
}

const asks = () => isText() && (state.source.trim() !== "" || facts.whole().length > 0);
const explores = () => isText() && model.target === "text" && !model.plain;
const isText = () => model && !["speech", "video", "frames"].includes(model.source);

function failed(error, again) {
  if (error.name !== "AbortError") answer.resting();
  problem.tell(error, again);
}

/** The question as the server reads it; what is left at its usual value is left out. */
function question() {
  const asked = { model: model.name, inputs: [given()], details: true };
  if (state.adapter) asked.adapter = state.adapter;
  if (state.sample) Object.assign(asked, { sample: true, temperature: state.temperature || 1 });
  if (model.target === "numbers") return asked;
  const most = model.limits.hypotheses;
  const best = Math.min(most, state.best || 1);
  const beam = Math.min(most, Math.max(state.beam || model.beam, best));
  Object.assign(asked, { best, beam });
  if (state.prefix.trim()) asked.prefix = state.prefix;
  for (const name of ["required", "banned"]) if (knobs.cut(state[name]).length) asked[name] = knobs.cut(state[name]);
  return asked;
}

/** The adapter, where one is chosen. */
function by() {
  return state.adapter ? { adapter: state.adapter } : {};
}

function given() {
  const found = { source: state.source };
  if (Object.keys(state.context).length) found.context = state.context;
  if (model.knowledge && facts.whole().length) found.facts = facts.whole();
  return found;
}

function arrived(data, seconds) {
  last = { data, seconds };
  const leads = explores();
  answer.finish(data, {
    source: isText() ? state.source : "",
    given: leads ? state.prefix.trim() : "",
    seconds,
    leads,
  });
  if (next !== null) find("answer").querySelector(`[data-target="${next}"]`)?.focus();
  next = null;
  source.reflect(seen);
  chart.show(data.numbers);
  if (data.words && seen) speech.timed(data.words, data.text, seen.targets, find("answer"));
  find("inside").hidden = !(model.target === "text" && isText() ? seen : seen?.looks);
  look();
}

/** Asks what may come next; null where that went wrong, which is then told. */
async function explore(asked) {
  try {
    const body = { model: model.name, ...by(), source: given(), ...asked };
    const found = await post("v1/explore", body, { signal: going.signal, waiting: problem.wait });
    problem.clear();
    return found;
  } catch (error) {
    problem.tell(error, () => problem.clear());
    return null;
  }
}

/** Has the answer begun so; "" leaves it free. Its word of number `at`, if any, is then where the keyboard goes on. */
function from(prefix, at = null) {
  state.prefix = prefix;
  next = at;
  find("prefix").value = prefix;
  find("prefix-clear").hidden = !prefix;
  asking.now();
}

async function send(file) {
  const signal = begun();
  answer.waiting();
  const form = new FormData();
  const parts = { file, model: model.name, ...by(), details: "true" };
  for (const [name, value] of Object.entries(parts)) form.append(name, value);
  const began = performance.now();
  try {
    const data = await upload("v1/files", form, { signal, waiting: problem.wait });
    problem.clear();
    arrived(data, (performance.now() - began) / 1000);
  } catch (error) {
    failed(error, () => send(file));
  }
}

async function talk(turns, growing, signal) {
  problem.clear();
  const body = { model: model.name, ...by(), ...chat.roles(), turns, context: state.context, stream: true };
  try {
    let text = "";
    for await (const { event, data } of stream("v1/chat", body, { signal, waiting: problem.wait })) {
      problem.clear();
      text = data.text;
      if (event === "partial") growing(text);
    }
    return text;
  } catch (error) {
    problem.tell(error, () => problem.clear());
    return null;
  }
}

/** Shows one of the views of the inside. */
function look(view = state.view) {
  const told = view !== state.view;
  state.view = view;
  find("tab-tree").hidden = !explores();
  const now = explores() ? view : "attention";
  for (const name of ["attention", "tree"]) {
    find(name).hidden = name !== now;
    find(`tab-${name}`).setAttribute("aria-selected", name === now);
    find(`tab-${name}`).tabIndex = name === now ? 0 : -1;
  }
  if (told) toAddress();
  if (find("inside").hidden) return;
  if (now === "attention") heat.show();
  else
    tree.show(
      state.prefix.trim(),
      [last.data, ...last.data.alternatives].map(({ text }) => text),
      last.data.details.target,
    );
}

/** Puts a model and all that is asked of it on the page. */
function set() {
  model = models.find(({ name }) => name === state.model) ?? models[0];
  state.talk = state.talk && model.chat;
  find("model").value = model.name;
  find("modes").hidden = !model.chat;
  find("asking").hidden = state.talk;
  find("talking").hidden = !state.talk;
  if (state.talk) find("inside").hidden = true;
  for (const [id, on] of [
    ["mode-ask", !state.talk],
    ["mode-talk", state.talk],
  ])
    find(id).setAttribute("aria-pressed", on);
  const [text, words] = [isText(), model.target !== "numbers"];
  find("written").hidden = !text;
  find("spoken").hidden = text;
  find("facts").hidden = !model.knowledge;
  find("forced").hidden = !(text && words);
  find("options").hidden = !text;
  field.value = state.source;
  source.reflect(null);
  find("prefix").value = state.prefix;
  find("prefix-clear").hidden = !state.prefix;
  write();
}

/** All that is in words and made here; `again` when the language changes, where what is half written stays. */
function write(again = false) {
  if (!model) return;
  knobs.show(model, asking);
  if (again) facts.write();
  else facts.show(model.knowledge ? state.facts : [], changedFacts);
  if (!isText()) speech.show(model.source, send);
  if (state.talk && again) chat.write();
  else if (state.talk) chat.show(state.turns, model.speakers.length > 2 ? model.speakers : []);
  offerRecent();
}

function changedFacts() {
  state.facts = facts.whole();
  asking();
}

function listen() {
  field.addEventListener("input", () => {
    state.source = field.value;
    offerRecent();
    asking();
  });
  field.addEventListener(
    "keydown",
    (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && asking.now(),
  );
  find("prefix").addEventListener("input", (event) => {
    state.prefix = event.target.value;
    find("prefix-clear").hidden = !state.prefix;
    asking();
  });
  find("prefix-clear").addEventListener("click", () => from(""));
  find("model").addEventListener("change", (event) =>
    turn({ model: event.target.value, prefix: "", adapter: "", context: {}, turns: [] }),
  );
  find("mode-ask").addEventListener("click", () => turn({ talk: false }));
  find("mode-talk").addEventListener("click", () => turn({ talk: true }));
  for (const name of ["attention", "tree"]) find(`tab-${name}`).addEventListener("click", () => look(name));
  find("inside")
    .querySelector(".tabs")
    .addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key) || find("tab-tree").hidden) return;
      look(state.view === "tree" ? "attention" : "tree");
      find(`tab-${state.view}`).focus();
    });
  addEventListener("hashchange", () => {
    fromAddress();
    set();
    ask();
  });
  document.addEventListener("language", () => {
    write(true);
    tree.write();
    if (last) arrived(last.data, last.seconds);
  });
}

/** Another model, or another way to use it. */
function turn(change) {
  Object.assign(state, change);
  last = null;
  answer.clear();
  set();
  ask();
}

async function main() {
  const told = fromAddress();
  answer.begin((word) => (word.dataset.start ? speech.play(word) : offer(word, last.data.text, { explore, from })));
  source.begin();
  lines.begin();
  heat.begin();
  tree.begin({ explore, from });
  chat.begin(talk, (turns) => {
    state.turns = turns;
    toAddress();
  });
  looks.begin(offerRecent);
  find("docs").href = new URL("docs", ROOT);
  listen();
  await meet(told);
}

/** Asks which models there are, and then what the address `told`. */
async function meet(told) {
  try {
    problem.clear();
    models = (await get("v1/models")).models;
    find("model").replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
    find("model").disabled = models.length < 2;
    set();
    if (!state.talk && isText()) field.focus();
  } catch (error) {
    problem.tell(error, () => meet(told));
    return;
  }
  if (told) ask();
}

main();
