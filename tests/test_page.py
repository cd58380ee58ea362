"""The web page in a real browser, with a real server: what people do with it, and that nothing leaves the machine."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import pytest

from browser import TURNED, Open, Page, addressing, browsing, opening, until, waves  # noqa: F401

ASKED = "one two three"
ANSWERED = " ".join(TURNED[word] for word in ASKED.split())


def ask(page: Page, text: str = ASKED) -> None:
    """Writes, and waits for the words of the answer."""
    page.fill("#source", text)
    page.wait_for_selector("#answer:not([aria-busy]) .word")


def test_an_answer_comes_as_it_is_typed(open_page: Open, address: str) -> None:
    page = open_page()
    page.type("#source", ASKED)
    until(page, f"document.querySelector('#aloud').textContent === '{ANSWERED}'")
    body = json.dumps({"inputs": [ASKED], "best": 3}).encode()
    request = urllib.request.Request(address + "v1/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        [expected] = json.load(response)["answers"]
    assert page.inner_text("#answer") == expected["text"] == ANSWERED
    others = page.locator("#alternatives .text").all_inner_texts()
    assert others == [each["text"] for each in expected["alternatives"]]
    assert f"{abs(expected['score']):.2f}" in page.inner_text("#facts-of-answer")
    assert "score" in page.get_attribute("#alternatives .score >> nth=0", "aria-label")
    again = open_page(page.evaluate("location.hash"))
    again.wait_for_selector("#answer .word")
    assert again.input_value("#source") == ASKED


STREAMED = """async (text) => {
  const { stream } = await import("./api.js");
  const texts = [];
  for await (const { data } of stream("v1/stream", { inputs: [text] })) texts.push(data.text);
  return texts;
}"""
GROWN = """async (texts) => {
  const answer = document.querySelector("#answer");
  const { waiting, growing } = await import("./answer.js");
  const seen = [];
  waiting();
  for (const text of texts) {
    growing(text);
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    seen.push([answer.textContent, answer.querySelector(".come:last-child").textContent]);
  }
  return seen;
}"""


def test_an_answer_grows_and_only_what_is_new_comes_in(open_page: Open) -> None:
    page = open_page()
    partials = page.evaluate(STREAMED, ASKED)
    assert len(partials) > 2
    assert partials[-1] == ANSWERED
    assert partials == sorted(partials, key=len)
    texts = ["eins", "eins zwei", "eins drei vier", "eins drei vier fünf"]
    new = ["eins", " zwei", "drei vier", " fünf"]
    assert page.evaluate(GROWN, texts) == [list(each) for each in zip(texts, new, strict=True)]


TYPED = """(texts) => texts.forEach((text) => {
  const field = document.querySelector("#source");
  field.value = text;
  field.dispatchEvent(new Event("input"));
})"""


def test_only_the_last_input_is_answered(open_page: Open) -> None:
    page = open_page()
    sent: list[str] = []
    given_up: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or "") if "stream" in request.url else None)
    page.on("requestfailed", lambda request: given_up.append(request.post_data or ""))
    page.route("**/v1/stream", lambda route: None, times=1)  # never answered
    page.evaluate(TYPED, ["one", "one two", "one two one"])
    while not sent:
        page.wait_for_timeout(20)
    page.fill("#source", "four")
    page.keyboard.press("Control+Enter")
    page.fill("#source", "five six")
    until(page, "document.querySelector('#answer').textContent.includes('sechs')")
    asked = [json.loads(body)["inputs"][0]["source"] for body in sent]
    assert asked == ["one two one", "four", "five six"]
    assert sent[0] in given_up
    page.fill("#source", " ")
    until(page, "!document.querySelector('#answer').textContent")


SHADE = "(all, name) => all.map((each) => Number(each.style.getPropertyValue(name)))"


def test_where_the_model_looked_is_shown(open_page: Open) -> None:
    page = open_page()
    ask(page)
    assert page.locator(".heat tr[data-row]").count() == 3
    assert page.locator(".heat th[scope=col]").all_inner_texts() == ASKED.split()
    for row in range(3):
        page.hover(f"#answer .word >> nth={row}")
        assert page.locator("#lines path").count() >= 1
        assert page.locator(".heat tr.lit").get_attribute("data-row") == str(row)
        lit = page.eval_on_selector_all("#mirror span", SHADE, "--look")
        weights = [
            x * x for x in page.eval_on_selector_all(f".heat tr[data-row='{row}'] td[data-column]", SHADE, "--heat")
        ]
        assert lit == pytest.approx([x / 2 if x >= 0.08 else 0 for x in weights], abs=0.002)
    page.hover("#source", position={"x": 12, "y": 12})
    assert page.locator("#answer .word.lit").count() >= 1
    page.locator(".heat td[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert "two" in page.inner_text("#heat-value")


def test_another_word_can_be_chosen_with_the_keyboard(open_page: Open) -> None:
    page = open_page()
    ask(page)
    page.locator("#answer .word[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#instead button")
    ways = page.locator("#instead .way").all_inner_texts()
    assert ways[0].startswith("zwei")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "zwei"
    page.keyboard.press("Enter")
    page.wait_for_selector("#instead button")
    page.click(f"#instead button:has-text('{ways[1]}') >> nth=0")
    until(page, "document.querySelector('#prefix').value")
    begun = page.input_value("#prefix")
    assert begun.startswith("eins ")
    assert begun != ANSWERED[: len(begun)]
    page.wait_for_selector("#answer:not([aria-busy]) .given")
    assert page.inner_text("#answer").startswith(begun)
    assert page.evaluate("document.activeElement.dataset.target") == "1"
    page.click("#prefix-clear")
    until(page, f"document.querySelector('#answer').textContent === '{ANSWERED}'")


def test_what_the_address_asks_waits_for_a_key(open_page: Open) -> None:
    page = open_page(f"#source={ASKED.replace(' ', '+')}")
    error = {"where": "", "what": "this server wants a key", "got": "", "do": ""}
    page.route("**/v1/models", lambda route: route.fulfill(status=401, json={"error": error}))
    page.reload()
    page.wait_for_selector("#problem input[type=password]")
    assert page.locator("#model option").count() == 0
    page.unroute("**/v1/models")
    page.fill("#problem input", "sesame")
    page.keyboard.press("Enter")
    until(page, f"document.querySelector('#answer').textContent === '{ANSWERED}'")


def test_the_tree_grows_and_is_answered_from(open_page: Open) -> None:
    page = open_page()
    ask(page)
    page.click("#tab-tree")
    until(page, "document.querySelectorAll('.node').length === 13")
    assert page.inner_text("#tree-path p").startswith("eins zwei")
    assert page.locator(".node.said .piece").all_inner_texts() == ["start", *ANSWERED.split()]
    page.locator(".node[aria-selected=true]").focus()
    for key in ("ArrowRight", "ArrowDown", " "):
        page.keyboard.press(key)
    until(page, "document.querySelectorAll('.node').length === 17")
    chances = page.locator(".node .chance").all_inner_texts()
    assert all(text.endswith("%") for text in chances)
    chosen = page.inner_text("#tree-path p").removesuffix(page.inner_text("#tree-path .ahead"))
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer:not([aria-busy]) .given")
    assert page.input_value("#prefix") == chosen
    assert page.inner_text("#answer").startswith(chosen)


def test_it_speaks_chinese_and_keeps_only_what_it_may(open_page: Open) -> None:
    page = open_page(locale="zh-CN")
    assert page.inner_text("label[for=source]") == "你说"
    ask(page)
    page.click("#language")
    assert page.inner_text("label[for=source]") == "Your words"
    assert page.inner_text("#answer") == ANSWERED
    page.click("#theme")
    assert page.evaluate("({...localStorage})") == {"antiphon.language": "en", "antiphon.theme": "light"}
    page.check("#remember")
    ask(page, "six")
    until(page, "localStorage['antiphon.inputs'] === '[\"six\"]'")
    page.goto(page.url.partition("#")[0])
    page.click("#recent button")
    page.wait_for_selector("#answer .word")
    page.uncheck("#remember")
    assert "antiphon.inputs" not in page.evaluate("({...localStorage})")


def test_every_word_can_be_read_in_both_languages(open_page: Open) -> None:
    page = open_page()
    said = "async () => { const { say, speak } = await import('./words.js'); const all = {};"
    said += "for (const l of ['en', 'zh']) { speak(l); all[l] = names.map((n) => say(n)) } return all }"
    source = page.evaluate("fetch('words.js').then((response) => response.text())")
    english, chinese = source.split("const CHINESE")
    names, same = (re.findall(r'(?:^ *|, )"?([a-z.]+)"?:\s+"', text, flags=re.M) for text in (english, chinese))
    assert sorted(names) == sorted(same)
    assert len(names) > 80
    texts = page.evaluate(said.replace("names.map", json.dumps(names) + ".map"))
    assert all(texts["en"])
    assert all(texts["zh"])


def test_a_phone_shows_all_of_it(open_page: Open) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True)
    ask(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    below = "document.querySelector('#answer').getBoundingClientRect().top"
    assert page.evaluate(below) > page.evaluate("document.querySelector('#source').getBoundingClientRect().bottom")
    page.tap("#answer .word >> nth=0")
    page.wait_for_selector("#instead button")
    box = page.locator("#instead").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_named_and_can_be_read(open_page: Open, scheme: str) -> None:
    page = open_page("#model=facts", color_scheme=scheme)
    ask(page)
    page.click("#options summary")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    for node in tree:
        properties = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
        if properties.get("focusable") and node["role"]["value"] not in ("RootWebArea", "tabpanel", "generic"):
            assert node["name"]["value"].strip(), node["role"]["value"]
    pale = page.evaluate(CONTRAST)
    assert not pale


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const pale = [];
  for (const each of document.querySelectorAll("body *")) {
    const written = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!written || !each.checkVisibility() || each.closest("#mirror, .unseen, .skip, option, noscript")) continue;
    const ink = light(getComputedStyle(each).color);
    const ratio = Math.max(ink, paper) / Math.min(ink, paper);
    if (ratio < 4.5) pale.push([each.outerHTML.slice(0, 80), ratio]);
  }
  return pale;
}"""


