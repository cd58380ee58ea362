// Pieces that a model reads and writes, put back into the text that people read, and gathered into words.

/** Letters that stand upright and without spaces. */
export const CJK = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u;
const AHEAD = 24;

/** Where each piece stands in the text: [from, to], or null where it is not found (a mark, an unknown letter). */
export function places(pieces, text) {
  const low = text.toLowerCase();
  let at = 0;
  return pieces.map((piece) => {
    const bare = piece.trim();
    while (at < text.length && /\s/.test(text[at])) at += 1;
    if (!bare || low.length !== text.length) return null;
    const found = low.indexOf(bare.toLowerCase(), at);
    if (found < 0 || found - at > AHEAD) return null;
    at = found + bare.length;
    return [found, at];
  });
}

/**
 * Words of a text, {text, from, to, pieces}: pieces with no space between are one, unless there is no space at all or
 * the script has none. Pieces that are not in the text are words by themselves, with `from` null.
 */
export function words(pieces, text) {
  const where = places(pieces, text);
  const parted = /\S\s+\S/.test(text);
  const found = [];
  pieces.forEach((piece, number) => {
    const [from, to] = where[number] ?? [null, null];
    const last = found.at(-1);
    if (from !== null && last && last.from !== null && joined(text, last, from, parted)) {
      Object.assign(last, { to, text: text.slice(last.from, to), pieces: [...last.pieces, number] });
    } else if (from !== null || piece.trim()) {
      found.push({ text: from === null ? piece.trim() : text.slice(from, to), from, to, pieces: [number] });
    }
  });
  return found;
}

function joined(text, last, from, parted) {
  return parted && last.to === from && !CJK.test(text[from]) && !CJK.test(text[from - 1]);
}

/** How much each target word looked at each source word: over its pieces the mean, over theirs the sum. */
export function attention(rows, targets, sources) {
  return targets.map((target) =>
    sources.map((source) => {
      const sums = target.pieces.map((t) => source.pieces.reduce((sum, s) => sum + (rows[t]?.[s] ?? 0), 0));
      return sums.reduce((sum, value) => sum + value, 0) / sums.length;
    }),
  );
}

/** The probability of a word where it stands: of its pieces, one after the other. */
export function probability(word, scores) {
  return Math.exp(word.pieces.reduce((sum, piece) => sum + (scores[piece] ?? 0), 0));
}

/** The parts of `text` as {text, fresh}: fresh are words that `other` does not have in this order. */
export function difference(text, other) {
  const [mine, theirs] = [cut(text), cut(other)];
  const longest = table(mine, theirs);
  const parts = [];
  for (let i = 0, j = 0; i < mine.length;) {
    const same = j < theirs.length && mine[i] === theirs[j];
    if (!same && j < theirs.length && longest[i][j + 1] >= longest[i + 1][j]) j += 1;
    else {
      parts.push({ text: mine[i], fresh: !same && mine[i].trim() !== "" });
      i += 1;
      j += same;
    }
  }
  return parts;
}

const cut = (text) => text.match(/[\p{Script=Han}]|\s+|[^\s\p{Script=Han}]+/gu) ?? [];

function table(mine, theirs) {
  const rows = Array.from({ length: mine.length + 1 }, () => new Array(theirs.length + 1).fill(0));
  for (let i = mine.length - 1; i >= 0; i--) {
    for (let j = theirs.length - 1; j >= 0; j--) {
      rows[i][j] = mine[i] === theirs[j] ? rows[i + 1][j + 1] + 1 : Math.max(rows[i + 1][j], rows[i][j + 1]);
    }
  }
  return rows;
}
