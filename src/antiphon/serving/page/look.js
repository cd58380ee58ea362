// Where the model looked: the words of source and answer, the weights between them, and which word is looked at now.

import { attention, probability, words } from "./alignment.js";

const LEAST = 0.08;
const MOST = 60;

/** What is known of the answer on the screen; null where nothing is. */
export let seen = null;

const listeners = [];

/** Calls back whenever there is another answer, or another word is looked at. */
export const watch = (listener) => listeners.push(listener);

/** Takes the details of an answer (null: there are none), and the texts they stand for. */
export function see(details, source, answer) {
  seen = details && known(details, source, answer);
  tell({ target: -1, source: -1 });
}

function known(details, source, answer) {
  const targets = words(details.target, answer);
  const sources = source ? words(details.source, source) : gathered(words(details.source, ""));
  const weights = attention(details.attention, targets, sources);
  const chances = targets.map((word) => probability(word, details.scores));
  return { targets, sources, weights, chances, looks: weights.flat().some((weight) => weight > 0) };
}

/** A recording has many frames: neighbours become one, so that all of it can be seen. */
function gathered(frames) {
  const size = Math.ceil(frames.length / MOST);
  const starts = frames.filter((_, number) => number % size === 0);
  return starts.map((first, at) => ({
    ...first,
    pieces: frames.slice(at * size, (at + 1) * size).flatMap(({ pieces }) => pieces),
  }));
}

/** Looks at a word of the answer, or of the source; -1 at none. */
export function focus({ target = -1, source = -1 }) {
  tell({ target, source });
}

function tell(place) {
  for (const listener of listeners) listener(place);
}

/** How strongly each source word is lit for a word of the answer, from 0 to 1. */
export function lookedAt(target) {
  return lit(seen?.weights[target] ?? []);
}

/** How strongly each word of the answer is lit for one of the source. */
export function lookers(source) {
  return lit(seen?.weights.map((row) => row[source] ?? 0) ?? []);
}

/** The strongest is told by its own weight, the others beside it; what is faint is dark. */
function lit(weights) {
  return weights.map((weight) => (weight < LEAST ? 0 : Math.min(1, weight)));
}
