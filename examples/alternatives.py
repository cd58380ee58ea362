"""Several answers to one source, with scores, probability and where each token came from."""

from dataclasses import replace

from antiphon import Seq2Seq

singular = ["cat", "dog", "bus", "box", "city", "baby", "day", "boy", "glass", "dish", "bird", "fly", "key", "fox"]


def plural(word: str) -> str:
    if word.endswith(("s", "x", "sh")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


pairs = [(start + word, plural(start + word)) for word in singular for start in ("", "a", "be", "co", "de", "un")]
model = Seq2Seq(minutes=0.1, settings={"data.source.tokenizer": "char", "data.target.tokenizer": "char"}).fit(pairs)

several = replace(model.predictor.config.decoding, beam=5, n_best=3)
for answers in model.predictor.predict(["mary", "tax"], settings=several):
    for answer in answers:
        places = " ".join(f"{token}<{place}" for token, place in zip(answer.tokens, answer.alignment, strict=True))
        print(f"{answer.text:10} score {answer.score:6.2f}  probability {answer.probability:.2f}  {places}")
