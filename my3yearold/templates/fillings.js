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
      const figure = button("", () => choose({ chosen: i, view: "filling", word: -1 }));
      const src = URL.createObjectURL(new Blob([bytes])), onload = () => URL.revokeObjectURL(src);
      figure.append(element("img", { src, onload, alt: `filling ${i + 1}` }),
                    element("span", { textContent: model.get("costs")[i] ?? "" }));
      return figure;
    }));
  };
  const speak = () => {
    words.replaceChildren(...model.get("words").map((text, i) => {
      const word = button(text, () => choose(model.get("word") === i ? { word: -1, view: "filling" } : { word: i, view: "word" }));
      word.classList.toggle("unknown", model.get("unknown").includes(text));
      return word;
    }));
    if (model.get("words").length) words.prepend("Tap a word to see where it attends: ");
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
  };
  const fresh = () => { shelve(); speak(); mark(); };

  views.append(...VIEWS.map(([view, title]) => button(title, () => choose({ view, word: -1 }))));
  files.append(...FILES.map(([what, title]) => button(title, () => model.send({ kind: "save", what }))),
               button("Copy Python", () => { lines.open = true; copy(model.get("lines"), area); }));
  el.classList.add("my3yearold-fillings");
  el.append(shelf, views, words, note, files, lines);
  model.on("change:pictures change:costs change:words change:unknown", fresh);
  model.on("change:chosen change:word change:view change:lines change:note change:locked", mark);
  model.on("msg:custom", saved);
  fresh();
  return () => {
    model.off("change:pictures change:costs change:words change:unknown", fresh);
    model.off("change:chosen change:word change:view change:lines change:note change:locked", mark);
    model.off("msg:custom", saved);
  };
}

export default { render };
