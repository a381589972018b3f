// The chain of `inpaint.spread`, for one picture: the names are those of the Python modules.
//
// Pictures and masks are flat arrays of 3 * size * size entries, channel by channel and row by row, as Python's
// tensors lie in memory: `images` Uint8Array, `given`, `hidden` and `where` Uint8Array of 0 and 1. Random numbers
// come from one `generator` and are used in the order in which Python uses them, so that the same numbers give the
// same picture.

// ---- chance.py ----

/** Numbers in [0, 1) with 53 random bits from a whole number: the generator sfc32 of Chris Doty-Humphrey. */
export class Generator {
  constructor(seed) {
    this.state = new Uint32Array([seed % 2 ** 32, Math.floor(seed / 2 ** 32), 0x9e3779b9, 1]);
    for (let i = 0; i < 15; i++) this.bits();
  }

  bits() { // 32 of them
    const s = this.state, out = (s[0] + s[1] + s[3]) >>> 0;
    s[3] += 1;
    s[0] = s[1] ^ (s[1] >>> 9);
    s[1] = s[2] + (s[2] << 3);
    s[2] = ((s[2] << 21) | (s[2] >>> 11)) + out;
    return out;
  }

  uniforms(count) { // -> Float64Array(count)
    return Float64Array.from({ length: count }, () => ((this.bits() >>> 5) * 2 ** 26 + (this.bits() >>> 6)) / 2 ** 53);
  }
}

/** Numbers that were drawn elsewhere. */
export class Recorded {
  constructor(numbers) { Object.assign(this, { numbers, used: 0 }); }

  uniforms(count) {
    if (this.used + count > this.numbers.length) throw new RangeError(`only ${this.numbers.length} numbers were drawn`);
    return Float64Array.from(this.numbers.slice(this.used, this.used += count));
  }
}

// ---- masks.py ----

const NUMBERINGS = [[0, 2, 3, 1], [0, 3, 2, 1], [1, 2, 3, 0], [1, 3, 2, 0], // of the places of a square, row by row;
                    [2, 0, 1, 3], [3, 0, 1, 2], [2, 1, 0, 3], [3, 1, 0, 2]]; // 0 and 1 diagonal
const THIRDS = [0, 1, 2].map(channel => Math.fround(channel / 3)); // in float32, as Python has them

/**
 * A random order of which every prefix covers the picture evenly: recursive 2x2 squares, channels a third of the order
 * apart. -> Float64Array(3 * size * size) in [0, 1): low keys first.
 */
export function spreadOrder(size, generator) {
  const levels = Math.max(1, Math.ceil(Math.log2(size)));
  const [down, right, ...chances] = generator.uniforms(2 + levels);
  const [top, left] = [down, right].map(u => Math.floor(u * 2 ** levels));
  const numberings = chances.map(u => NUMBERINGS[Math.floor(u * 8)]);
  const keys = new Float64Array(3 * size * size);
  for (let row = 0, i = 0; row < size; row++) {
    for (let column = 0; column < size; column++, i++) {
      let key = 0;
      for (let bit = 0; bit < levels; bit++) {
        const place = 2 * ((row + top) >> bit & 1) + ((column + left) >> bit & 1);
        key += numberings[bit][place] * 0.25 ** (bit + 1);
      }
      THIRDS.forEach((third, channel) => { keys[channel * size * size + i] = (key + third) % 1; });
    }
  }
  return keys;
}

// ---- budgets.py ----

/** Sizes of so many turns, each larger than the one before by the same factor; the last is `ratio` times the first. */
export function growing(evaluations, ratio = 100) {
  return Array.from({ length: evaluations }, (_, i) => ratio ** (i / Math.max(1, evaluations - 1)));
}

// ---- ancestral.py ----

function roundHalfEven(x) { // as torch rounds
  const below = Math.floor(x), rest = x - below;
  return rest === 0.5 ? below + below % 2 : Math.round(x);
}

/** The rank, in the order taken, at which each turn begins, for turns of such sizes; the last entry is `size`. */
export function cuts(size, evaluations) {
  const share = [0];
  for (const part of evaluations) share.push(share.at(-1) + part);
  return share.map(part => roundHalfEven(part / share.at(-1) * size));
}

