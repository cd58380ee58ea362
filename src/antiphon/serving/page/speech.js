// Recordings, films and arrays: record, choose or drop a file, hear it again, and follow the words as they are said.

import { draw, find, make } from "./dom.js";
import { record } from "./recorder.js";
import { decimal, say } from "./words.js";

const KINDS = { speech: ".wav,.flac,.ogg,.mp3,audio/*", video: "video/*,.mp4,.mkv,.webm,.avi,.mov", frames: ".npy" };
const BARS = 160;

const place = find("spoken");
let send = () => {};
let running = null;
let begun = 0;
let levels = [];
let player = null;
let address = "";

/** Shows what is there for this kind of source; `sending(file)` is called with each file. */
export function show(kind, sending) {
  send = sending;
  const input = make("input", {
    type: "file",
    accept: KINDS[kind] ?? "",
    class: "unseen",
    tabindex: -1,
    "aria-hidden": "true",
    onchange: chosen,
  });
  const choose = make("button", { type: "button", onclick: () => input.click() }, say("choose"));
  const mic = make("button", { type: "button", id: "record", class: "strong", onclick: press }, say("record"));
  const drop = make(
    "div",
    { class: "drop", ondragover: over, ondragleave: leave, ondrop: dropped },
    ...(kind === "speech" ? [mic] : []),
    choose,
    input,
    make("span", {}, say("choose.or")),
  );
  place.replaceChildren(drop, make("div", { id: "heard" }));
}

const chosen = (event) => event.target.files[0] && take(event.target.files[0]);
const leave = (event) => event.currentTarget.classList.remove("over");

function over(event) {
  event.preventDefault();
  event.currentTarget.classList.add("over");
}

function dropped(event) {
  event.preventDefault();
  leave(event);
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
}

/** Begins a recording, or ends it. */
async function press() {
  if (running) {
    const { stop, timer } = running;
    running = null;
    clearInterval(timer);
    find("record").textContent = say("record");
    take(await stop());
    return;
  }
  try {
    levels = [];
    const { stop } = await record(hear);
    begun = performance.now();
    running = { stop, timer: setInterval(count, 200) };
    count();
  } catch {
    const secure = globalThis.isSecureContext;
    find("heard").replaceChildren(
      make("p", { role: "alert" }, `${say("record.no")}: ${say(secure ? "record.do" : "record.secure")}`),
    );
  }
}

function count() {
  const seconds = decimal((performance.now() - begun) / 1000, 0);
  find("record").textContent = say("recording", { seconds });
}

function hear(level) {
  levels = [...levels, level].slice(-BARS);
  find("heard").replaceChildren(wave(levels));
}

function wave(values) {
  const bars = values.map((value, at) => {
    const height = Math.max(0.6, 38 * Math.sqrt(value));
    return draw("rect", { x: at * 4, y: 20 - height / 2, width: 2, height, rx: 1, fill: "currentColor" });
  });
  return draw(
    "svg",
    { class: "wave", viewBox: `0 0 ${BARS * 4} 40`, preserveAspectRatio: "xMinYMid meet", "aria-hidden": "true" },
    ...bars,
  );
}

/** Takes a file: it can be heard, and is sent. */
async function take(file) {
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(file);
  player = file.name.endsWith(".npy")
    ? null
    : make("audio", { controls: true, src: address, "aria-label": file.name, ontimeupdate: follow });
  const name = make("p", { class: "small" }, file.name);
  find("heard").replaceChildren(
    ...(levels.length && file.name === "recording.wav" ? [wave(levels)] : []),
    name,
    ...(player ? [player] : []),
  );
  send(file);
}

/** Gives the words of an answer on the page their times: they light up as they are said, and can be played. */
export function timed(words, text, targets, into) {
  let at = 0;
  for (const word of words) {
    const from = text.indexOf(word.text, at);
    if (from < 0) continue;
    at = from + word.text.length;
    for (const made of into.querySelectorAll(".word")) {
      const target = targets[Number(made.dataset.target)];
      if (target.from >= from && target.from < at) time(made, word);
    }
  }
}

function time(made, { text, start, end }) {
  Object.assign(made.dataset, { start, end });
  made.setAttribute("role", "button");
  made.setAttribute("aria-label", say("play.word", { word: text }));
}

/** Plays the recording from a word. */
export function play(word) {
  if (!player) return;
  player.currentTime = Number(word.dataset.start);
  player.play();
}

function follow() {
  for (const word of document.querySelectorAll(".word[data-start]")) {
    const { start, end } = word.dataset;
    word.classList.toggle("now", player.currentTime >= Number(start) && player.currentTime < Number(end));
  }
}
