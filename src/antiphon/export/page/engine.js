// The model in this page: its two graphs in onnxruntime's WebAssembly, one source at a time.

import * as ort from "./onnxruntime/ort.wasm.bundle.min.mjs";
import { Search, slots } from "./search.js";
import { Refused, Task } from "./text.js";

const ROOM = 48;
const of = (name) => new URL(name, import.meta.url);

/** A tensor of whole numbers. */
const whole = (values, shape = [values.length]) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), shape);

/** The model, once all of it is here; `told(share)` hears how much has come. */
export async function load(told = () => {}) {
  const about = await (await fetched("model/model.json")).json();
  const total = Object.values(about.files).reduce((sum, size) => sum + size, 0);
  let come = 0;
  const read = async (name) => {
    const content = new Uint8Array(about.files[name]);
    let at = 0;
    for await (const part of parts((await fetched(`model/${name}`)).body)) {
      content.set(part, at);
      at += part.length;
      told((come += part.length) / total);
    }
    return content;
  };
  const [encoder, step, shared] = await Promise.all(["encoder.onnx", "step.onnx", "shared.onnx"].map(read));
  ort.env.wasm.numThreads = 1; // more would need a server that isolates the page
  ort.env.wasm.wasmPaths = { wasm: of("onnxruntime/ort-wasm-simd-threaded.wasm").href };
  return new Model(about, await session(encoder, shared), await session(step, shared));
}

async function fetched(name) {
  const response = await fetch(of(name));
  if (!response.ok) throw new Error(`${name}: HTTP ${response.status}`);
  return response;
}

