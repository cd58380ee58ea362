// Numbers as an answer: each feature a line, with the band that holds nine in ten.

import { draw, find, make } from "./dom.js";
import { say } from "./words.js";

const WIDTH = 600;
const HEIGHT = 160;

/** Draws what was foretold; nothing where the answer is no numbers. */
export function show(numbers) {
  const place = find("chart");
  place.hidden = !numbers;
  if (!numbers) return;
  const [low, high] = [numbers.quantiles?.["0.05"], numbers.quantiles?.["0.95"]];
  const all = [numbers.values, low ?? [], high ?? []].flat(2).filter((value) => value !== null);
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const scale = { least, span: most - least || 1, steps: Math.max(1, numbers.values.length - 1) };
  const drawing = draw("svg", {
    class: "chart",
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
  });
  numbers.values[0]?.forEach((_, feature) => {
    if (low && high) drawing.append(band(low, high, feature, scale));
    drawing.append(draw("path", { class: "middle", d: line(numbers.values, feature, scale) }));
  });
  const name = say(low ? "steps" : "steps.plain");
  drawing.setAttribute("aria-label", name);
  place.replaceChildren(drawing, make("p", { class: "small" }, name));
}

function points(rows, feature, { least, span, steps }) {
  return rows.map(
    (row, at) =>
      `${((at / steps) * WIDTH).toFixed(1)},${(HEIGHT - ((row[feature] - least) / span) * HEIGHT).toFixed(1)}`,
  );
}

const line = (rows, feature, scale) => `M${points(rows, feature, scale).join("L")}`;

function band(low, high, feature, scale) {
  const there = points(high, feature, scale);
  const back = points(low, feature, scale).reverse();
  return draw("path", { class: "band", d: `M${[...there, ...back].join("L")}Z` });
}
