"""Decodes with the very model that Antiphon trained, put into Hugging Face's Marian classes, and into CTranslate2."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import ctranslate2
import torch
from ctranslate2.converters.converter import Converter
from ctranslate2.converters.transformers import BartLoader
from meter import Stopwatch, read_task
from safetensors.torch import load_file
from transformers import MarianConfig, MarianMTModel

LONGEST = 256
Answers = Callable[[list[list[int]]], Iterator[tuple[int, list[int]]]]


def rename(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Antiphon's weights by Marian's names; the three projections of one product apart again."""
    embedding = next(value for key, value in weights.items() if key.endswith("embedding.weight"))
    named = {"model.shared.weight": embedding}
    for side in ("encoder", "decoder"):
        parts = [("around_mix", "self_attn_layer_norm"), ("around_feedforward", "final_layer_norm")]
        parts += [("around_attention", "encoder_attn_layer_norm")] if side == "decoder" else []
        numbers = {key.split(".")[2] for key in weights if key.startswith(f"{side}.layers.")}
        for number in numbers:
            ours, theirs = f"{side}.layers.{number}.", f"model.{side}.layers.{number}."
            for kind in ("weight", "bias"):
                inputs = weights[f"{ours}mix.attention.inputs.{kind}"].chunk(3)
                found = {f"self_attn.{name}_proj": value for name, value in zip("qkv", inputs, strict=True)}
                found["self_attn.out_proj"] = weights[f"{ours}mix.attention.output.{kind}"]
                found["fc1"] = weights[f"{ours}feedforward.input.{kind}"]
                found["fc2"] = weights[f"{ours}feedforward.output.{kind}"]
                if side == "decoder":
                    keys, values = weights[f"{ours}attention.keys_values.{kind}"].chunk(2)
                    found |= {"encoder_attn.k_proj": keys, "encoder_attn.v_proj": values}
                    found["encoder_attn.q_proj"] = weights[f"{ours}attention.query.{kind}"]
                    found["encoder_attn.out_proj"] = weights[f"{ours}attention.output.{kind}"]
                found |= {norm: weights[f"{ours}{wrap}.norm.{kind}"] for wrap, norm in parts}
                named |= {f"{theirs}{name}.{kind}": value for name, value in found.items()}
    return named


def build(run: Path) -> tuple[MarianMTModel, list[str]]:
    """The model and its vocabulary. It begins with `<s>` and not, as Marian's do, with nothing."""
    folder = (run / "best") if (run / "best").exists() else run
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())["model"]
    words = json.loads(next(folder.glob("**/shared*vocabulary.json")).read_text())
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("layers", config[side]["layers"]), ("ffn_dim", config["feedforward"]), ("attention_heads", config["heads"])
        )
    }  # fmt: skip
    model = MarianMTModel(MarianConfig(
        vocab_size=len(words), d_model=config["width"], **sides, activation_function="relu", scale_embedding=True,
        max_position_embeddings=LONGEST, tie_word_embeddings=True, pad_token_id=0, eos_token_id=3,
        decoder_start_token_id=2, forced_eos_token_id=None, bos_token_id=2,
    )).eval()  # fmt: skip
    left = model.load_state_dict(rename(weights), strict=False)
    assert not left.unexpected_keys, left
    model.final_logits_bias.copy_(weights["head.bias"])
    for side in (model.model.encoder, model.model.decoder):
        side.embed_positions.weight.data.copy_(waves(LONGEST, config["width"]))
    return model, words


def waves(length: int, width: int) -> torch.Tensor:
    """Antiphon's positions: sines and cosines in turn, where Marian has them in halves."""
    steps = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    angles = torch.arange(length)[:, None] * steps
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def generate(model: MarianMTModel, task: dict[str, Any]) -> Answers:
    """Hugging Face's own search, sorted by length, in batches of the task's size."""
    size, length = task["batch"], task.get("length")
    limits = {"min_new_tokens": length, "max_new_tokens": length} if length else {}

    @torch.inference_mode()
    def answers(sources: list[list[int]]) -> Iterator[tuple[int, list[int]]]:
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            rows = [torch.tensor(sources[number]) for number in numbers]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            most = limits or {"max_new_tokens": 2 * ids.shape[1] + 5}
            found = model.generate(
                input_ids=ids, attention_mask=(ids != 0).long(), num_beams=5, early_stopping=True, length_penalty=1.0,
                **most,
            )  # fmt: skip
            for number, row in zip(numbers, found.tolist(), strict=True):
                yield number, [token for token in row if token > 3]

    return answers


class Marian(Converter):
    """The model as CTranslate2 wants it; its own converter takes a start from zeros for granted."""

    def __init__(self, model: MarianMTModel, words: list[str]) -> None:
        self.model, self.words = model, words

    def _load(self) -> Any:
        self.model.config.normalize_before = self.model.config.normalize_embedding = False
        spec = BartLoader().get_model_spec(self.model)
        spec.register_source_vocabulary(self.words)
        spec.register_target_vocabulary(self.words)
        spec.config.decoder_start_token, spec.config.bos_token = "<s>", "<s>"
        spec.config.eos_token, spec.config.unk_token = "</s>", "<unk>"
        return spec


def translate(model: MarianMTModel, words: list[str], task: dict[str, Any]) -> Answers:
    """CTranslate2 in the task's arithmetic: one worker a core, with one thread each."""
    folder = Path(task["folder"]) / "ctranslate2"
    Marian(model, words).convert(str(folder))
    kind = {"ct2-fp32": "float32", "ct2-int8": "int8"}[task["engine"]]
    translator = ctranslate2.Translator(str(folder), compute_type=kind, inter_threads=task["threads"], intra_threads=1)
    numbers, length = {word: number for number, word in enumerate(words)}, task.get("length")
    limits = {"min_decoding_length": length, "max_decoding_length": length} if length else {}

    def answers(sources: list[list[int]]) -> Iterator[tuple[int, list[int]]]:
        found = translator.translate_batch(
            [[words[token] for token in source] for source in sources], beam_size=5, max_batch_size=task["batch"],
            length_penalty=1.0, **limits,
        )  # fmt: skip
        for number, result in enumerate(found):
            yield number, [numbers[word] for word in result.hypotheses[0]]

    return answers


def main() -> None:
    """Decode the test part once to warm up and once on the clock."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    model, words = build(Path(task["run"]))
    numbers = {word: number for number, word in enumerate(words) if number > 3}
    lines = Path(task["source"]).read_text(encoding="utf-8").split("\n")[:-1]
    sources = [[*(numbers.get(word, 1) for word in line.split(" ")), 3] for line in lines]
    answers = generate(model, task) if task["engine"] == "generate" else translate(model, words, task)
    list(answers(sources[:: len(sources) // 64]))
    watch, found = Stopwatch(), [""] * len(sources)
    for number, tokens in answers(sources):
        found[number] = " ".join(words[token] for token in tokens)
    watch.report(found)


if __name__ == "__main__":
    main()
