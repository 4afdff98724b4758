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
  const inJob = Number(element("gallery").dataset.rows), sampled = inJob > rows.length;
  element("count").textContent = `${shown.length} of ${rows.length} ${sampled ? "sampled " : ""}rows `
    + `${left > 0 ? `found, ${limit} ` : ""}shown${sampled ? `, of ${inJob.toLocaleString("en")} in the job` : ""}`
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
    link(line.cells[1], { text: finish, fits: row => row.article.dataset.finish === finish });
  }
  for (const line of document.querySelectorAll("#mistakes tbody tr")) {
    const [expected, answer] = cells(line);
    link(line.cells[2], answeredAs(expected, answer));
  }
  const answers = [...document.querySelectorAll("#confusion th")].map(name => name.textContent);
  for (const line of document.querySelectorAll("#confusion tbody tr")) {
    for (const cell of line.querySelectorAll(":is(.same, .heat1, .heat2, .heat3, .heat4):has(pre)"))
      linkNumber(cell, answeredAs(line.cells[0].textContent, answers[cell.cellIndex]));
  }
  const failed = row => row.article.dataset.kinds.split(" ").includes("failed");
  linkTile("failed", "look", { text: "rows that failed", fits: failed });
  linkTile("as expected", "look at the others", { text: "rows that are not as expected", fits: row => "mismatch" in row.article.dataset });
}

function answeredAs(expected, answer) {
  const pair = { expected: expected.toLowerCase(), answer: answer.toLowerCase() };
  const fits = row => ["expected", "answer"].every(name => row.fields.get(name)?.trim() === pair[name].trim());
  return { text: `${expected} answered as ${answer}`, fits };
}

// A button that shows some rows; null where the page has none of them.
function lookAt(found, text) {
  const count = rows.filter(found.fits).length;
  const said = `look at ${count} row${count === 1 ? "" : "s"}: ${found.text}`;
  return count && { count, act: Object.assign(button(text, said, () => showOnly(found)), { ariaLabel: said }) };
}

function link(cell, found) {
  const of = cell.textContent, look = lookAt(found, "look");
  if (!look) return;
  cell.append(" ", look.act, make("span", { className: "soft" }, `${look.count} of the ${of} ${look.count === 1 ? "is" : "are"} on this page`));
}

function linkNumber(cell, found) {
  const look = lookAt(found, cell.textContent);
  if (!look) return;
  look.act.className = "cell";
  cell.replaceChildren(look.act);
}

function linkTile(name, text, found) {
  const look = lookAt(found, text);
  if (look) document.querySelector(`[data-tile="${name}"] dd`)?.append(look.act);
}

async function copy(text, pressed) {
  const named = pressed.dataset.named ??= pressed.textContent;
  const done = await navigator.clipboard.writeText(text).then(() => true, () => copySelected(text, pressed));
  pressed.textContent = done ? "copied" : "not copied";
  setTimeout(() => { pressed.textContent = named; }, 1500);
}

// Where the browser gives a page no clipboard.
function copySelected(text, pressed) {
  const area = make("textarea", { value: text });
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
  const { id, try: again } = row.article.dataset, made = [];
  if (id) made.push(button("copy id", "copy the id of this row", event => copy(JSON.parse(id), event.target)), " ");
  if (again) made.push(button("copy try command", again, event => copy(again, event.target)));
  return made;
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
  // In a menu, letters choose.
  const { tagName } = document.activeElement;
  if (/^(INPUT|TEXTAREA)$/.test(tagName) || (tagName === "SELECT" && event.key !== "/")) return;
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

for (const { firstChild, lastChild } of document.querySelectorAll(".command"))
  lastChild.after(button("copy", "copy this command", event => copy(firstChild.textContent, event.target)));

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