TALKED = """() => {
  window.grown = [];
  const said = (turn) => turn.querySelector?.("p:not(:has(.dots))")?.textContent;
  new MutationObserver((changes) => {
    const fresh = changes.flatMap((change) => [...change.addedNodes]);
    window.grown.push(...fresh.filter((each) => each.ariaBusy && said(each)).map(said));
  }).observe(document.querySelector("#talking"), { childList: true, subtree: true });
}"""
"""Notes what is shown of an answer before it is whole."""


def test_a_conversation_goes_back_and_forth(open_page: Open) -> None:
    page = open_page("#model=talk")
    page.click("#mode-talk")
    page.evaluate(TALKED)
    for count, text in ((2, "one two"), (4, "why")):
        page.fill("#saying", text)
        page.keyboard.press("Enter")
        until(page, f"document.querySelectorAll('.turn').length === {count} && !document.querySelector('[aria-busy]')")
    turns = page.locator(".turn p").all_inner_texts()
    assert turns[0].endswith("one two")
    assert " ".join(turns[1].split()) in page.evaluate("window.grown"), "it was there as far as it went"
    assert json.loads(page.evaluate("new URLSearchParams(location.hash.slice(1)).get('turns')"))[2] == "why"
    page.click(".fresh")
    assert page.locator(".turn").count() == 0


