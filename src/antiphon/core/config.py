"""One nested, frozen configuration: its settings, their defaults and their one-line docs.

A field whose default is None is proposed from the data by `training/recipes.py`, with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def setting(default: Any, doc: str) -> Any:
    """A field with its default and its one-line documentation."""
    return field(default=default, metadata={"doc": doc})


def part(kind: type, doc: str) -> Any:
    """A nested group of settings."""
    return field(default_factory=kind, metadata={"doc": doc})


Tokenizer = Literal["word", "whitespace", "char", "byte", "bpe", "unigram", "chinese", "label"]
Family = Literal["rnn", "lstm", "gru", "conv", "transformer", "conformer"]
DecoderFamily = Literal["rnn", "lstm", "gru", "conv", "transformer", "ssru"]


Kind = Literal["text", "frames", "speech", "video", "numbers"]
SIGNALS = ("frames", "speech", "video", "numbers")
"""Kinds of sources that are sequences of numbers."""
HELD = ("numbers",)
"""Those that a pair holds itself; of the others it has the name of a file."""


@dataclass(frozen=True)
class Side:
    """How one side of a pair becomes ids, or frames."""

    tokenizer: Tokenizer | None = setting(None, "how text is cut into tokens")
    vocabulary: int | None = setting(None, "largest number of tokens in the vocabulary, special ones included")
    min_count: int | None = setting(None, "leave out tokens seen fewer times than this")
    max_length: int | None = setting(None, "longest sequence in tokens, end mark included")
    normalize: Literal["none", "nfc", "nfd", "nfkc", "nfkd"] = setting("nfc", "Unicode normalization form")
    lowercase: bool = setting(False, "lowercase the text before it is cut")
    spaces: Literal["keep", "single"] | None = setting(
        None, "white space as it stands, or each run of it read as one space, and none at the ends"
    )
    sampling: float = setting(0.0, "subword sampling while training: BPE dropout rate, or unigram temperature")
    vectors: str = setting("", "file of word vectors (word2vec, GloVe or fastText text format) to start from")
    freeze: bool = setting(False, "keep the word vectors as they begin")
    kind: Kind | None = setting(None, "text, numbers, or (sources) the name of an array, recording or film")


@dataclass(frozen=True)
class Frames:
    """How a recording or film becomes frames, and how these are normalized."""

    rate: int | None = setting(None, "speech: samples a second that all recordings are brought to")
    mels: int | None = setting(None, "speech: bands of a frame")
    window: float = setting(25.0, "speech: milliseconds that a frame hears")
    step: float = setting(10.0, "speech: milliseconds from one frame to the next")
    per_second: float | None = setting(None, "films: pictures a second, whatever a film's own rate")
    size: int | None = setting(None, "films: pixels of a side of a picture, which is made square")
    crop: bool = setting(True, "films: keep the middle square of a picture; without, all of it is squeezed into one")
    grey: bool = setting(False, "films: brightness alone, in place of three colours")
    normalize: Literal["all", "each", "last", "season", "none"] | None = setting(
        None,
        "mean 0 and deviation 1 over all training sources, or over each; last: as each, from its last step on; "
        "season: what is beyond trend and season",
    )
    season: int = setting(0, "numbers read as seasons: steps of one; 1 is a trend alone, 0 is for the recipe to find")


@dataclass(frozen=True)
class Augment:
    """How training pairs are changed at random in each epoch; nothing else ever is."""

    share: float = setting(0.5, "share of the training pairs that an epoch changes; the others stay as they are")
    drop: float = setting(0.0, "rate at which a word (or character) of the source is left out")
    swap: float = setting(0.0, "rate at which one changes places with the next")
    replace: float = setting(0.0, "rate at which one becomes another that is drawn by frequency")
    mask: float = setting(0.0, "rate at which one becomes an unknown one")
    insert: float = setting(0.0, "rate at which another is put before one")
    typos: float = setting(0.0, "rate at which a letter of the source is mistyped")
    casing: float = setting(0.0, "rate at which a source is put in lower case or capitals")
    punctuation: float = setting(0.0, "rate at which a source loses the punctuation at its end")
    robust: bool = setting(
        False, "noise that people make and that leaves the meaning: capitals, typing errors, lost full stops, symbols"
    )
    synonyms: str = setting("", "wordnet, or a file of groups of synonyms or of word vectors")
    synonym_rate: float = setting(0.1, "rate at which a word that has synonyms becomes one of them")
    names: float | None = setting(None, "rate at which a rare word that both sides share becomes a made-up one on both")
    stems: float = setting(0.0, "rate at which the longest run that both sides share becomes a made-up one on both")
    switchout: float = setting(0.0, "temperature of SwitchOut on both sides (Wang et al. 2018); 0 turns it off")
    reverse: Literal["none", "source", "target", "both"] = setting(
        "none", "side whose order is reversed, told to the model by a tag (Sánchez-Cartagena et al. 2021)"
    )
    reverse_rate: float = setting(0.5, "rate at which a pair is reversed, where reverse is set")
    speed: float | None = setting(
        None, "speech: recordings are played slower and faster by this share (Ko et al. 2015)"
    )


@dataclass(frozen=True)
class Data:
    """Where pairs come from and what is done with odd ones."""

    source: Side = part(Side, "the source side")
    target: Side = part(Side, "the target side")
    frames: Frames = part(Frames, "recordings, films and arrays")
    shared: bool | None = setting(None, "one tokenizer and vocabulary for both sides")
    columns: tuple[str, ...] = setting((), "columns of the table: source, target, then context; by name or number")
    context: tuple[str, ...] = setting(
        (), "columns put before the source as tags, as <name:value>; for targets of numbers, what is known of each step"
    )
    history: int = setting(5, "dialogues given as turns: most turns of a source, the newest ones")
    empty: Literal["error", "skip"] = setting("error", "what to do with an empty source or target")
    damaged: Literal["error", "skip"] = setting("error", "what to do with undecodable or malformed lines")
    too_long: Literal["truncate", "skip", "error"] = setting("truncate", "what to do with a sequence over max_length")
    knowledge: str = setting("", "file of facts (JSON, TSV, Turtle); a pair gets those of what its source mentions")
    facts: int = setting(30, "most facts a pair")
    valid: float = setting(0.05, "share of the sources held out when no validation file is given")
    batch_tokens: int | None = setting(None, "padded source and target tokens a batch")
    augment: Augment = part(Augment, "random changes of training pairs")
    extend: bool = setting(False, "with a model to start from: add tokens that its vocabularies lack, at their end")
    mix: float = setting(0.5, "with other data to mix in: its share of the pairs of an epoch")
    mix_tag: str = setting("", "a tag, without brackets, before the sources of data that is mixed in")
    balance: str = setting("", "column of domains, tasks or languages, which an epoch then draws more evenly")
    temperature: float = setting(5.0, "with balance: a value's share goes by pairs ** (1 / this); 1 as they are")


@dataclass(frozen=True)
class Encoder:
    """The reader of sources."""

    kind: Family | None = setting(None, "family of the encoder")
    layers: int | None = setting(None, "number of layers")
    bidirectional: bool = setting(True, "recurrent families: read in both directions")
    kernel: int = setting(5, "convolution, Conformer: positions seen by one layer (odd)")
    window: int | None = setting(None, "self-attention: how far a position looks to either side; 0 is everywhere")
    global_tokens: int = setting(0, "with a window: first positions that look, and are looked at, everywhere")


@dataclass(frozen=True)
class Decoder:
    """The writer of targets."""

    kind: DecoderFamily | None = setting(None, "family of the decoder")
    layers: int | None = setting(None, "number of layers")
    kernel: int = setting(3, "convolution: positions seen by one layer")


@dataclass(frozen=True)
class Knowledge:
    """The reader of facts."""

    kind: Literal["none", "linear", "graph"] | None = setting(
        None, "facts as part of the source, or read by a graph encoder"
    )
    layers: int = setting(2, "graph: number of layers")


@dataclass(frozen=True)
class Adapter:
    """Low-rank additions to a trained network (LoRA)."""

    name: str = setting("", "train an adapter of this name, and leave the weights of the model to start from alone")
    rank: int = setting(8, "of what is added to each matrix: W + scale * up @ down (Hu et al. 2022)")
    scale: float = setting(2.0, "weight of what is added")
    embeddings: bool = setting(True, "add to embeddings and the output matrix too")


@dataclass(frozen=True)
class Frontend:
    """What turns frames into vectors."""

    kind: Literal["stack", "conv", "conv2d", "pyramid", "pictures"] | None = setting(
        None,
        "frames side by side, convolutions over time, over time and features, a pyramid of LSTMs, or for pictures "
        "convolutions over each and then over time",
    )
    reduce: int | None = setting(None, "frames that become one vector: 1, 2, 4 or 8")
    time_masks: int | None = setting(
        None, "SpecAugment (Park et al. 2019): stretches of time that are hidden while training"
    )
    time_share: float = setting(0.05, "SpecAugment: longest stretch, as a share of the source")
    feature_masks: int | None = setting(None, "SpecAugment: runs of features that are hidden while training")
    feature_share: float = setting(0.3, "SpecAugment: longest run, as a share of the features")


@dataclass(frozen=True)
class Model:
    """The network."""

    frontend: Frontend = part(Frontend, "what turns frames into vectors")
    encoder: Encoder = part(Encoder, "the encoder")
    decoder: Decoder = part(Decoder, "the decoder")
    knowledge: Knowledge = part(Knowledge, "the reader of facts")
    width: int | None = setting(None, "width of embeddings and hidden states")
    feedforward: int | None = setting(None, "inner width of feed-forward blocks; 0 leaves them out")
    heads: int = setting(4, "attention heads (multihead attention and self-attention)")
    attention: Literal["none", "additive", "coverage", "location", "dot", "general", "multihead"] | None = setting(
        None, "how the decoder looks at the source; none is the fixed vector, coverage and location remember where"
    )
    positions: Literal["none", "sinusoidal", "learned", "rotary", "t5", "alibi"] | None = setting(
        None, "how order enters convolution and self-attention"
    )
    max_positions: int = setting(1024, "learned positions: longest sequence")
    norm: Literal["none", "pre", "post"] | None = setting(None, "normalize before or after each block, or not")
    norm_kind: Literal["layer", "rms"] = setting("layer", "layer norm or root-mean-square norm")
    activation: Literal["relu", "leaky_relu", "gelu", "swiglu", "tanh"] | None = setting(
        None, "of feed-forward blocks; a plain RNN has relu where it says relu, else tanh"
    )
    residual: bool | None = setting(None, "add each block's input to its output")
    tie: Literal["none", "target", "all"] | None = setting(
        None, "share embeddings: target input and output; all adds the source (needs data.shared)"
    )
    head: Literal["vocabulary", "copy", "gaussian", "quantile"] | None = setting(
        None, "choose from the vocabulary, or also copy from the source; targets of numbers: gaussian or quantile"
    )
    ctc: bool | None = setting(None, "a second head, on the states of the encoder, for training.ctc and decoding.ctc")
    ends: bool | None = setting(None, "targets of numbers: the model says where one ends; else all are equally long")
    covariates: int = setting(0, "targets of numbers: features of data.context a step, as the data has them")
    initialization: Literal["xavier", "normal", "deep"] = setting(
        "deep", "deep scales feed-forward and multi-head branches by depth"
    )
    dropout: float | None = setting(None, "of each block's output")
    dropout_embedding: float | None = setting(None, "of embeddings; as dropout where not given")
    dropout_attention: float = setting(0.0, "of attention weights")
    dropout_recurrent: float = setting(0.0, "of recurrent weights (DropConnect)")
    dropout_word: float = setting(0.0, "of whole tokens, read as unknown")
    adapter: Adapter = part(Adapter, "what is trained beside frozen weights")


@dataclass(frozen=True)
class Training:
    """How the network learns."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd", "adafactor"] = setting("adamw", "optimizer")
    rate: float | None = setting(None, "peak learning rate")
    momentum: float = setting(0.9, "momentum of SGD and RMSProp")
    beta1: float = setting(0.9, "Adam: decay of the mean")
    beta2: float = setting(0.98, "Adam: decay of the square")
    weight_decay: float = setting(0.01, "AdamW: decoupled decay of matrices")
    l1: float = setting(0.0, "L1 penalty on matrices")
    l2: float = setting(0.0, "L2 penalty on matrices")
    clip: float = setting(1.0, "largest gradient norm; 0 turns clipping off")
    schedule: Literal["constant", "inverse_sqrt", "cosine", "plateau"] | None = setting(None, "rate over time")
    warmup: int | None = setting(None, "steps of linear warm-up")
    label_smoothing: float | None = setting(None, "share of probability spread over all tokens")
    coverage: float = setting(0.0, "weight of the coverage loss (See et al. 2017)")
    ctc: float | None = setting(
        None, "share of a CTC head in the loss, beside that of the decoder (Watanabe et al. 2017)"
    )
    r_drop: float = setting(0.0, "weight of the R-Drop loss (Wu et al. 2021)")
    scheduled_sampling: float = setting(0.0, "largest share of inputs taken from the model (Bengio et al. 2015)")
    objective: Literal[
        "likelihood", "self-critical", "minimum-risk", "adversarial", "unlikelihood", "sequence-unlikelihood",
        "distillation",
    ] = setting("likelihood", "what is minimized: likelihood, alone or with more")  # fmt: skip
    reward: str = setting("", "self-critical, minimum-risk: a metric, several joined by +, or constant (the control)")
    likelihood: float = setting(0.1, "share of likelihood in the loss of every other objective but unlikelihood")
    samples: int = setting(5, "minimum-risk: answers drawn for each source")
    risk_sharpness: float = setting(0.005, "minimum-risk: power of the chances of drawn answers (Shen et al. 2016)")
    unlikelihood: float = setting(1.0, "unlikelihood: its weight beside likelihood (Welleck et al. 2020)")
    teachers: tuple[str, ...] = setting((), "distillation: models to learn from, of the student's vocabularies")
    temperature: float = setting(1.0, "distillation: what logits of teachers and student are divided by")
    rollouts: int = setting(0, "adversarial: ends drawn to value each token (Yu et al. 2017); 0 judges beginnings")
    discriminator: Literal["rnn", "lstm", "gru", "conv", "transformer"] = setting(
        "gru", "adversarial: its two encoders"
    )
    discriminator_width: int = setting(64, "adversarial: width of the discriminator; a multiple of 4")
    discriminator_rate: float = setting(0.001, "adversarial: learning rate of the discriminator")
    discriminator_turns: int = setting(2, "adversarial: updates of the discriminator for each of the model")
    collapse: float = setting(0.5, "adversarial: ends below this share of the first distinct-2 or entropy; 0 never")
    ema: float = setting(0.0, "decay of the moving average of weights; 0 turns it off")
    average: int = setting(0, "average the last k validated weights at the end; 0 or 1 turns it off")
    epochs: int | None = setting(None, "most passes over the data")
    steps: int | None = setting(None, "most optimizer steps")
    minutes: float | None = setting(None, "most wall-clock minutes; the schedule fits itself to it")
    accumulate: int = setting(1, "batches an optimizer step")
    validate_every: int | None = setting(None, "steps between validations; one epoch where not given")
    metric: str | None = setting(None, "what validation judges by: loss, or the name of a metric")
    patience: int = setting(10, "validations without a new best before stopping; 0 never stops")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "arithmetic of matrix products")
    probes: bool = setting(True, "look inside the model while it trains, for `log.jsonl`; weights stay the same")
    compile: bool = setting(False, "have PyTorch compile the layers: minutes at the start, for GPUs and long runs")
    processes: int | None = setting(None, "CPU: processes that share each batch, each with 1,000 tokens or more")
    threads: int | None = setting(None, "CPU threads of each process; cores / processes where not given")
    seed: int = setting(1, "every random choice follows from it, but for the pairs that are held out")
    l2_start: float = setting(0.0, "with a model to start from: L2 pull of all weights towards its own")


