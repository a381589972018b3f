// The page: a picture, a brush, a caption, and the chain that a worker runs.
import { tokens, Vocabulary } from "./captions.js";
import { Hole } from "./hole.js";
import { AREA, png, reduced, shown, SIZE } from "./pictures.js";

const root = document.querySelector(".try"), find = name => root.querySelector(`.${name}`);
const canvas = root.querySelector(".stage canvas"), number = name => Number(find(name).value);
const SHELF = 24; // fillings are kept, the newest

const page = {
  picture: new Uint8Array(3 * AREA), hole: new Hole(), // what is to be filled
  fillings: [], chosen: null, // each { given, chain: [{ images, known }] }
  tool: "paint", cursor: [SIZE / 2, SIZE / 2],
  job: 0, waiting: [], // of the worker: the last job's number, and the jobs that have not ended
};
let samples = [], weights = {}, worker = null;

const say = sentence => { find("status").textContent = sentence; };

// ---- what the canvas shows ----

function paint() {
  const frame = page.chosen?.chain[number("step")];
  const [images, known] = frame ? [frame.images, frame.known] : [page.picture, page.hole.given];
  canvas.getContext("2d").putImageData(shown(images, known), 0, 0);
}

function ring(visible) {
  const [x, y] = page.cursor, around = find("ring"), side = `${100 * number("size") / SIZE}%`;
  around.hidden = !visible;
  Object.assign(around.style, { left: `${100 * x / SIZE}%`, top: `${100 * y / SIZE}%`, width: side, height: side });
}

function choose(filling, step = filling ? filling.chain.length - 1 : 0) { // null: the picture and its hole
  page.chosen = filling;
  find("step").max = filling ? Math.max(0, filling.chain.length - 1) : 0;
  find("step").value = step;
  for (const button of find("shelf").children) button.setAttribute("aria-pressed", button === filling?.button);
  for (const name of ["save", "again", "step"]) find(name).disabled = !filling?.chain.length;
  paint();
}

// ---- the brush ----

function change(how) { // whoever paints wants to see the hole
  if (page.waiting.length) return;
  choose(null);
  how();
  paint();
}

const value = () => Number(page.tool === "paint");

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * SIZE, (event.clientY - box.top) / box.height * SIZE];
}

canvas.addEventListener("pointerdown", event => {
  if (event.button || page.waiting.length) return;
  canvas.setPointerCapture(event.pointerId);
  page.cursor = place(event);
  page.hole.remember();
  change(() => page.hole.stamp(page.cursor, number("size"), value()));
});
canvas.addEventListener("pointermove", event => {
  const before = page.cursor;
  page.cursor = place(event);
  ring(true);
  if (canvas.hasPointerCapture(event.pointerId)) {
    change(() => page.hole.line(before, page.cursor, number("size"), value()));
  }
});
canvas.addEventListener("pointerleave", () => ring(false));
canvas.addEventListener("blur", () => ring(false));

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", event => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) change(() => page.hole.undo());
  else if (event.key === " ") {
    page.hole.remember();
    change(() => page.hole.stamp(page.cursor, number("size"), value()));
  } else if (event.key in ARROWS) {
    page.cursor = page.cursor.map((x, axis) => Math.min(SIZE - 0.5, Math.max(0.5, x + 2 * ARROWS[event.key][axis])));
  } else return;
  event.preventDefault();
  ring(true);
});

for (const button of root.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => {
    page.tool = button.dataset.tool;
    for (const other of root.querySelectorAll("[data-tool]")) other.setAttribute("aria-pressed", other === button);
  });
}
find("undo").addEventListener("click", () => change(() => page.hole.undo()));
find("clear").addEventListener("click", () => change(() => {
  page.hole.remember();
  page.hole.pixels = new Uint8Array(AREA);
}));

// ---- the picture ----

function take(picture) { // a new one: nothing is painted on it, and the shelf is of another
  Object.assign(page, { picture, hole: new Hole(), fillings: [] });
  find("shelf").replaceChildren();
  find("fillings").hidden = true;
  choose(null);
}

function takeSample({ pixels, box, caption }) {
  take(Uint8Array.from(atob(pixels), sign => sign.charCodeAt(0)));
  page.hole.rectangle(...box);
  find("caption").value = caption;
  mark();
  paint();
}

find("sample").addEventListener("change", () => {
  if (samples[number("sample")]) takeSample(samples[number("sample")]);
});
const file = root.querySelector("[type=file]");
find("own").addEventListener("click", () => file.click());
file.addEventListener("change", async () => {
  const [chosen] = file.files;
  file.value = "";
  if (!chosen) return;
  try {
    const picture = await reduced(chosen);
    take(picture);
    find("sample").value = "";
    find("caption").value = "";
    if (weights.photos) find("weights").value = "photos";
    settle();
    say("Your picture stays in this page. Paint what is to be filled.");
  } catch { say(`${chosen.name} cannot be read as a picture; choose a PNG or JPEG.`); }
});

// ---- the caption ----

