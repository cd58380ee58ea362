// Elements, made without a word of HTML: what people and models write is only ever text.

const SVG = "http://www.w3.org/2000/svg";

/** The element of this id. */
export const find = (id) => document.getElementById(id);

/** An element with attributes (`on…` are listeners, null and false are left out) and children (texts or elements). */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** The same for a drawing. */
export function draw(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Whether things should not move. */
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** What is called again and again runs once, when there was quiet for so many milliseconds; `now` runs it at once. */
export function debounced(run, milliseconds) {
  let timer = 0;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
  wait.now = () => {
    clearTimeout(timer);
    run();
  };
  return wait;
}

/** Runs at most once a frame. */
export function framed(run) {
  let asked = 0;
  return () => {
    if (asked) return;
    asked = requestAnimationFrame(() => {
      asked = 0;
      run();
    });
  };
}

/** The place after a key in a row of `count`, or -1 for keys that move nothing. `rtl`: the row runs to the left. */
export function moved(key, place, count, rtl = false) {
  const forth = rtl ? "ArrowLeft" : "ArrowRight";
  const back = rtl ? "ArrowRight" : "ArrowLeft";
  if (key === forth) return Math.min(count - 1, place + 1);
  if (key === back) return Math.max(0, place - 1);
  if (key === "Home") return 0;
  return key === "End" ? count - 1 : -1;
}
