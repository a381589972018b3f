// The network, as two graphs that onnxruntime-web runs: one reads a caption, one evaluates a step and draws.
import { Vocabulary } from "./captions.js";

const counted = (where, channel, area) => {
  const numbers = [];
  for (let i = 0; i < area; i++) if (where[channel * area + i]) numbers.push(i);
  return numbers;
};

export class Predictor {
  /** `ort` is onnxruntime-web; `bytes(name)` resolves to a file of the exported folder, Uint8Array. */
  static async load(ort, bytes) {
    const json = async name => JSON.parse(new TextDecoder().decode(await bytes(name)));
    const session = async name => ort.InferenceSession.create(await bytes(name), { executionProviders: ["wasm"] });
    const made = new Predictor();
    made.ort = ort;
    made.manifest = await json("manifest.json");
    made.vocabulary = new Vocabulary(await json("vocabulary.json"));
    made.reader = await session("read.onnx");
    made.stepper = await session("step.onnx");
    return made;
  }

  async read(caption) { // -> states (words, S) of the caption, its length, and whether it was cut
    const { Tensor } = this.ort, { words } = this.manifest;
    const { ids, length, cut } = this.vocabulary.encode(caption, words);
    const feeds = { ids: new Tensor("int32", ids, [1, words]), lengths: new Tensor("int32", [length], [1]) };
    const { states } = await this.reader.run(feeds);
    return { states, length, cut };
  }

  /**
   * A caption, its guidance and a central temperature -> `draw`, which the sampler calls, and what became of the caption.
   *
   * Guidance compares two evaluations, with the caption and without it. Where nothing is compared, one is enough.
   */
  async bind(caption, scale, central) {
    const { Tensor } = this.ort, asked = await this.read(caption);
    const read = scale === 1 || asked.length === 0 ? [asked] : [asked, await this.read("")];
    const [, words, width] = asked.states.dims, states = new Float32Array(read.length * words * width);
    read.forEach((one, n) => states.set(one.states.data, n * words * width));
    const bound = {
      states: new Tensor("float32", states, [read.length, words, width]),
      lengths: new Tensor("int32", read.map(one => one.length), [read.length]),
      scale: new Tensor("float32", [scale], []),
      central: new Tensor("float64", [central], []),
    };
    const draw = (...asked) => this.step(bound, ...asked);
    return { draw, cut: asked.cut, evaluations: read.length };
  }

  /** As `redraw` of sampling.js calls it. A channel that asks for fewer pixels than another is padded. */
  async step(bound, images, given, where, uniforms) {
    const { Tensor } = this.ort, { size } = this.manifest, area = size * size;
    const asked = [0, 1, 2].map(channel => counted(where, channel, area));
    const most = Math.max(...asked.map(numbers => numbers.length));
    const pixels = new Int32Array(3 * most), chances = new Float64Array(3 * most).fill(0.5);
    let used = 0;
    asked.forEach((numbers, channel) => {
      pixels.set(numbers, channel * most);
      chances.set(uniforms.subarray(used, used += numbers.length), channel * most);
    });
    const found = await this.stepper.run({
      ...bound,
      images: new Tensor("uint8", images, [1, 3, size, size]),
      given: new Tensor("bool", given, [1, 3, size, size]),
      pixels: new Tensor("int32", pixels, [3, most]),
      uniforms: new Tensor("float64", chances, [3, most]),
    });
    const unpadded = row => asked.flatMap((numbers, c) => Array.from(row.subarray(c * most, c * most + numbers.length)));
    return { values: unpadded(found.values.data), logProb: unpadded(found.log_prob.data) };
  }
}
