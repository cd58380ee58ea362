// Pieces of words by BPE or unigram, piece for piece as SentencePiece cuts them.

const SPACE = "▁";
const UNKNOWN = 10;
const MOST_WORDS = 1 << 16;

/** A model of pieces and their scores: by which BPE merges, and whose best sum unigram looks for. */
export class Subword {
  constructor(kind, pieces, scores, { escape, unescape }) {
    Object.assign(this, { kind, escape, unescape });
    this.scores = new Map(pieces.map((piece, number) => [piece, Math.fround(scores[number])]));
    this.least = scores.reduce((least, score) => Math.min(least, Math.fround(score)), Infinity);
    this.longest = pieces.reduce((most, piece) => Math.max(most, Array.from(piece).length), 1);
    this.byWord = this.scores.has(SPACE) && !pieces.some((piece) => piece.includes(SPACE, 1));
    this.words = new Map();
  }

  /** The pieces, word by word where no piece reaches from one word into the next. */
  encode(text) {
    if (!text) return [];
    const escaped = this.escape(text, SPACE);
    return (this.byWord ? escaped.split(" ") : [escaped]).flatMap((word) => this.cut(word));
  }

  cut(word) {
    let pieces = this.words.get(word);
    if (pieces === undefined) {
      const letters = Array.from(SPACE + word.replaceAll(" ", SPACE));
      pieces = this.joined(this.kind === "bpe" ? this.merged(letters) : this.likeliest(letters));
      if (this.words.size >= MOST_WORDS) this.words.clear();
      this.words.set(word, pieces);
    }
    return pieces;
  }

  /** From letters to pieces: the best merge first, the left one of equals. */
  merged(parts) {
    for (;;) {
      let best = -1;
      let most = -Infinity;
      for (let place = 0; place + 1 < parts.length; place++) {
        const score = this.scores.get(parts[place] + parts[place + 1]);
        if (score !== undefined && score > most) [best, most] = [place, score];
      }
      if (best < 0) return parts;
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
  }

  /** The pieces with the best sum of scores, added up as SentencePiece adds: each sum is kept in 32 bits. */
  likeliest(letters) {
    const sums = new Array(letters.length + 1).fill(null);
    const begins = [];
    sums[0] = 0;
    const reach = (begin, end, score) => {
      const sum = score + sums[begin];
      if (sums[end] === null || sum > sums[end]) [sums[end], begins[end]] = [Math.fround(sum), begin];
    };
    for (let begin = 0; begin < letters.length; begin++) {
      let piece = "";
      for (let end = begin + 1; end <= Math.min(letters.length, begin + this.longest); end++) {
        piece += letters[end - 1];
        const score = this.scores.get(piece);
        if (score !== undefined) reach(begin, end, score);
      }
      if (!this.scores.has(letters[begin])) reach(begin, begin + 1, Math.fround(this.least - UNKNOWN));
    }
    const pieces = [];
    for (let end = letters.length; end > 0; end = begins[end]) pieces.unshift(letters.slice(begins[end], end).join(""));
    return pieces;
  }

  /** Neighbouring unknown pieces as one. */
  joined(pieces) {
    const found = [];
    let open = false;
    for (const piece of pieces) {
      const known = this.scores.has(piece);
      if (open && !known) found.push(found.pop() + piece);
      else found.push(piece);
      open = !known;
    }
    return found;
  }

  decode(tokens) {
    const text = tokens.join("").replaceAll(SPACE, " ");
    return this.unescape(text.startsWith(" ") ? text.slice(1) : text, SPACE);
  }
}
