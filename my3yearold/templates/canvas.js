// A picture into which a hole is painted. Strokes stay in the browser; the mask travels once, when the pointer is lifted.
const TOOLS = [["paint", "Paint"], ["erase", "Erase"], ["rectangle", "Rectangle"]];
const UNDOS = 50;
const PART = 1 << 20; // bytes of a message: servers refuse large ones

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// one bit a pixel, the first pixel in the highest bit, as numpy's packbits has it
function packed(hole) {
  const bytes = new Uint8Array(Math.ceil(hole.length / 8));
  for (let i = 0; i < hole.length; i++) if (hole[i]) bytes[i >> 3] |= 128 >> (i & 7);
  return bytes;
}

function unpacked(view, length) {
  const hole = new Uint8Array(length);
  if (view?.byteLength !== Math.ceil(length / 8)) return hole;
  for (let i = 0; i < length; i++) hole[i] = (view.getUint8(i >> 3) >> (7 - (i & 7))) & 1;
  return hole;
}

function decoded(view) { // bytes of a picture -> ImageBitmap
  return createImageBitmap(new Blob([view]));
}

class Hole { // which pixels are painted
  constructor(width, height, view) {
    Object.assign(this, { width, height, pixels: unpacked(view, width * height), past: [] });
  }
  remember() {
    this.past.push(this.pixels.slice());
    if (this.past.length > UNDOS) this.past.shift();
  }
  undo() { this.pixels = this.past.pop() ?? this.pixels; }
  set(left, top, right, bottom, value, inside = () => true) {
    for (let y = Math.max(0, top); y < Math.min(this.height, bottom); y++)
      for (let x = Math.max(0, left); x < Math.min(this.width, right); x++)
        if (inside(x, y)) this.pixels[y * this.width + x] = value;
  }
  stamp([x, y], size, value) { // a disc; a pixel belongs to it if its middle does, and one is always hit
    const r = size / 2;
    this.set(Math.floor(x - r), Math.floor(y - r), Math.ceil(x + r) + 1, Math.ceil(y + r) + 1, value,
             (i, j) => (i + 0.5 - x) ** 2 + (j + 0.5 - y) ** 2 <= r * r || (i === Math.floor(x) && j === Math.floor(y)));
  }
  line([x, y], [toX, toY], size, value) {
    const steps = Math.ceil(Math.hypot(toX - x, toY - y) / Math.max(0.5, size / 6)) || 1;
    for (let k = 0; k <= steps; k++) this.stamp([x + (toX - x) * k / steps, y + (toY - y) * k / steps], size, value);
  }
  rectangle([x, y], [toX, toY], value) {
    this.set(Math.floor(Math.min(x, toX)), Math.floor(Math.min(y, toY)),
             Math.floor(Math.max(x, toX)) + 1, Math.floor(Math.max(y, toY)) + 1, value);
  }
}

function board(hole) { // -> ImageData: the hole's pattern, clear elsewhere
  const square = Math.max(4, Math.floor(Math.max(hole.width, hole.height) / 48));
  const image = new ImageData(hole.width, hole.height), words = new Uint32Array(image.data.buffer);
  const [dark, light] = [112, 144].map(grey => (255 << 24 | grey << 16 | grey << 8 | grey) >>> 0);
  for (let y = 0, i = 0; y < hole.height; y++)
    for (let x = 0; x < hole.width; x++, i++)
      if (hole.pixels[i]) words[i] = (Math.floor(x / square) + Math.floor(y / square)) % 2 ? light : dark;
  return image;
}

function toolbar(state, actions) {
  const group = element("div", { className: "tools", role: "toolbar" });
  const tools = TOOLS.map(([name, title]) => {
    const button = element("button", { type: "button", textContent: title, onclick: () => choose(name) });
    button.dataset.tool = name;
    return button;
  });
  const choose = name => {
    state.tool = name;
    for (const button of tools) button.setAttribute("aria-pressed", button.dataset.tool === name);
  };
  const size = element("input", { type: "range", min: 1, max: 100, value: state.size,
                                  oninput: () => { state.size = +size.value; } });
  const others = ["undo", "clear"].map(name => {
    const button = element("button", { type: "button", textContent: name[0].toUpperCase() + name.slice(1),
                                       onclick: () => actions[name]() });
    button.dataset.action = name;
    return button;
  });
  const file = element("input", { type: "file", accept: "image/*", hidden: true,
                                  onchange: () => { actions.upload(file.files[0]); file.value = ""; } });
  const own = element("button", { type: "button", className: "own", textContent: "Your picture …", onclick: () => file.click() });
  group.append(own, file, ...tools, element("label", {}, "Brush ", size), ...others);
  choose(state.tool);
  return { group, size };
}

async function upload(model, file) {
  if (!file) return;
  const parts = Math.max(1, Math.ceil(file.size / PART));
  for (let part = 0; part < parts; part++) {
    const bytes = await file.slice(part * PART, (part + 1) * PART).arrayBuffer();
    model.send({ kind: "upload", name: file.name, part, parts }, undefined, [bytes]);
  }
}

