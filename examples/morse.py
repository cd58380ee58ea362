"""Morse code by ear: sound into letters. The recordings are made up, at many speeds and pitches, with noise."""

import numpy as np

from antiphon import Seq2Seq

CODE = {
    "a": ".-", "c": "-.-.", "d": "-..", "e": ".", "h": "....", "i": "..", "l": ".-..", "m": "--", "n": "-.",
    "o": "---", "r": ".-.", "s": "...", "t": "-", "u": "..-",
}  # fmt: skip
RATE = 8000
draw = np.random.default_rng(1)


def tone(seconds: float, pitch: float) -> np.ndarray:
    """A beep, or silence where the pitch is 0, with soft ends."""
    samples = np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)
    return samples * np.minimum(1, 20 * np.hanning(len(samples)))


def beeps(letters: str) -> np.ndarray:
    """How somebody keys these letters."""
    unit, pitch, parts = draw.uniform(0.04, 0.07), draw.uniform(400, 900), []
    for letter in letters:
        for mark in CODE[letter]:
            parts += [tone(unit * (3 if mark == "-" else 1), pitch), tone(unit, 0)]
        parts.append(tone(2 * unit, 0))
    samples = 0.3 * np.concatenate(parts)
    return (samples + draw.normal(0, 0.02, len(samples))).astype(np.float32)


def message() -> str:
    """A few letters."""
    return "".join(draw.choice(list(CODE), draw.integers(2, 7)))


train = [(beeps(text), text) for text in (message() for _ in range(1500))]
test = [(beeps(text), text) for text in (message() for _ in range(100))]

model = Seq2Seq("speech", minutes=3, settings={"data.frames.rate": RATE, "training.metric": "cer"}).fit(train)
for [answer], (_, text) in zip(model.predictor.predict(sound for sound, _ in test[:5]), test[:5], strict=True):
    times = [answer.source_tokens[place] for place in answer.alignment]
    told = (f"{letter}@{time}" for letter, time in zip(answer.tokens, times, strict=True))
    print(f"{text:8} heard as {answer.text:8}", *told)
print(f"letters that are wrong, of 100 new messages: {-model.score(test, 'cer'):.1f} %")