def test_what_is_half_said_and_half_answered_outlives_another_language(open_page: Open) -> None:
    page = open_page("#model=talk")
    page.click("#mode-talk")
    page.fill("#saying", "half")
    page.click("#language")
    assert page.input_value("#saying") == "half"
    held: list[Any] = []
    page.route("**/v1/chat", lambda route: held.append(route))
    page.fill("#saying", "one")
    page.keyboard.press("Enter")
    page.wait_for_selector("[aria-busy]")
    page.click("#language")
    until(page, "!document.hidden")
    page.unroute("**/v1/chat")
    held[0].continue_()
    done = "document.querySelectorAll('.turn').length === {} && !document.querySelector('[aria-busy]')"
    until(page, done.format(2))
    page.fill("#saying", "two")
    page.keyboard.press("Enter")
    until(page, done.format(4))


def test_facts_are_pasted_and_sent(open_page: Open) -> None:
    page = open_page("#model=facts")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or "") if "stream" in request.url else None)
    page.fill("#source", "one")
    page.evaluate("""() => {
      const data = new DataTransfer();
      data.setData("text/plain", "a | knows | two\\nb | knows | six");
      const pasted = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
      document.querySelector(".fact input").dispatchEvent(pasted);
    }""")
    assert page.locator(".fact").count() == 2
    page.wait_for_selector("#answer .word, #facts-of-answer span")
    assert json.loads(sent[-1])["inputs"][0]["facts"] == [["a", "knows", "two"], ["b", "knows", "six"]]