@dataclass(frozen=True)
class Decoding:
    """How answers are searched for."""

    beam: int | None = setting(None, "hypotheses kept; 1 is greedy")
    length_penalty: float | None = setting(
        None, "score = log probability / length ** this; 0 ranks by plain probability; 1 where not given"
    )
    coverage_penalty: float = setting(0.0, "weight of the coverage penalty (Wu et al. 2016)")
    ctc: float | None = setting(None, "share of a CTC head in the score, beside that of the decoder; 0.3 is usual")
    n_best: int = setting(1, "hypotheses returned")
    thorough: bool = setting(False, "search on until no hypothesis can win, not only until none would if it ended now")
    refill: bool = setting(
        False, "what has ended makes room in the beam, and as many end as it is wide; plain beams, as CTranslate2 does"
    )
    groups: int = setting(1, "diverse beam groups (Vijayakumar et al. 2018)")
    diversity: float = setting(0.5, "penalty on a token that an earlier group chose at this step")
    sample: bool = setting(False, "draw tokens at random instead of searching")
    temperature: float = setting(1.0, "sampling: below 1 is safer, above 1 bolder")
    top_k: int = setting(0, "sampling: from the k likeliest tokens; 0 is all")
    top_p: float = setting(1.0, "sampling: from the smallest set of this probability")
    no_repeat: int | None = setting(None, "forbid n-grams of this length to recur; 0 allows them")
    min_length: int | None = setting(None, "fewest tokens, end mark not counted")
    max_length: int | None = setting(None, "most tokens; learned from the training pairs where not given")
    abstain: float = setting(0.0, "least confidence of an answer; below it there is none; for a calibrated model")
    seed: int = setting(1, "sampling: the same seed gives the same answers")
    risk: str = setting("", "minimum Bayes risk: metric whose mean against all candidates decides, such as chrf")
    samples: int = setting(32, "with sample: draws to choose from by risk or a backward model, or paths of numbers")
    backward_weight: float = setting(0.5, "weight of a backward model's score (MMI-bidi, Li et al. 2016)")
    length_reward: float = setting(0.0, "with a backward model: added for each token of the answer")

    @property
    def penalty(self) -> float:
        """`length_penalty`, or 1."""
        return 1.0 if self.length_penalty is None else self.length_penalty


@dataclass(frozen=True)
class Config:
    """Everything a run depends on besides its data."""

    task: str = setting("transduction", "what the pairs are for; picks the recipe")
    data: Data = part(Data, "data")
    model: Model = part(Model, "network")
    training: Training = part(Training, "training")
    decoding: Decoding = part(Decoding, "decoding")