/** The turn, from 0, at which each hidden variable is drawn, and -1 for what is given: in a spread order. */
export function turns(hidden, evaluations, generator) {
  const keys = spreadOrder(Math.sqrt(hidden.length / 3), generator);
  const order = Array.from(hidden.keys()).filter(i => hidden[i]).sort((i, j) => keys[i] - keys[j]);
  const begin = cuts(order.length, evaluations), turn = new Int32Array(hidden.length).fill(-1);
  for (let t = 0; t < evaluations.length; t++) {
    for (let rank = begin[t]; rank < begin[t + 1]; rank++) turn[order[rank]] = t;
  }
  return turn;
}

// ---- gibbs.py ----

/** The probability that each hidden variable is redrawn at a step: it falls linearly, then stays at `alphaMin`. */
export function yaoSchedule(step, numSteps, alphaMax = 0.9, alphaMin = 0.1, eta = 0.7) {
  return Math.max(alphaMin, alphaMax - step / numSteps * (alphaMax - alphaMin) / eta);
}

/** For a chain that starts from a filling worth keeping: from 0.3 down to 0.02. */
export function mendingSchedule(step, numSteps) {
  return yaoSchedule(step, numSteps, 0.3, 0.02);
}

/** What each step redraws: step 0 the whole hole, step n each hidden variable with probability schedule(n, numSteps). */
export function* blocks(hidden, numSteps, schedule, generator) {
  yield hidden;
  const variables = Array.from(hidden.keys()).filter(i => hidden[i]);
  for (let step = 1; step < numSteps; step++) {
    const u = generator.uniforms(variables.length), block = new Uint8Array(hidden.length);
    variables.forEach((i, k) => { block[i] = u[k] < schedule(step, numSteps); });
    yield block;
  }
}

const opposite = mask => mask.map(x => 1 - x);

/**
 * One evaluation, then one independent draw for each variable of `where`; nothing else is written.
 *
 * `draw(images, given, where, uniforms)` resolves to `values` and `logProb`, one for each variable of `where`, in order.
 */
export async function redraw(draw, images, given, where, generator) {
  const count = where.reduce((sum, x) => sum + x, 0), filled = images.slice();
  if (!count) return { images: filled, redrawn: where, logProb: 0 };
  const { values, logProb } = await draw(images, given, where, generator.uniforms(count));
  for (let i = 0, k = 0; i < where.length; i++) if (where[i]) filled[i] = values[k++];
  return { images: filled, redrawn: where, logProb: logProb.reduce((sum, x) => sum + x, 0) };
}

/** Fill the hole in turns of such sizes, in a spread order; at once if there is only one. */
export async function* fillIn(draw, images, given, evaluations, generator) {
  const hidden = opposite(given);
  let filled = images.map((value, i) => value * given[i]); // so that nothing can peek
  const turn = evaluations.length === 1 ? Int32Array.from(hidden, x => x - 1) : turns(hidden, evaluations, generator);
  for (let t = 0; t < evaluations.length; t++) {
    const known = Uint8Array.from(turn, x => x < t), where = Uint8Array.from(turn, x => x === t);
    const state = await redraw(draw, filled, known, where, generator);
    filled = state.images;
    yield state;
  }
}

/** Redraw random blocks of a hole given all the rest, again and again. */
export async function* mend(draw, images, given, numSteps, schedule, generator) {
  let filled = images;
  const plan = blocks(opposite(given), numSteps + 1, schedule, generator);
  plan.next(); // the whole hole, which is filled
  for (const where of plan) {
    const state = await redraw(draw, filled, opposite(where), where, generator);
    filled = state.images;
    yield state;
  }
}

/** Fill the hole in turns, then mend it: `numSteps` states. */
export async function* gibbs(draw, images, given, numSteps, schedule, generator, start) {
  let filled = images;
  for await (const state of fillIn(draw, images, given, start, generator)) {
    filled = state.images;
    yield state;
  }
  yield* mend(draw, filled, given, numSteps - start.length, schedule, generator);
}

// ---- inpaint.py ----

/** An ancestral start in a spread order, then small blocks; the temperature is the business of `draw`. */
export function spread(draw, images, given, steps, generator) {
  return gibbs(draw, images, given, steps, mendingSchedule, generator, growing(steps - Math.floor(steps / 2), 30));
}
