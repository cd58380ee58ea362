// Lines from a word of the answer to where the model looked, from voice to voice.

import { wordOf } from "./answer.js";
import { draw, find } from "./dom.js";
import { lookedAt, lookers, watch } from "./look.js";
import { boxOf } from "./source.js";

const LEAST = 0.1;
const MOST = 5;

const drawing = find("lines");

/** Draws the lines whenever a word is looked at. */
export const begin = () =>
  watch(({ target, source }) => {
    drawing.replaceChildren();
    const pairs =
      target >= 0
        ? ends(lookedAt(target), (other) => [other, target])
        : source >= 0
          ? ends(lookers(source), (other) => [source, other])
          : [];
    pairs.forEach(({ pair, weight }, rank) => {
      const [from, to] = [boxOf(pair[0]), wordOf(pair[1])?.getBoundingClientRect()];
      if (from && to) drawing.append(line(from, to, weight, rank));
    });
  });

function ends(weights, pair) {
  const found = weights.map((weight, other) => ({ pair: pair(other), weight }));
  return found
    .filter(({ weight }) => weight >= LEAST)
    .sort((a, b) => b.weight - a.weight)
    .slice(0, MOST);
}

function line(from, to, weight, rank) {
  const frame = drawing.getBoundingClientRect();
  const [a, b] = [from, to].map((box) => ({
    x: box.left + box.width / 2 - frame.left,
    low: box.bottom - frame.top,
    high: box.top - frame.top,
  }));
  const [left, right] = gutter(frame);
  const path = left < right ? across(a, b, left, right, 2 * rank) : along(a, b);
  return draw("path", {
    d: path,
    "stroke-width": (0.8 + 2.4 * weight).toFixed(2),
    opacity: (0.3 + 0.6 * weight).toFixed(2),
  });
}

/** The free strip between the two voices; empty where one stands below the other. */
function gutter(frame) {
  const [verse, response] = ["mirror", "answer"].map((id) => find(id).getBoundingClientRect());
  return [verse.right - frame.left, response.left - frame.left];
}

/** Along under the line of the one word, through the strip between, and along under the line of the other. */
function across(a, b, left, right, shift) {
  const [y, z] = [a.low + shift, b.low + shift];
  const middle = (left + right) / 2;
  return `M${a.x},${y} H${left} C${middle},${y} ${middle},${z} ${right},${z} H${b.x}`;
}

/** From the lower edge of the word above to the upper edge of the word below. */
function along(a, b) {
  const middle = (a.low + b.high) / 2;
  return `M${a.x},${a.low} C${a.x},${middle} ${b.x},${middle} ${b.x},${b.high}`;
}
