"use strict";
// All text from models, judges and data sets is put in by textContent: none of it is ever parsed as HTML.
const items = JSON.parse(document.getElementById("data").textContent);
const images = JSON.parse(document.getElementById("images").textContent);
const PAGE = 40;
let page = 0;
const byId = (id) => document.getElementById(id);

function verdictOf(item) {
  if (item.score === null) return "unscored";
  return item.score >= 1 ? "right" : item.score > 0 ? "partial" : "wrong";
}

function fill(id) {
  const values = [...new Set(items.map((item) => item[id]).filter((value) => value !== ""))].sort();
  for (const value of values) byId(id).append(new Option(value, value));
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function chosen() {
  const wanted = { task: byId("task").value, kind: byId("kind").value, modality: byId("modality").value };
  const verdict = byId("verdict").value;
  const text = byId("text").value.toLowerCase();
  return items.filter((item) =>
    Object.entries(wanted).every(([name, value]) => value === "" || item[name] === value) &&
    (verdict === "" || verdictOf(item) === verdict) &&
    (!byId("disagree").checked || item.disagree) &&
    (text === "" || [item.id, item.question, item.reference, item.response].some((field) => field.toLowerCase().includes(text))));
}

function line(list, name, value) {
  if (value === "" || value === null || value === undefined) return;
  list.append(element("dt", name), element("dd", value));
}

function block(parent, name, text) {
  if (!text) return;
  const details = element("details");
  details.append(element("summary", name), element("pre", text));
  parent.append(details);
}

function findingText(finding) {
  const grades = Object.entries(finding.dimensions).filter(([, grade]) => grade !== null).map(([name, grade]) => `${name} ${grade}`);
  const votes = finding.votes.length > 1 ? `votes ${finding.votes.join(", ")}` : "";
  const verdict = finding.score === null ? `no verdict (${finding.reason})` : `score ${finding.score}`;
  return [verdict, votes, grades.join(", "), finding.why].filter(Boolean).join("; ");
}

function card(item) {
  const verdict = verdictOf(item);
  const box = element("article", undefined, `item card ${verdict}`);
  const pictures = element("div");
  for (const name of item.images) {
    if (!(name in images)) continue;
    const picture = element("img", undefined, "zoom");
    picture.src = images[name];
    picture.alt = `image of ${item.task} ${item.id}`;
    pictures.append(picture);
  }
  const body = element("div");
  body.append(element("strong", `${verdict}: ${item.question}`));
  const list = element("dl");
  line(list, "item", [item.task, item.id, item.kind, item.modality].filter(Boolean).join(" · "));
  line(list, "options", item.choices.map((choice, place) => `${String.fromCharCode(65 + place)}. ${choice}`).join("\n"));
  line(list, "reference", [item.reference, ...item.aliases].join("  |  "));
  line(list, "answer", item.answer === null ? "(none)" : item.answer);
  line(list, "decided by", item.reason ? `${item.how} (${item.reason})` : item.how);
  line(list, "form", item.problems.join(", "));
  for (const finding of item.findings) line(list, `judge ${finding.judge}`, findingText(finding));
  body.append(list);
  block(body, "passage", item.passage);
  block(body, "reasoning", item.reasoning);
  block(body, "whole response", item.response);
  for (const finding of item.findings) block(body, `reply of ${finding.judge}`, finding.raw);
  box.append(pictures, body);
  return box;
}

function show() {
  const found = chosen();
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  page = Math.min(page, pages - 1);
  byId("items").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(card));
  byId("count").textContent = `${found.length} of ${items.length} items`;
  byId("page").textContent = `page ${page + 1} of ${pages}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page + 1 >= pages;
}

for (const id of ["task", "kind", "modality"]) fill(id);
byId("filters").addEventListener("input", () => { page = 0; show(); });
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("previous").addEventListener("click", () => { page -= 1; show(); });
byId("next").addEventListener("click", () => { page += 1; show(); });
show();
// A click enlarges a picture and makes it small again.
document.addEventListener("click", (event) => { if (event.target.matches(".zoom")) event.target.classList.toggle("zoomed"); });
