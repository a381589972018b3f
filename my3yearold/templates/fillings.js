// The fillings side by side with what they cost, what else is known of them, and ways to take them along.
const VIEWS = [["filling", "Filling"], ["entropy", "What was uncertain"], ["saved", "What the caption saved"]];
const FILES = [["png", "Save PNG"], ["gif", "Save GIF"], ["picture", "Save picture"], ["mask", "Save mask"]];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function button(text, onclick) { return element("button", { type: "button", textContent: text, onclick }); }

async function copy(text, area) {
  try { await navigator.clipboard.writeText(text); } catch { // no clipboard on a page without https
    area.select();
    document.execCommand("copy");
  }
}

function saved(content, [bytes]) { // a file from Python goes where the browser puts downloads
  if (content.kind !== "file") return;
  const url = URL.createObjectURL(new Blob([bytes], { type: content.type }));
  const link = element("a", { href: url, download: content.name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function render({ model, el }) {
  const shelf = element("div", { className: "shelf" });
  const words = element("p", { className: "words" });
  const views = element("div", { className: "tools", role: "group" });
  const files = element("div", { className: "tools" });
  const area = element("textarea", { readOnly: true, rows: 12, spellcheck: false });
  area.setAttribute("aria-label", "Python lines that do the same");
  const lines = element("details", {}, element("summary", { textContent: "The same in Python" }), area);
  const note = element("output");

  const choose = changes => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const shelve = () => {
    shelf.replaceChildren(...model.get("pictures").map((bytes, i) => {
      const figure = button("", () => { before = null; choose({ chosen: i, view: "filling", word: -1 }); });
      const src = URL.createObjectURL(new Blob([bytes])), onload = () => URL.revokeObjectURL(src);
      figure.append(element("img", { src, onload, alt: `filling ${i + 1}` }),
                    element("span", { textContent: model.get("costs")[i] ?? "" }));
      return figure;
    }));
  };
  // a mouse that rests on a word, or the tab key, shows where it attends; who leaves sees what was seen before, and a
  // click keeps the word; the wait spares the kernel the words that are only crossed
  let before = null, timer;
  const soon = act => { clearTimeout(timer); timer = setTimeout(act, 200); };
  const rest = i => soon(() => {
    if (model.get("locked") || model.get("word") === i) return;
    before ??= { view: model.get("view"), word: model.get("word") };
    choose({ view: "word", word: i });
  });
  const leave = () => soon(() => { if (before && !model.get("locked")) choose(before); before = null; });
  const keep = i => {
    clearTimeout(timer);
    choose(model.get("word") === i && !before ? { view: "filling", word: -1 } : { view: "word", word: i });
    before = null;
  };
  const speak = () => {
    clearTimeout(timer);
    before = null;
    words.replaceChildren(...model.get("words").map((text, i) => {
      const word = button(text, () => keep(i));
      word.classList.toggle("unknown", model.get("unknown").includes(text));
      word.addEventListener("pointerenter", event => { if (event.pointerType !== "touch") rest(i); });
      word.addEventListener("pointerleave", event => { if (event.pointerType !== "touch") leave(); });
      word.addEventListener("focus", () => { if (word.matches(":focus-visible")) rest(i); }); // not after a click
      word.addEventListener("blur", leave);
      return word;
    }));
    if (model.get("words").length) words.prepend("Rest on a word, or tap it, to see where it attends: ");
  };
  const mark = () => {
    const pressed = (part, is) => [...part.querySelectorAll("button")].forEach((b, i) => b.setAttribute("aria-pressed", is(i)));
    pressed(shelf, i => i === model.get("chosen"));
    pressed(words, i => i === model.get("word"));
    pressed(views, i => VIEWS[i][0] === model.get("view"));
    el.hidden = !model.get("pictures").length;
    area.value = model.get("lines");
    note.textContent = model.get("note");
    for (const b of el.querySelectorAll("button")) b.disabled = model.get("locked");
    if (model.get("locked")) before = null; // what was seen before has gone
  };
  const fresh = () => { shelve(); speak(); mark(); };

  views.append(...VIEWS.map(([view, title]) => button(title, () => { before = null; choose({ view, word: -1 }); })));
  files.append(...FILES.map(([what, title]) => button(title, () => model.send({ kind: "save", what }))),
               button("Copy Python", () => { lines.open = true; copy(model.get("lines"), area); }));
  el.classList.add("my3yearold-fillings");
  el.append(shelf, views, words, note, files, lines);
  model.on("change:pictures change:costs change:words change:unknown", fresh);
  model.on("change:chosen change:word change:view change:lines change:note change:locked", mark);
  model.on("msg:custom", saved);
  fresh();
  return () => {
    clearTimeout(timer);
    model.off("change:pictures change:costs change:words change:unknown", fresh);
    model.off("change:chosen change:word change:view change:lines change:note change:locked", mark);
    model.off("msg:custom", saved);
  };
}

export default { render };
