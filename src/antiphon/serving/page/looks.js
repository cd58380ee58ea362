// How the page looks and speaks: colours, language, and whether inputs are kept.

import { draw, find } from "./dom.js";
import { keep, kept, remember, remembering } from "./state.js";
import { preferred, say, speak, spoken } from "./words.js";

const THEMES = ["auto", "light", "dark"];

/** Listens to the switches; `remembered()` is called when keeping inputs is allowed or not. */
export function begin(remembered) {
  speak(preferred(kept("language")));
  colour(THEMES.includes(kept("theme")) ? kept("theme") : "auto");
  name();
  find("language").addEventListener("click", () => {
    speak(spoken() === "zh" ? "en" : "zh");
    keep("language", spoken());
    name();
  });
  find("theme").addEventListener("click", () => {
    colour(THEMES[(THEMES.indexOf(now()) + 1) % THEMES.length]);
    keep("theme", now() === "auto" ? "" : now());
    name();
  });
  find("remember").checked = remembering();
  find("remember").addEventListener("change", (event) => {
    remember(event.target.checked);
    remembered();
  });
}

const now = () => document.documentElement.dataset.theme ?? "auto";

function colour(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

const SUN =
  "M12 2v2.5M12 19.5V22M2 12h2.500M19.500 12H22M5 5l1.700 1.700M17.300 17.300L19 19M19 5l-1.700 1.700M6.700 17.300L5 19";

function name() {
  const label = say("theme", { theme: say(`theme.${now()}`) });
  const button = find("theme");
  button.title = label;
  button.setAttribute("aria-label", label);
  const parts = {
    auto: [draw("circle", { cx: 12, cy: 12, r: 8 }), draw("path", { class: "full", d: "M12 4a8 8 0 0 1 0 16z" })],
    light: [draw("circle", { cx: 12, cy: 12, r: 4 }), draw("path", { d: SUN, "stroke-linecap": "round" })],
    dark: [draw("path", { d: "M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10z", "stroke-linejoin": "round" })],
  };
  button.replaceChildren(draw("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, ...parts[now()]));
  find("language").textContent = say("language");
  find("language").lang = spoken() === "zh" ? "en" : "zh-Hans";
}
