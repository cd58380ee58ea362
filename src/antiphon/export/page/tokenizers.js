// Text to tokens and back, token for token as `antiphon.data.tokenizers` does it.

import { Subword } from "./subwords.js";

/** What separates words: the white space of Python, which is not quite that of JavaScript. */
export const SPACE = "\\u0009-\\u000d\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACES = new RegExp(`[${SPACE}]+`, "u");
const JOINER = "￭";

/** The text without `mark`, in a way that `unescape` undoes whatever the text holds. */
export const escape = (text, mark) => text.replaceAll("\ue000", "\ue000\ue001").replaceAll(mark, "\ue000\ue002");

export const unescape = (text, mark) => text.replaceAll("\ue000\ue002", mark).replaceAll("\ue000\ue001", "\ue000");

/** The parts between white space. */
export const split = (text) => text.split(SPACES).filter(Boolean);

/** Whether there is nothing but white space. */
export const blank = (text) => !split(text).length;

const whitespace = { encode: split, decode: (tokens) => tokens.join(" ") };
const char = { encode: (text) => Array.from(text), decode: (tokens) => tokens.join("") };
const label = { encode: (text) => (text ? [text] : []), decode: char.decode };

const BYTES = Array.from({ length: 256 }, (_, byte) =>
  byte > 32 && byte < 127 ? String.fromCharCode(byte) : `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
);
const BYTE = new Map(BYTES.map((token, byte) => [token, byte]));

/** Every byte of UTF-8 is a token; what is no UTF-8 reads U+FFFD. */
const byte = {
  encode: (text) => Array.from(new TextEncoder().encode(text), (each) => BYTES[each]),
  decode(tokens) {
    const known = tokens.filter((token) => BYTE.has(token)).map((token) => BYTE.get(token));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(known));
  },
};

/** Words, numbers and single marks; a joiner tells on which side a mark touches its neighbour. */
class Word {
  /** `classes` are the letters, digits and accents of the Python that wrote the model. */
  constructor({ letters, digits, others, accents }) {
    const [all, first] = [`${letters}${digits}${others}`, `${letters}${others}`];
    const number = `[${digits}]+(?:[.,:][${digits}]+)*[${all}]*`;
    const word = `[${first}](?:[${all}]|[${accents}\\u200c\\u200d]|['’](?=[${first}]))*`;
    this.cut = new RegExp(`${number}|${word}|[^${SPACE}]`, "gu");
    this.letters = new RegExp(`^[${letters}]+$`, "u");
    this.known = new RegExp(`[${all}]`, "u");
  }

  encode(text) {
    return split(escape(text, JOINER)).flatMap((chunk) =>
      this.letters.test(chunk) ? [chunk] : this.joined(chunk.match(this.cut)),
    );
  }

  joined(parts) {
    let left = "";
    return parts.map((part, number) => {
      const next = parts[number + 1];
      const right = next !== undefined && this.isMark(part) && !this.isMark(next) ? JOINER : "";
      const made = left + part + right;
      left = right ? "" : JOINER;
      return made;
    });
  }

  isMark(part) {
    return Array.from(part).length === 1 && !this.known.test(part);
  }

  decode(tokens) {
    const text = tokens.join(" ").replaceAll(` ${JOINER}`, "").replaceAll(`${JOINER} `, "");
    return unescape(text.replaceAll(JOINER, ""), JOINER);
  }
}

/** The tokenizer of a description; those that only join are enough for answers. */
export function tokenizer({ kind, pieces, scores, classes }) {
  if (kind === "word") return classes ? new Word(classes) : { decode: Word.prototype.decode };
  if (kind === "bpe" || kind === "unigram") return new Subword(kind, pieces, scores, { escape, unescape });
  return { whitespace, char, label, byte, chinese: { decode: char.decode } }[kind];
}