async function* parts(stream) {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

/** A graph is its file with that of the shared weights behind it. */
async function session(graph, shared) {
  const content = new Uint8Array(graph.length + shared.length);
  content.set(graph);
  content.set(shared, graph.length);
  return ort.InferenceSession.create(content, { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

/** Answers to texts. */
export class Model {
  constructor(about, encoder, stepper) {
    Object.assign(this, { about, encoder, stepper, task: new Task(about), last: Promise.resolve() });
  }

  /**
   * The answers to a text, best first: {text, tokens, score, finished, details}. What is not told of the search is as
   * the model has it. `look(text)` sees the best answer grow, and may throw to give up. One question after the other.
   */
  answers(text, asked = {}) {
    const mine = this.last.then(() => this.search(text, asked));
    this.last = mine.catch(() => {});
    return mine;
  }

  /** Hypotheses that are kept unless told otherwise. */
  get beam() {
    return slots(this.about.decoding);
  }

  async search(text, { context = {}, prefix = "", look = async () => {}, ...chosen }) {
    const settings = { ...this.about.decoding, ...chosen };
    if (settings.n_best > slots(settings)) throw new Refused("many", `${settings.n_best} > ${slots(settings)}`);
    const source = this.task.read(text, context);
    if (source === null) return [];
    const forced = this.task.phrase(prefix, source.extra);
    const walk = await Walk.begin(this, source);
    const search = new Search(walk, settings, this.limit(source, settings, forced), forced);
    const found = await search.run((ids) => look(this.task.target.text(ids, source.extra)));
    return found.map((each) => this.answer(each, source));
  }

  limit(source, settings, forced) {
    const { sources, answers } = this.about.graphs;
    if (sources && sources < source.ids.length) throw new Refused("long", `${source.ids.length} > ${sources}`);
    if (answers && answers - 1 < forced.length) throw new Refused("long", `${forced.length} > ${answers - 1}`);
    const limit = Math.max(1, settings.max_length || this.task.limit(source.ids.length), forced.length);
    return Math.max(1, Math.min(limit, answers ? answers - 1 : Infinity));
  }

  answer({ ids, score, values, weights, finished }, source) {
    const { target } = this.task;
    const tokens = target.tokens(ids, source.extra);
    const width = source.tokens.length;
    return {
      text: target.text(ids, source.extra),
      tokens,
      score,
      finished,
      details: {
        source: this.task.source.shown(source.tokens),
        target: target.shown(tokens),
        scores: values,
        attention: weights.slice(0, ids.length).map((row) => Array.from(row.subarray(0, width))),
      },
    };
  }
}

/** A source on its way through the graphs. */
class Walk {
  static async begin(model, source) {
    const { encoder, about } = model;
    const walk = new Walk();
    const inputs = { source: whole(source.ids, [1, source.ids.length]), lengths: whole([source.ids.length]) };
    const wanted = encoder.outputNames.filter((name) => name !== "heard");
    const state = await encoder.run(inputs, wanted);
    Object.assign(walk, { stepper: model.stepper, state, room: ROOM });
    Object.assign(walk, { known: about.graphs.vocabulary, most: about.graphs.candidates });
    walk.places = state.mask.dims[1];
    if (about.graphs.copies) walk.copy(source.copy);
    return walk;
  }

  /** What each position of the memory would say, and how many ids that takes. */
  copy(ids) {
    const more = Math.max(0, Math.max(...ids) + 1 - this.known);
    this.known += more;
    this.most += more;
    this.state.copies = whole(ids, [1, ids.length]);
    this.state.more = new ort.Tensor("float32", new Float32Array(more), [1, more]);
  }

  /** `count` candidates (-1: all) of each living row as {values, ids}, and where each row looked. */
  async step(tokens, parents, living, count) {
    const ranks = whole(Array.from({ length: Math.max(1, count) }, (_, rank) => rank));
    const inputs = { ...this.state, tokens: whole(tokens), parents: whole(parents), living: whole(living), ranks };
    const { inputNames, outputNames } = this.stepper;
    const moving = outputNames.filter((name) => name.endsWith(".after"));
    const said = count < 0 ? ["log_probs", "weights"] : ["values", "ids", "weights"];
    const feeds = Object.fromEntries(inputNames.map((name) => [name, inputs[name]]));
    const found = await this.stepper.run(feeds, [...said, ...moving]);
    for (const name of moving) this.state[name.slice(0, -".after".length)] = found[name];
    this.drop();
    return { rows: this.rows(found, count), weights: table(found.weights) };
  }

  rows(found, count) {
    if (count >= 0) {
      const ids = table(found.ids);
      return table(found.values).map((values, row) => ({ values, ids: Array.from(ids[row], Number) }));
    }
    const ids = Array.from({ length: this.known }, (_, id) => id);
    return table(found.log_probs).map((row) => ({ values: row.subarray(0, this.known), ids }));
  }

  /** Leaves out columns of the caches that no hypothesis has in its past, once there are many. */
  drop() {
    const { places } = this.state;
    if (!places || places.dims[1] <= this.room) return;
    const rows = table(places);
    const columns = [...rows[0].keys()].filter((column) => rows.some((row) => row[column] >= 0n));
    const kept = rows.flatMap((row) => columns.map((column) => row[column]));
    this.state.places = new ort.Tensor("int64", BigInt64Array.from(kept), [rows.length, columns.length]);
    for (const name of Object.keys(this.state).filter((name) => name.includes(".shared.")))
      this.state[name] = picked(this.state[name], columns);
    this.room = Math.max(ROOM, 2 * columns.length);
  }
}

/** The rows of a tensor of two axes. */
function table({ data, dims: [rows, columns] }) {
  return Array.from({ length: rows }, (_, row) => data.subarray(row * columns, (row + 1) * columns));
}

/** These columns of a cache `[1, heads, columns, size]`. */
function picked({ data, dims: [, heads, all, size] }, columns) {
  const kept = new Float32Array(heads * columns.length * size);
  for (let head = 0; head < heads; head++) {
    columns.forEach((column, place) => {
      const from = (head * all + column) * size;
      kept.set(data.subarray(from, from + size), (head * columns.length + place) * size);
    });
  }
  return new ort.Tensor("float32", kept, [1, heads, columns.length, size]);
}
