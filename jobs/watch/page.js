// Finds, filters, sorts and enlarges the rows of a report. Texts of the data are texts here, too: nothing is parsed as HTML.
const element = id => document.getElementById(id);
const rows = [...document.querySelectorAll(".row")].map((article, place) => ({ article, place, fields: fieldsOf(article) }));
// Rows that are shown at first, and more at a time.
const FIRST = 12, MORE = 24;
let shown = rows, limit = FIRST, only = null;

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

function fits(row) {
  const [words, where, kind, finish] = ["find", "where", "kind", "finish"].map(id => element(id).value);
  const texts = where ? [row.fields.get(where) ?? ""] : [...row.fields.values()];
  return texts.some(text => text.includes(words.toLowerCase())) && (!only || only.fits(row))
    && (!kind || row.article.dataset.kinds.split(" ").includes(kind)) && (!finish || row.article.dataset.finish === finish);
}

// Rows that lack what is sorted by come last.
function compare(a, b) {
  const [name, least] = element("order").value.split("-");
  if (name === "input") return a.place - b.place;
  const [x, y] = [a, b].map(row => row.article.dataset[name]);
  if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || a.place - b.place;
  return (least ? x - y : y - x) || a.place - b.place;
}

function sort() {
  rows.sort(compare);
  element("gallery").append(...rows.map(row => row.article));
  filter();
}

function filter() {
  shown = rows.filter(fits);
  limit = FIRST;
  show();
}

function show() {
  for (const row of rows) row.article.hidden = true;
  for (const row of shown.slice(0, limit)) row.article.hidden = false;
  const left = shown.length - limit;
  element("count").textContent = `${shown.length} of ${rows.length} rows ${left > 0 ? `found, ${limit} ` : ""}shown`
    + (shown.length ? "" : "; this page has some of the job's rows alone: run-batch try --config job.toml --row ID tries any");
  element("more").replaceChildren(...left > 0
    ? [button(`show ${Math.min(MORE, left)} more`, "show more rows", () => more(MORE)), " ",
      button(`show all ${shown.length}`, "show all rows", () => more(left))] : []);
  element("only").replaceChildren(...only ? [button(`only ${only.text} \u00d7`, "show other rows, too", () => showOnly(null))] : []);
}

function more(count) {
  const first = limit;
  limit += count;
  show();
  shown[first].article.querySelector(".enlarge").focus();
}

// Rows that one line of a table tells of.
function showOnly(found) {
  only = found;
  filter();
  if (found) element("rows").scrollIntoView();
  (found ? element("only").firstChild : element("find")).focus({ preventScroll: true });
}

const cells = line => [...line.cells].map(cell => cell.textContent);

function linkTables() {
  for (const line of document.querySelectorAll("#errors tbody tr")) {
    const finish = `error: ${cells(line)[0]}`;
    link(line, { text: finish, fits: row => row.article.dataset.finish === finish });
  }
  for (const line of document.querySelectorAll("#mistakes tbody tr")) {
    const [expected, answer] = cells(line);
    const pair = { expected: expected.toLowerCase(), answer: answer.toLowerCase() };
    const same = row => ["expected", "answer"].every(name => row.fields.get(name) === pair[name]);
    link(line, { text: `${expected} answered as ${answer}`, fits: same });
  }
}

function link(line, found) {
  const count = rows.filter(found.fits).length;
  if (!count) return;
  const said = `look at ${count} row${count > 1 ? "s" : ""}: ${found.text}`;
  const act = Object.assign(button("look", said, () => showOnly(found)), { ariaLabel: said });
  line.cells[line.cells.length > 4 ? 1 : 2].append(" ", act);
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
  const place = at < 0 ? 0 : at + by;
  reveal(place);
  shown[place]?.article.querySelector(".enlarge").focus();
}

// Show so many rows that one is among them.
function reveal(place) {
  if (place < limit || place >= shown.length) return;
  limit = place + MORE;
  show();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (large.open) {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    return;
  }
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
  const acts = { "/": () => element("find").focus(), j: () => focusRow(1), k: () => focusRow(-1),
    r: () => element("rows").scrollIntoView() };
  if (acts[event.key]) {
    event.preventDefault();
    acts[event.key]();
  }
}

function closed() {
  reveal(shown.indexOf(opened));
  opened?.article.querySelector(".enlarge").focus();
}

function begin() {
  document.body.classList.add("live");
  for (const row of rows) {
    const open = button("enlarge", "show this row alone (Enter)", () => enlarge(row));
    open.className = "enlarge";
    row.article.append(make("div", { className: "do" }, open, ...copyButtons(row)));
    row.article.querySelector(".images")?.addEventListener("click", () => enlarge(row));
  }
  const names = new Set(rows.flatMap(row => [...row.fields.keys()]));
  element("where").append(...[...names].map(name => make("option", { value: name }, "in " + name)));
  large.addEventListener("close", closed);
  document.body.append(large);
  element("find").addEventListener("input", filter);
  for (const id of ["where", "kind", "finish"]) element(id).addEventListener("change", filter);
  element("order").addEventListener("change", sort);
  document.addEventListener("keydown", onKey);
  linkTables();
  filter();
}

if (rows.length) begin();
