// The search of `antiphon.inference.light` for one sentence: the same decisions on the same candidates.

import { BOS, EOS, PAD } from "./text.js";

const BEAM = 5;
const MARGIN = 4e-5;

/** Hypotheses that are kept, by the settings. */
export const slots = (settings) => settings.beam || BEAM;

/** All beams of a sentence. `walk` makes the steps; `settings` are those of `decoding`. */
export class Search {
  constructor(walk, settings, limit, prefix = []) {
    Object.assign(this, { walk, settings, limit, prefix });
    this.slots = slots(settings);
    this.room = this.slots;
    this.tokens = [BOS];
    this.totals = [0];
    this.parents = [0];
    this.histories = [[]];
    this.looked = [new Float64Array(walk.places)];
    this.best = new Array(settings.n_best).fill(-Infinity);
    this.ends = [];
    this.steps = [];
    this.done = false;
  }

  /** Hypotheses, best first. `look` is shown the tokens of the likeliest one after each step, and may throw. */
  async run(look = async () => {}) {
    while (!this.done) {
      await this.step(this.steps.length);
      await look(this.histories[this.totals.indexOf(Math.max(...this.totals))]);
    }
    this.ends.sort((a, b) => b.finished - a.finished || b.score - a.score);
    return this.ends.slice(0, this.settings.n_best).map((end) => this.rebuilt(end));
  }

  async step(step) {
    const { rows, weights } = await this.predict(step);
    rows.forEach((row) => this.rules(row, step));
    if (step === this.limit) rows.forEach(last);
    const chosen = this.chosen(rows);
    if (this.settings.no_repeat || step === this.limit) this.giveUp(rows, step);
    this.steps.push({ ...chosen, weights });
    this.close(chosen, weights, step);
    this.goOn(chosen);
  }

  /** The candidates of each live row, as {row, values, ids}, and where all rows looked. */
  async predict(step) {
    const living = [...this.totals.keys()].filter((row) => this.totals[row] > -Infinity);
    const repeats = this.settings.no_repeat ? step : 0;
    const count = this.slots + 1 + [PAD, BOS, EOS].length + repeats;
    const all = step < this.prefix.length || count > this.walk.most;
    const found = await this.walk.step(this.tokens, this.parents, living, all ? -1 : count);
    return { rows: found.rows.map((row, number) => ({ row: living[number], ...row })), weights: found.weights };
  }

  /** In place: what may not come next gets -inf; nothing is renormalized, so scores stay the model's. */
  rules({ row, values, ids }, step) {
    const repeats = this.settings.no_repeat ? this.repeats(this.histories[row], this.settings.no_repeat) : new Set();
    const short = step < (this.settings.min_length ?? 0);
    const forced = this.prefix[step];
    for (let place = 0; place < ids.length; place++) {
      const id = ids[place];
      const off = id === PAD || id === BOS || id >= this.walk.known || (id === EOS && short) || repeats.has(id);
      if (forced === undefined ? off : id !== forced) values[place] = -Infinity;
    }
  }

  /** Tokens that would complete an n-gram of this size a second time. */
  repeats(history, size) {
    const tail = history.slice(history.length - size + 1);
    const found = new Set();
    for (let start = 0; start <= history.length - size; start++) {
      if (tail.every((token, place) => token === history[start + place])) found.add(history[start + size - 1]);
    }
    return found;
  }

  /** The best continuations of all rows together, of equals the first; what there is no room for has ended. */
  chosen(rows) {
    const all = rows.flatMap(({ row, values, ids }) =>
      Array.from(values, (value, place) => ({
        parent: row,
        token: ids[place],
        value,
        total: this.totals[row] + value,
      })),
    );
    if (all.some(({ total }) => Number.isNaN(total))) throw new Error("the model gives no numbers");
    const best = all.filter(({ total }) => total > -Infinity).sort((a, b) => b.total - a.total);
    const kept = best.slice(0, this.room);
    while (kept.length < this.slots) kept.push({ parent: 0, token: EOS, value: -Infinity, total: -Infinity });
    const column = (name) => kept.map((each) => each[name]);
    return { parents: column("parent"), tokens: column("token"), values: column("value"), totals: column("total") };
  }

  /** Hypotheses that can neither go on nor end are closed as unfinished, without this step. */
  giveUp(rows, step) {
    for (const { row, values } of rows) {
      if (values.every((value) => value === -Infinity))
        this.end(step - 1, row, this.score(this.totals[row], Math.max(step, 1), this.looked[row]), false);
    }
  }

  end(step, slot, score, finished) {
    this.ends.push({ step, slot, score, finished });
  }

  score(total, length, looked) {
    const { length_penalty, coverage_penalty } = this.settings;
    const score = total / length ** length_penalty;
    if (!coverage_penalty) return score;
    return score + coverage_penalty * looked.reduce((sum, each) => sum + Math.log(Math.min(1, Math.max(1e-9, each))), 0);
  }

  /** Books what has ended, and whether that is all. */
  close({ parents, tokens, totals }, weights, step) {
    this.looked = parents.map((parent) => this.looked[parent].map((sum, place) => sum + weights[parent][place]));
    const ended = totals.map((total, slot) => tokens[slot] === EOS && total > -Infinity);
    this.totals = totals.map((total, slot) => (ended[slot] ? -Infinity : total));
    ended.forEach((has, slot) => {
      if (!has) return;
      const score = this.score(totals[slot], step + 1, this.looked[slot]);
      this.end(step, slot, score, true);
      this.room -= 1;
      this.best = [...this.best, score].sort((a, b) => b - a).slice(0, this.settings.n_best);
    });
    this.done = this.totals.every((total) => total === -Infinity) || this.settled(step);
  }

  /** Where no live hypothesis would be returned any more. */
  settled(step) {
    const worst = this.best.at(-1);
    const most = Math.max(...this.totals);
    if (worst === -Infinity) return false;
    const { thorough, length_penalty } = this.settings;
    if (thorough) return most / (this.limit + 1) ** length_penalty < worst - MARGIN * (step + 1) ** 0.5;
    return most / (step + 2) ** length_penalty < worst;
  }

  goOn({ parents, tokens }) {
    this.histories = parents.map((parent, slot) => [...this.histories[parent], tokens[slot]]);
    Object.assign(this, { tokens, parents });
  }

  /** A hypothesis from its back-pointers, as {ids, score, values, weights, finished}. */
  rebuilt({ step, slot, score, finished }) {
    const found = { ids: [], values: [], weights: [] };
    for (let at = step; at >= 0; at--) {
      const { parents, tokens, values, weights } = this.steps[at];
      found.ids.unshift(tokens[slot]);
      found.values.unshift(values[slot]);
      slot = parents[slot];
      found.weights.unshift(weights[slot]);
    }
    if (finished) found.ids.pop();
    return { ...found, score, finished };
  }
}

/** In place: at the length limit a hypothesis may only end, and only if that is likeliest. */
function last({ values, ids }) {
  let [end, other] = [-Infinity, -Infinity];
  values.forEach((value, place) => {
    if (ids[place] === EOS) end = Math.max(end, value);
    else other = Math.max(other, value);
  });
  values.forEach((_, place) => {
    if (ids[place] !== EOS || end < other) values[place] = -Infinity;
  });
}