function render({ model, el }) {
  const picture = element("canvas"), cover = element("canvas", { className: "cover", tabIndex: 0 });
  const ring = element("div", { className: "ring" });
  const stage = element("div", { className: "stage" }, picture, cover, ring);
  const status = element("output"), progress = element("progress", { max: 1, value: 0 });
  progress.setAttribute("aria-label", "progress of the chain");
  status.setAttribute("aria-live", "polite");
  cover.setAttribute("aria-label", "the picture: paint what is to be filled");
  const state = { tool: "paint", size: 12, hole: new Hole(1, 1), drawing: null };

  const paint = () => { // a filling covers the hole's pattern
    const context = cover.getContext("2d");
    if (model.get("shown").byteLength) context.clearRect(0, 0, cover.width, cover.height);
    else context.putImageData(board(state.hole), 0, 0);
  };
  let asked = false; // at most once a frame of the screen
  const soon = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; paint(); });
  };
  const send = () => {
    model.set("mask", new DataView(packed(state.hole.pixels).buffer));
    model.save_changes();
  };
  const uncover = () => { // whoever paints wants to see the hole
    if (!model.get("shown").byteLength) return;
    model.set("shown", new DataView(new ArrayBuffer(0)));
    model.save_changes();
  };
  const change = how => {
    if (model.get("locked")) return;
    uncover();
    how();
    paint();
    send();
  };
  const actions = {
    undo: () => change(() => state.hole.undo()),
    clear: () => change(() => { state.hole.remember(); state.hole.pixels.fill(0); }),
    upload: file => { if (!model.get("locked")) upload(model, file); },
  };
  const { group, size } = toolbar(state, actions);

  let latest = 0, ready = Promise.resolve(); // pictures are decoded at their own pace, and the last one counts
  const show = async () => {
    const number = ++latest;
    await ready;
    const covered = model.get("shown").byteLength > 0;
    let image;
    try { image = await decoded(covered ? model.get("shown") : model.get("picture")); } catch { return; }
    if (number !== latest) return;
    picture.getContext("2d").drawImage(image, 0, 0, picture.width, picture.height);
    stage.dataset.shown = covered;
    stage.dataset.frames = +(stage.dataset.frames ?? 0) + covered;
    paint();
  };
  const prepare = async () => {
    let image;
    try { image = await decoded(model.get("picture")); } catch { return; }
    const { width, height } = image, mask = model.get("mask");
    for (const canvas of [picture, cover]) [canvas.width, canvas.height] = [width, height];
    stage.classList.toggle("small", Math.max(width, height) <= 256);
    stage.style.aspectRatio = `${width} / ${height}`;
    stage.style.maxWidth = `min(100%, calc(62vh * ${width / height}))`;
    size.max = Math.ceil(Math.max(width, height) / 4);
    size.value = state.size = Math.max(2, Math.round(Math.max(width, height) / 12));
    state.hole = new Hole(width, height, mask.byteLength === Math.ceil(width * height / 8) ? mask : model.get("start"));
  };
  const begin = () => { // another picture
    ready = ready.then(prepare);
    show();
  };

  const place = event => {
    const box = cover.getBoundingClientRect();
    return [(event.clientX - box.left) * cover.width / box.width, (event.clientY - box.top) * cover.height / box.height];
  };
  const follow = event => {
    const box = cover.getBoundingClientRect(), side = state.size * box.width / cover.width;
    Object.assign(ring.style, { width: `${side}px`, height: `${side}px`,
                                left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px` });
    ring.hidden = state.tool === "rectangle" || event.pointerType === "touch";
  };
  const stroke = (event, first) => {
    const { drawing, hole } = state, here = place(event);
    if (state.tool === "rectangle") {
      hole.pixels = hole.past.at(-1).slice();
      hole.rectangle(drawing.from, here, 1);
    } else hole.line(first ? here : drawing.last, here, state.size, state.tool === "erase" ? 0 : 1);
    drawing.last = here;
    soon();
  };
  cover.onpointerdown = event => {
    if (model.get("locked") || state.drawing || event.button > 0) return;
    event.preventDefault();
    cover.setPointerCapture(event.pointerId);
    cover.focus({ preventScroll: true });
    uncover();
    state.hole.remember();
    state.drawing = { pointer: event.pointerId, from: place(event) };
    stroke(event, true);
  };
  cover.onpointermove = event => {
    follow(event);
    if (state.drawing?.pointer !== event.pointerId) return;
    const all = state.tool !== "rectangle" && event.getCoalescedEvents?.();
    for (const each of all?.length ? all : [event]) stroke(each, false);
  };
  cover.onpointerup = cover.onpointercancel = event => {
    if (state.drawing?.pointer !== event.pointerId) return;
    state.drawing = null;
    paint();
    send();
  };
  cover.onpointerleave = () => { ring.hidden = true; };
  el.onkeydown = event => {
    if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    actions.undo();
  };
  el.dataset.lmSuppressShortcuts = true; // or JupyterLab takes the key for the notebook
  stage.ondragover = event => event.preventDefault();
  stage.ondrop = event => { event.preventDefault(); actions.upload(event.dataTransfer.files[0]); };

  const say = () => {
    status.textContent = model.get("status");
    progress.value = model.get("progress");
    progress.style.visibility = model.get("locked") ? "visible" : "hidden";
    el.classList.toggle("locked", model.get("locked"));
    for (const button of group.querySelectorAll("button")) button.disabled = model.get("locked");
  };
  const heard = { "change:picture": begin, "change:shown": show, "change:status change:progress change:locked": say };
  for (const [events, handler] of Object.entries(heard)) model.on(events, handler);
  el.classList.add("my3yearold-canvas");
  ring.hidden = true;
  el.append(group, stage, progress, status);
  begin();
  say();
  return () => { for (const [events, handler] of Object.entries(heard)) model.off(events, handler); };
}

export default { render };
