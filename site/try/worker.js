// The chain runs here, beside the page, so that the page answers while the network is evaluated.
import * as ort from "./ort/ort.wasm.min.mjs";
import { Predictor } from "./predictor.js";
import { Generator, spread } from "./sampling.js";

ort.env.wasm.numThreads = 1; // more would need headers that static hosts do not send
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

const loaded = new Map(); // weights -> Promise of a Predictor
let stopped = 0; // the last job that is not wanted any more

async function fetched(weights, name) {
  const answer = await fetch(new URL(`./${weights}/${name}`, import.meta.url));
  if (!answer.ok) throw new Error(`${weights}/${name} could not be fetched (${answer.status}); reload the page`);
  return new Uint8Array(await answer.arrayBuffer());
}

function predictorOf(weights) {
  if (!loaded.has(weights)) {
    const loading = Predictor.load(ort, name => fetched(weights, name));
    loading.catch(() => loaded.delete(weights)); // the next try fetches again
    loaded.set(weights, loading);
  }
  return loaded.get(weights);
}

const breath = () => new Promise(resolve => { setTimeout(resolve); }); // in which messages arrive

async function fill({ job, weights, images, given, caption, steps, scale, central, seed }) {
  const predictor = await predictorOf(weights);
  const { draw, cut } = await predictor.bind(caption, scale, central);
  postMessage({ kind: "begun", job, cut, words: predictor.manifest.words });
  await breath();
  for await (const { images: filled, redrawn } of spread(draw, images, given, steps, new Generator(seed))) {
    postMessage({ kind: "state", job, images: filled, redrawn });
    await breath();
    if (job <= stopped) break;
  }
  postMessage({ kind: "done", job });
}

onmessage = async ({ data }) => {
  if (data.kind === "stop") { stopped = data.job; return; }
  try { await fill(data); } catch (error) {
    postMessage({ kind: "failed", job: data.job, message: error.message ?? String(error) });
  }
};
