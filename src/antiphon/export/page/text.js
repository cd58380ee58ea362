// A side of the pairs: text to ids and back, as `antiphon.data.modalities` and `antiphon.inference.task` do it.

import { SPACE, blank, split, tokenizer } from "./tokenizers.js";

export const [PAD, UNK, BOS, EOS] = [0, 1, 2, 3];
const SPECIAL = 4;
const ONE_SPACE = new RegExp(`^[${SPACE}]$`, "u");
const ASCII = /^[\0-\x7f]*$/;

/** What is wrong with an input; `what` is the name of a message. */
export class Refused extends Error {
  constructor(what, got = "") {
    super(what);
    Object.assign(this, { what, got });
  }
}

/** A side as it is described in `model.json`. */
export class Text {
  constructor(side) {
    this.side = side;
    this.tokenizer = tokenizer(side);
    this.vocabulary = side.vocabulary;
    this.strange = new RegExp(`([${side.strange}]+)`, "u");
    this.index = new Map(side.vocabulary.map((token, number) => [token, number]).slice(SPECIAL));
  }

  get size() {
    return this.vocabulary.length;
  }

  normalize(text, lowercase = this.side.lowercase) {
    const { normalize, spaces } = this.side;
    const cased = lowercase ? this.lower(text) : text;
    const written = spaces === "single" ? split(cased).join(" ") : cased;
    return normalize === "none" ? written : this.known(written, (part) => part.normalize(normalize.toUpperCase()));
  }

  lower(text) {
    return this.known(text, (part) => part.toLowerCase());
  }

  /** The text with a change to all but the characters that the Python of the model does not know. */
  known(text, change) {
    if (ASCII.test(text)) return change(text);
    return text
      .split(this.strange)
      .map((part, number) => (number % 2 ? part : change(part)))
      .join("");
  }

  /** The text as tokens. */
  cut(text) {
    if (text.includes("\0") || !text.isWellFormed()) throw new Refused("broken");
    return this.tokenizer.encode(this.normalize(text));
  }

  /** Tokens with room left for the end mark: cut, or refused. */
  fit(tokens) {
    const limit = this.side.max_length;
    if (limit === null || tokens.length < limit) return tokens;
    if (this.side.too_long !== "truncate") throw new Refused("long", `${tokens.length + 1} > ${limit}`);
    return tokens.slice(0, limit - 1);
  }

  ids(tokens) {
    return tokens.map((token) => this.index.get(token) ?? UNK);
  }

  /** Tokens up to the end mark; ids past the vocabulary are read from `extra`. */
  tokens(ids, extra = []) {
    const end = ids.indexOf(EOS);
    return (end < 0 ? ids : ids.slice(0, end))
      .filter((number) => number !== PAD && number !== BOS)
      .map((number) => this.vocabulary[number] ?? extra[number - this.size]);
  }

  text(ids, extra = []) {
    return this.tokenizer.decode(this.tokens(ids, extra));
  }

  /** Tokens as people read them. */
  shown(tokens) {
    const { kind } = this.side;
    if (kind === "bpe" || kind === "unigram") return tokens.map((token) => token.replaceAll("▁", " "));
    return kind === "word" ? tokens.map((token) => token.replaceAll("￭", "")) : tokens;
  }

  /** The tokens of this text with the capital letters that were taken away. */
  spelled(tokens, text) {
    if (!this.side.lowercase || this.side.kind === "byte") return tokens;
    const plain = this.normalize(text, false);
    const origin = Array.from(plain).flatMap((letter) =>
      Array.from(this.lower(letter), (_, place) => (place ? "" : letter)),
    );
    const lower = Array.from(this.lower(plain));
    let at = 0;
    return tokens.map((token) => {
      let made = "";
      for (const letter of token) {
        let after = at;
        while (after < lower.length && lower[after] !== letter && ONE_SPACE.test(lower[after])) after += 1;
        const same = after < lower.length && lower[after] === letter;
        made += same ? origin[after] : letter;
        at = same ? after + 1 : at;
      }
      return made;
    });
  }
}

/** What the model reads and writes: `read` makes ids of a source, `answer` text of ids. */
export class Task {
  constructor(about) {
    this.about = about;
    this.source = new Text(about.source);
    this.target = new Text(about.shared ? { ...about.source, ...about.target } : about.target);
  }

  /** A source with tags from its context columns, as {tokens, ids, copy, extra}; null where there is nothing to read. */
  read(text, context = {}) {
    if (blank(text)) return null;
    const tags = this.about.context.map((name) => `<${name}:${context[name]}>`);
    const tokens = this.source.fit([...tags, ...this.source.cut(text)]);
    const found = { tokens, ids: [...this.source.ids(tokens), EOS], copy: null, extra: [] };
    return this.about.copy ? { ...found, ...this.copied(tokens, tags.length, text) } : found;
  }

  /** What each position says if it is copied: an id of the target, or one past its vocabulary for a word of `extra`. */
  copied(tokens, tags, text) {
    const extra = new Map();
    const ids = this.source.spelled(tokens.slice(tags), text).map((token) => {
      const word = this.target.normalize(token);
      const known = this.target.index.get(word);
      if (known !== undefined) return known;
      if (!extra.has(word)) extra.set(word, extra.size);
      return this.target.size + extra.get(word);
    });
    return { copy: [...new Array(Math.min(tags, tokens.length)).fill(PAD), ...ids, EOS], extra: [...extra.keys()] };
  }

  /** The ids that an answer is to begin with. */
  phrase(text, extra) {
    if (!text) return [];
    const places = new Map(extra.map((token, number) => [token, this.target.size + number]));
    const ids = this.target.cut(text).map((token) => this.target.index.get(token) ?? places.get(token) ?? UNK);
    if (!ids.length || ids.includes(UNK)) throw new Refused("unwritable", text);
    return ids;
  }

  /** The most tokens of an answer to a source of so many ids. */
  limit(length) {
    const { slope, offset } = this.about.length;
    return Math.max(1, Math.ceil(1.1 * (slope * length + offset)) + 2);
  }
}
