// A caption becomes a row of numbers and a length, exactly as my3yearold/captions.py has it.
export const PADDING = 0, UNKNOWN = 1;

const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Python's \s
const WORDS = new RegExp(`[.!?,|]|[^${SPACE}.!?,|]+`, "gu");
const SPACES = new RegExp(`[${SPACE}]+`, "u");

/** In lower case, words and the marks . ! ? , | as tokens. */
export function tokens(caption, level = "word") {
  const low = caption.toLowerCase();
  if (level === "char") return [...low.split(SPACES).filter(Boolean).join(" ")];
  return low.match(WORDS) ?? [];
}

/** Numbers for tokens: 0 = padding, 1 = unknown, then the tokens by falling frequency. */
export class Vocabulary {
  constructor({ level, words }) { // what vocabulary.json holds
    this.level = level;
    this.words = words;
    this.index = new Map(words.map((word, i) => [word, i + UNKNOWN + 1]));
  }

  /** The words that the vocabulary does not know, in order, each once. */
  unknown(caption) {
    return [...new Set(tokens(caption, this.level).filter(token => !this.index.has(token)))];
  }

  /** -> ids, Int32Array(most), padded with 0; length; cut, whether words were left out. */
  encode(caption, most) {
    const said = tokens(caption, this.level), row = said.slice(0, most);
    const ids = new Int32Array(most).fill(PADDING);
    row.forEach((token, i) => { ids[i] = this.index.get(token) ?? UNKNOWN; });
    return { ids, length: row.length, cut: said.length > most };
  }
}
