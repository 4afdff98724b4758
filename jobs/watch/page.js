// Finds, filters, sorts and enlarges the rows of a report. Texts of the data are texts here, too: nothing is parsed as HTML.
const element = id => document.getElementById(id);
const rows = [...document.querySelectorAll(".row")].map((article, place) => ({ article, place, fields: fieldsOf(article) }));
let shown = rows;

function fieldsOf(article) {
  const names = [...article.querySelectorAll("dt")];
  return new Map(names.map(name => [name.textContent, name.nextElementSibling.textContent.toLowerCase()]));
}

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const button = (text, title, act) => make("button", { type: "button", title, onclick: act }, text);

function fits({ article, fields }) {
  const [words, where, kind, finish] = ["find", "where", "kind", "finish"].map(id => element(id).value);
  const texts = where ? [fields.get(where) ?? ""] : [...fields.values()];
  return texts.some(text => text.includes(words.toLowerCase())) && (!kind || article.dataset.kinds.split(" ").includes(kind))
    && (!finish || article.dataset.finish === finish);
}

const orders = {
  input: (a, b) => a.place - b.place,
  longest: (a, b) => b.article.dataset.tokens - a.article.dataset.tokens,
  shortest: (a, b) => a.article.dataset.tokens - b.article.dataset.tokens,
  prompt: (a, b) => b.article.dataset.prompt - a.article.dataset.prompt,
};

function sort() {
  rows.sort(orders[element("order").value]);
  element("rows").append(...rows.map(row => row.article));
  filter();
}

function filter() {
  shown = rows.filter(fits);
  for (const row of rows) row.article.hidden = true;
  for (const row of shown) row.article.hidden = false;
  element("count").textContent = shown.length + " of " + rows.length + " rows shown";
}

async function copy(row, pressed) {
  const id = JSON.parse(row.article.dataset.id);
  const done = await navigator.clipboard.writeText(id).then(() => true, () => copySelected(id, pressed));
  pressed.textContent = done ? "copied" : "not copied";
  setTimeout(() => { pressed.textContent = "copy id"; }, 1500);
}

// Where the browser gives a page no clipboard.
function copySelected(id, pressed) {
  const area = make("textarea", { value: id });
  pressed.after(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  pressed.focus();
  return done;
}

const large = make("dialog", { id: "large", ariaLabel: "one row" });
let opened = null;

function enlarge(row) {
  const at = shown.indexOf(row), parts = [...row.article.querySelectorAll(".images, dl")];
  opened = row;
  large.replaceChildren(
    make("div", { className: "tools" }, make("span", {},
      button("\u2190", "the row before (left arrow)", () => step(-1)), " ",
      button("\u2192", "the next row (right arrow)", () => step(1)), ` ${at + 1} of ${shown.length}`),
    make("span", {}, ...copyButtons(row), " ", button("close", "close (Escape)", () => large.close()))),
    ...parts.map(part => part.cloneNode(true)));
  if (!large.open) large.showModal();
  large.scrollTop = 0;
}

function step(by) {
  const next = shown[shown.indexOf(opened) + by];
  if (!next) return;
  enlarge(next);
  large.querySelectorAll("button")[by < 0 ? 0 : 1].focus();
}

function copyButtons(row) {
  if (!row.article.dataset.id) return [];
  return [button("copy id", "copy the id of this row", event => copy(row, event.target))];
}

function focusRow(by) {
  const at = shown.findIndex(row => row.article.contains(document.activeElement));
  const next = shown[at < 0 ? 0 : at + by];
  next?.article.querySelector(".enlarge").focus();
  next?.article.scrollIntoView({ block: "nearest" });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (large.open) {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    return;
  }
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
  const acts = { "/": () => element("find").focus(), j: () => focusRow(1), k: () => focusRow(-1) };
  if (acts[event.key]) {
    event.preventDefault();
    acts[event.key]();
  }
}

function begin() {
  for (const row of rows) {
    const open = button("enlarge", "show this row alone (Enter)", () => enlarge(row));
    open.className = "enlarge";
    row.article.append(make("div", { className: "do" }, open, ...copyButtons(row)));
    row.article.querySelector(".images").addEventListener("click", () => enlarge(row));
  }
  const names = new Set(rows.flatMap(row => [...row.fields.keys()]));
  element("where").append(...[...names].map(name => make("option", { value: name }, "in " + name)));
  large.addEventListener("close", () => opened?.article.querySelector(".enlarge").focus());
  document.body.append(large);
  element("find").addEventListener("input", filter);
  for (const id of ["where", "kind", "finish"]) element(id).addEventListener("change", filter);
  element("order").addEventListener("change", sort);
  document.addEventListener("keydown", onKey);
  filter();
}

if (rows.length) begin();
