// The page: what is written is answered by the model that runs in it, and every change begins anew.

import * as answer from "./answer.js";
import { debounced, find, make } from "./dom.js";
import { load } from "./engine.js";
import * as heat from "./heat.js";
import * as knobs from "./knobs.js";
import * as lines from "./lines.js";
import { seen } from "./look.js";
import * as looks from "./looks.js";
import * as source from "./source.js";
import { fromAddress, note, state, toAddress } from "./state.js";
import { Refused } from "./text.js";
import { percent, say } from "./words.js";

const QUIET = 120;
const FRAME = 24;
const WIDEST = 16;
const field = find("source");
const GONE = new Error("something else is asked by now");

let model = null;
let going = 0;
let last = null;

/** How the model is described to the parts of the page. */
const described = () => ({
  target: "text",
  plain: true,
  beam: model.beam,
  limits: { hypotheses: WIDEST },
  adapters: [],
  context: model.about.values,
});

const asking = debounced(ask, QUIET);
const offerRecent = () => source.offerRecent(asking.now);

/** Asks what is written now. */
async function ask() {
  toAddress();
  const mine = (going += 1);
  find("problem").hidden = true;
  if (!model) return;
  if (!state.source.trim()) {
    last = null;
    answer.clear();
    find("inside").hidden = true;
    return;
  }
  answer.waiting();
  const began = performance.now();
  try {
    const found = await model.answers(state.source, { ...question(), look: growing(mine) });
    if (mine !== going) return;
    arrived(found, (performance.now() - began) / 1000);
    note(state.source);
  } catch (error) {
    if (error !== GONE) failed(error);
  }
}

function question() {
  const beam = state.beam || model.beam;
  return { beam, n_best: Math.min(state.best || 1, beam), prefix: state.prefix.trim() && state.prefix, context: state.context };
}

/** Shows the answer as it grows, and lets the page breathe once a frame. */
function growing(mine) {
  let shown = performance.now();
  return async (text) => {
    if (mine !== going) throw GONE;
    if (performance.now() - shown < FRAME) return;
    answer.growing(text);
    await new Promise((go) => setTimeout(go));
    shown = performance.now();
  };
}

function arrived(found, seconds) {
  last = { found, seconds };
  if (!found.length) return answer.clear();
  const [best, ...alternatives] = found;
  const given = state.prefix.trim();
  answer.finish({ ...best, confidence: null, alternatives }, { source: state.source, given, seconds, leads: false });
  source.reflect(seen);
  find("inside").hidden = !seen?.looks;
  if (seen?.looks) heat.show();
}

/** What went wrong, in plain words. */
function failed(error) {
  answer.resting();
  const known = error instanceof Refused;
  const close = make("button", { type: "button", onclick: () => (find("problem").hidden = true) }, say("close"));
  find("problem").replaceChildren(
    make("p", {}, say(known ? error.what : model ? "failed.here" : "lost")),
    ...(known && !error.got ? [] : [make("p", {}, say("problem.got", { got: error.got ?? error.message }))]),
    make("div", { class: "row" }, close),
  );
  find("problem").hidden = false;
}

function begun(prefix) {
  state.prefix = find("prefix").value = prefix;
  find("prefix-clear").hidden = !prefix;
}

function listen() {
  field.addEventListener("input", () => {
    state.source = field.value;
    offerRecent();
    asking();
  });
  find("prefix").addEventListener("input", (event) => {
    begun(event.target.value);
    asking();
  });
  find("prefix-clear").addEventListener("click", () => {
    begun("");
    asking.now();
  });
  addEventListener("hashchange", () => {
    set();
    ask();
  });
  document.addEventListener("language", () => {
    offerRecent();
    if (model) knobs.show(described(), asking);
    if (last) arrived(last.found, last.seconds);
  });
}

/** Puts what the address says on the page. */
function set() {
  fromAddress();
  field.value = state.source;
  source.reflect(null);
  begun(state.prefix);
  offerRecent();
  if (model) knobs.show(described(), asking);
}

/** Fetches the model, and says how much of it is here. */
async function meet() {
  const facts = find("facts-of-answer");
  find("pulse").hidden = false;
  try {
    model = await load((share) => facts.replaceChildren(say("loading", { percent: percent(share) })));
    find("name").textContent = model.about.name;
    facts.replaceChildren();
    find("pulse").hidden = true;
    find("forced").hidden = !model.task.target.tokenizer.encode;
    knobs.show(described(), asking);
    document.documentElement.dataset.ready = "yes";
    ask();
  } catch (error) {
    facts.replaceChildren();
    failed(error);
  }
}

answer.begin(() => {});
source.begin();
lines.begin();
heat.begin();
looks.begin(offerRecent);
listen();
set();
field.focus();
meet();