function mark() { // the words that the weights do not know; and suggestions for the last one
  const { vocabulary } = weights[find("weights").value], caption = find("caption").value;
  const unknown = new Set(vocabulary.unknown(caption));
  const words = tokens(caption).map(word => Object.assign(document.createElement("span"), {
    textContent: word, className: unknown.has(word) ? "unknown" : "known",
  }));
  find("words").replaceChildren(...words.flatMap(word => [word, " "]));
  if (unknown.size) find("words").append(` — struck out: words that the weights “${find("weights").value}” do not know`);
  const [, before, last] = /^(.*?)(\S*)$/su.exec(caption);
  const fitting = last ? vocabulary.words.filter(word => word.startsWith(last.toLowerCase())).slice(0, 12) : [];
  root.querySelector("datalist").replaceChildren(...fitting.map(word => new Option(before + word)));
}

function settle() { // the settings that belong to weights
  const { manifest } = weights[find("weights").value];
  Object.assign(find("scale"), { value: manifest.guidance_scale });
  Object.assign(find("central"), { value: manifest.temperature });
  mark();
}

find("caption").addEventListener("input", mark);
find("weights").addEventListener("change", settle);

// ---- the chain ----

function begin({ cut, words }) {
  const filling = page.filling = { given: page.hole.given, chain: [], button: document.createElement("button") };
  filling.small = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
  Object.assign(filling.button, { type: "button", onclick: () => choose(filling) }).append(filling.small);
  filling.button.setAttribute("aria-label", `filling ${page.fillings.push(filling)}`);
  find("shelf").append(filling.button);
  if (find("shelf").children.length > SHELF) find("shelf").firstChild.remove();
  find("fillings").hidden = false;
  choose(filling);
  say(cut ? `The caption is long: its first ${words} words are read.` : "Filling …");
}

function add({ images, redrawn }) { // what was drawn once is known
  const { chain, given, small } = page.filling;
  const known = (chain.at(-1)?.known ?? given).map((x, i) => x | redrawn[i]);
  chain.push({ images, known });
  small.getContext("2d").putImageData(shown(images, known), 0, 0);
  find("progress").value = chain.length / page.steps;
  choose(page.filling);
}

function end(sentence) {
  find("progress").value = 0;
  root.classList.toggle("busy", page.waiting.length > 0);
  find("fill").disabled = page.waiting.length > 0;
  find("stop").disabled = !page.waiting.length;
  if (sentence) say(sentence);
}

function next() {
  if (page.waiting.length) worker.postMessage(page.waiting[0]);
}

const answers = {
  begun: begin,
  state: add,
  done() {
    page.waiting.shift();
    const { length } = page.filling.chain;
    end(length < page.steps ? `Stopped after ${length} of ${page.steps} evaluations.` : `Filled in ${length} evaluations.`);
    next();
  },
  failed({ message }) {
    page.waiting = [];
    end(`The filling failed: ${message}`);
  },
};

find("settings").addEventListener("submit", event => {
  event.preventDefault();
  if (page.waiting.length) return;
  if (page.hole.empty) { say("Nothing is painted yet: paint what is to be filled."); return; }
  page.steps = number("steps");
  page.waiting = Array.from({ length: number("several") }, (_, i) => ({
    kind: "fill", job: ++page.job, weights: find("weights").value, images: page.picture, given: page.hole.given,
    caption: find("caption").value, steps: page.steps, scale: number("scale"), central: number("central"),
    seed: number("seed") + i,
  }));
  find("seed").value = (number("seed") + page.waiting.length) % 2 ** 32; // the next filling is another one
  end("Fetching the network …");
  next();
});
find("stop").addEventListener("click", () => {
  worker.postMessage({ kind: "stop", job: page.job });
  page.waiting.splice(1); // those that have not begun
  say("Stopping …");
});

// ---- what was filled ----

find("step").addEventListener("input", () => {
  paint();
  say(`Step ${number("step") + 1} of ${page.chosen.chain.length}.`);
});
find("save").addEventListener("click", async () => {
  const address = URL.createObjectURL(await png(page.chosen.chain[number("step")].images));
  Object.assign(document.createElement("a"), { href: address, download: "filled.png" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
});
find("again").addEventListener("click", () => {
  if (!page.waiting.length) take(page.chosen.chain[number("step")].images.slice());
});

// ---- the beginning ----

async function json(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} could not be fetched (${answer.status}); reload the page.`);
  return answer.json();
}

async function start() {
  if (typeof WebAssembly !== "object" || typeof Worker !== "function") {
    throw new Error("This browser has no WebAssembly, or it is switched off; the network needs it to run here.");
  }
  const found = await json("pages.json");
  samples = found.samples;
  for (const name of found.weights) {
    const [manifest, vocabulary] = await Promise.all([json(`${name}/manifest.json`), json(`${name}/vocabulary.json`)]);
    weights[name] = { manifest, vocabulary: new Vocabulary(vocabulary) };
  }
  find("weights").replaceChildren(...found.weights.map(name => new Option(name)));
  find("sample").replaceChildren(...samples.map(({ caption }, i) => new Option(caption, i)), new Option("your own", ""));
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => answers[data.kind](data);
  worker.onerror = () => answers.failed({ message: "its worker could not be started; try a newer browser." });
  settle();
  takeSample(samples[0]);
  say("A part of the picture is hidden already. Press Fill, or paint another hole.");
}

start().catch(({ message }) => {
  Object.assign(find("fault"), { textContent: message, hidden: false });
  for (const part of root.querySelectorAll(".picture, .settings")) part.hidden = true;
}).finally(() => { root.hidden = false; });