def test_numbers_are_drawn(open_page: Open) -> None:
    page = open_page("#model=waves")
    page.fill("#source", waves()[0][0])
    page.wait_for_selector("#chart .middle")
    values = page.inner_text("#answer").split()
    drawn = page.get_attribute("#chart .middle", "d")
    assert len(values) == drawn.count("L") + 1 == 6
    assert "nine in ten" in page.get_attribute("#chart svg", "aria-label")
    assert page.is_hidden("#forced")


def test_what_the_microphone_hears_is_answered(open_page: Open) -> None:
    page = open_page("#model=digits", permissions=["microphone"])
    page.click("#record")
    page.wait_for_selector(".wave rect")
    page.wait_for_timeout(400)
    with page.expect_response("**/v1/files") as response:
        page.click("#record")
    assert response.value.ok, response.value.text()
    page.wait_for_selector("#answer:not([aria-busy])")
    assert page.inner_text("#answer") == response.value.json()["text"]
    until(page, "document.querySelector('audio').duration > 0.2")
    words = response.value.json()["words"]
    page.locator("#answer .word >> nth=-1").click()
    until(page, "!document.querySelector('audio').paused")
    assert page.evaluate("document.querySelector('audio').currentTime") >= words[-1]["start"]


LATE = """async () => {
  const [made, Node] = [[], AudioWorkletNode];
  globalThis.AudioWorkletNode = class extends Node {
    constructor(...given) {
      super(...given);
      made.push(this);
    }
  };
  const { record } = await import("./recorder.js");
  let heard = 0;
  const { stop } = await record(() => (heard += 1));
  await stop();
  const before = heard;
  made[0].port.onmessage?.({ data: Float32Array.of(0.5) });
  return [made.length, heard - before];
}"""


def test_what_is_heard_after_the_end_changes_nothing(open_page: Open) -> None:
    page = open_page("#model=digits", permissions=["microphone"])
    assert page.evaluate(LATE) == [1, 0]


def test_errors_are_plain_and_a_busy_server_is_asked_again(open_page: Open) -> None:
    page = open_page()
    busy = {"error": {"where": "", "what": "the server is busy", "got": "", "do": "try again soon"}}
    page.route(
        "**/v1/stream", lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json=busy), times=1
    )
    page.fill("#source", ASKED)
    page.wait_for_selector("#problem:has-text('1 s')")
    page.wait_for_selector("#answer .word")
    assert page.is_hidden("#problem")
    page.fill("#prefix", "seven")
    page.wait_for_selector("#problem:has-text('the model cannot write this')")
    assert "What helps: " in page.inner_text("#problem")
    page.fill("#prefix", "zwei")
    page.wait_for_selector("#answer .given")
    assert page.is_hidden("#problem")


CUT = """([pieces, text]) => import("./alignment.js").then(({ words }) =>
  words(pieces, text).map((word) => [word.text, word.pieces]))"""


def test_pieces_find_their_words(open_page: Open) -> None:
    page = open_page()
    for pieces, text, words in (
        ([" Ein", " Fahr", "rad", "."], "Ein Fahrrad.", [["Ein", [0]], ["Fahrrad.", [1, 2, 3]]]),
        (["<s>", "秋", "風"], "秋 風", [["<s>", [0]], ["秋", [1]], ["風", [2]]]),
        (["a", "b"], "AB", [["A", [0]], ["B", [1]]]),
        (["a", " ", "b", "c"], "a bc", [["a", [0]], ["bc", [2, 3]]]),
        (["?", "x"], "y x", [["?", [0]], ["x", [1]]]),
    ):
        assert page.evaluate(CUT, [pieces, text]) == words
