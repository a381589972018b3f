// What the tests of the page `try` run under node: a job as JSON on standard input, its result as JSON on standard output.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const job = JSON.parse(readFileSync(0, "utf8"));
const load = name => import(pathToFileURL(`${job.folder}/${name}`).href);

// whole numbers that depend on all that is known, and 64 levels from there, each as likely
function stub(central) {
  return async (images, given, where, uniforms) => {
    let known = 0, count = 0, k = 0;
    images.forEach((value, i) => { known += value * given[i] * (i % 7 + 1); count += given[i]; });
    const values = [];
    where.forEach((asked, i) => {
      if (!asked) return;
      const u = 0.5 + central * (uniforms[k++] - 0.5);
      values.push((7 * known + 31 * i + count) % 193 + Math.floor(u * 64));
    });
    return { values, logProb: values.map(() => 0) };
  };
}

const jobs = {
  async captions() {
    const { tokens, Vocabulary } = await load("captions.js"), vocabulary = new Vocabulary(job.vocabulary);
    return job.captions.map(caption => {
      const { ids, length, cut } = vocabulary.encode(caption, job.words);
      return { tokens: tokens(caption, job.vocabulary.level), ids: [...ids], length, cut, unknown: vocabulary.unknown(caption) };
    });
  },
  async chain() {
    const { Recorded, spread } = await load("sampling.js"), generator = new Recorded(job.uniforms), states = [];
    const chain = spread(stub(job.central), Uint8Array.from(job.images), Uint8Array.from(job.given), job.steps, generator);
    for await (const { images, redrawn } of chain) states.push({ images: [...images], redrawn: [...redrawn] });
    return { states, used: generator.used };
  },
  async graph() {
    const { Recorded, spread } = await load("sampling.js"), { Predictor } = await load("predictor.js");
    const ort = await import(pathToFileURL(job.runtime).href);
    ort.env.wasm.numThreads = 1;
    const predictor = await Predictor.load(ort, async name => new Uint8Array(readFileSync(`${job.graphs}/${name}`)));
    const generator = new Recorded(job.uniforms), states = [];
    const { draw } = await predictor.bind(job.caption, job.scale, job.central);
    const chain = spread(draw, Uint8Array.from(job.images), Uint8Array.from(job.given), job.steps, generator);
    for await (const { images, logProb } of chain) states.push({ images: [...images], logProb });
    return { states, used: generator.used };
  },
  async chance() {
    const { Generator } = await load("sampling.js");
    return [...new Generator(job.seed).uniforms(job.count)];
  },
};
process.stdout.write(JSON.stringify(await jobs[job.task]()));
