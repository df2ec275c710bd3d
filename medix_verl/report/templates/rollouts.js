// The rollout browser. All text of models and data sets goes in as text, never as markup, and with nothing that hides.
"use strict";
(async () => {
  const ROW_PX = 56;
  const FLAG_TEXT = { disagree: "judge ≠ embedder", no_spread: "no spread", contradicted: "paid, contradicts", near_refused: "NO but near", judge_far: "YES but far", short_paid: "short answer paid" };
  const byId = (id) => document.getElementById(id);
  const [form, list, space, panel, count] = ["filters", "list", "list-space", "group", "count"].map(byId);
  const images = JSON.parse(byId("images").textContent);
  // A sample may be called "constructor".
  const own = (object, key, otherwise) => (Object.hasOwn(object, key) ? object[key] : otherwise);

  // ---- text ---------------------------------------------------------------------------------------------------------
  // Characters that reorder or hide text are shown by their number instead of being obeyed.
  const CONTROL = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff])/;
  function el(tag, className, ...parts) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    for (const part of parts) {
      if (part instanceof Node) node.append(part);
      else for (const [i, piece] of String(part).split(CONTROL).entries()) {
        if (i % 2 === 0) node.append(piece);
        else node.append(el("span", "ctl", "U+" + piece.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")));
      }
    }
    return node;
  }
  const labelled = (label, value) => el("p", "text", el("strong", "", `${label}: `), value);

  // Tags are coloured as they stand; what the parser made of them is in the line "Form". The answer's colour is the verdict.
  function highlighted(response) {
    const box = el("div", "text");
    Object.assign(box, { dir: "auto", tabIndex: 0, role: "region", ariaLabel: `Text of response ${response.session}` });
    let kind = "";
    for (const [i, piece] of response.text.split(/(<\/?(?:thinking|answer)>|^\s*<[A-Z_]+>)/).entries()) {
      if (!piece) continue;
      box.append(el("span", i % 2 === 0 ? kind : /^\s*<[A-Z]/.test(piece) ? "seg-tag" : "seg-mark", piece));
      const verdict = response.right === null ? "" : response.right ? " right" : " wrong";
      if (i % 2) kind = piece === "<thinking>" ? "seg-thinking" : piece === "<answer>" ? `seg-answer${verdict}` : "";
    }
    if (response.cut_chars) box.append(el("em", "", ` … ${response.cut_chars.toLocaleString("en")} more characters in line ${response.line} of rollouts/scored.jsonl`));
    if (!response.text) box.append(el("em", "", "(empty)"));
    return box;
  }

  // ---- data ---------------------------------------------------------------------------------------------------------
  async function unpack(id) {
    const bytes = Uint8Array.from(atob(byId(id).textContent), (char) => char.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }
  const chunks = new Map();
  const chunk = (step) => chunks.get(step) ?? chunks.set(step, unpack(`chunk-${step}`)).get(step);
  let groups;
  try {
    groups = await unpack("index");
  } catch (error) {
    count.textContent = "The rollouts could not be unpacked: this needs a browser of 2023 or later.";
    throw error;
  }
  for (const tag of [...new Set(groups.map((group) => group.modality))].sort()) form.modality.append(new Option(tag || "none (text only)", tag || "-"));
  let shown = [];
  let chosen = -1; // position in `shown`
  let linked = null; // response that the address names

  // ---- filters, sorting, and the address ------------------------------------------------------------------------------
  const fields = ["part", "from", "to", "modality", "only", "sort", "find"];
  const defaults = Object.fromEntries(fields.map((name) => [name, form[name].value]));
  function passes(group) {
    const f = Object.fromEntries(fields.map((name) => [name, form[name].value]));
    const words = f.find.trim().toLowerCase();
    return (
      (!f.part || (f.part === "train") === group.training) &&
      (f.from === "" || group.step >= Number(f.from)) &&
      (f.to === "" || group.step <= Number(f.to)) &&
      (!f.modality || (group.modality || "-") === f.modality) &&
      (!f.only || (f.only === "spread" ? group.std > 0 : group.flags.includes(f.only))) &&
      (!words || `${group.question}\n${group.reference}\n${group.id}`.toLowerCase().includes(words))
    );
  }
  function refresh(keepKey) {
    const key = form.sort.value.replace("-", "");
    const sign = form.sort.value.startsWith("-") ? -1 : 1;
    shown = groups.filter(passes).sort((a, b) => sign * (a[key] - b[key]) || a.step - b.step);
    count.textContent = `${shown.length} of ${groups.length} groups, ${shown.reduce((sum, group) => sum + group.size, 0)} responses`;
    space.style.height = `${shown.length * ROW_PX}px`;
    choose(Math.max(0, shown.findIndex((group) => group.key === keepKey)));
  }
  function saveAddress() {
    const parts = fields.filter((name) => form[name].value !== defaults[name]).map((name) => `${name}=${encodeURIComponent(form[name].value)}`);
    if (shown[chosen]) parts.push(`group=${encodeURIComponent(shown[chosen].key)}`);
    if (linked !== null) parts.push(`response=${linked}`);
    history.replaceState(null, "", "#rollouts&" + parts.join("&"));
  }
  function readAddress() {
    if (!location.hash.startsWith("#rollouts&")) return false;
    const wanted = new URLSearchParams(location.hash.slice("#rollouts&".length));
    for (const name of fields) form[name].value = wanted.get(name) ?? defaults[name];
    const key = wanted.get("group");
    linked = wanted.get("response");
    // A link to a group outside of the filter's default part still finds it.
    if (key && !wanted.has("part") && groups.some((group) => group.key === key && !passes(group))) form.part.value = "";
    refresh(key);
    byId("rollouts").scrollIntoView();
    return true;
  }

  // ---- the list: only the rows in view exist --------------------------------------------------------------------------
  function paint() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + 5);
    space.replaceChildren(...shown.slice(first, last).map((group, i) => row(group, first + i)));
    if (chosen >= first && chosen < last) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }
  function row(group, position) {
    const about = [group.modality || "text only", ...group.flags.map((flag) => FLAG_TEXT[flag])].join(" · ");
    const meter = Object.assign(el("meter"), { max: 1, value: group.mean, ariaLabel: "mean reward" });
    const node = el("div", "row",
      el("div", "", `step ${group.step}`, el("span", "sub", group.training ? `${group.size} resp.` : "validation")),
      el("div", "", el("div", "q", group.question.slice(0, 160) || "(no question)"), el("span", "sub", about)),
      el("div", "mean", group.mean.toFixed(2), meter));
    Object.assign(node, { id: `row-${position}`, role: "option", ariaSelected: position === chosen, ariaSetSize: shown.length, ariaPosInSet: position + 1 });
    node.style.top = `${position * ROW_PX}px`;
    node.addEventListener("click", () => choose(position, true));
    return node;
  }
  function choose(position, byHand = false) {
    chosen = Math.min(shown.length - 1, Math.max(0, position));
    const top = chosen * ROW_PX;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW_PX > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_PX - list.clientHeight;
    if (byHand) linked = null;
    paint();
    show();
    if (byHand) saveAddress();
  }

  // ---- the chosen group -----------------------------------------------------------------------------------------------
  async function show() {
    const group = shown[chosen];
    if (!group) return panel.replaceChildren(el("p", "", "No group fits the filter."));
    const side = el("div", "responses");
    if (group.kept) side.append(...(await chunk(group.step))[group.key].map((response) => responseCard(group, response)));
    else side.append(el("p", "", "The texts of this step are not in this page, to keep it small; they are in rollouts/scored.jsonl."));
    if (shown[chosen] !== group) return; // another was chosen meanwhile
    panel.replaceChildren(prompt(group), side);
    panel.querySelector(".linked")?.scrollIntoView({ block: "nearest" });
  }
  function prompt(group) {
    const pictures = own(images, group.id, []).map((src, i) => Object.assign(el("img", "zoom"), { src, alt: `Image ${i + 1} of sample ${group.id}`, tabIndex: 0, role: "button" }));
    const spread = group.size > 1 ? `mean ${group.mean.toFixed(3)}, std ${group.std.toFixed(3)}` : `reward ${group.mean.toFixed(3)}`;
    const facts = [`step ${group.step}`, group.training ? "training" : "validation", group.modality || "text only", spread].map((fact) => el("span", "badge", fact));
    const flags = group.flags.map((flag) => el("span", "badge watch", FLAG_TEXT[flag]));
    const words = el("div", "", el("h3", "text", group.question || "(no question)"), labelled("Reference", group.reference), el("div", "facts", ...facts, ...flags), labelled("Sample", group.id || "unnamed"));
    if (!pictures.length) words.append(el("p", "sub", "No image in this page for this sample."));
    return el("div", "prompt", ...pictures, words);
  }
  function responseCard(group, response) {
    const link = Object.assign(el("a", "", "link"), { ariaLabel: `Link to response ${response.session}` });
    link.href = `#rollouts&group=${encodeURIComponent(group.key)}&response=${response.session}`;
    link.addEventListener("click", (event) => {
      event.preventDefault();
      linked = String(response.session);
      saveAddress();
      show();
    });
    const top = el("header", "", el("h4", "", `Response ${response.session}`), link);
    const adv = response.advantage;
    if (adv !== null) top.append(el("span", `adv ${adv > 0 ? "up" : adv < 0 ? "down" : ""}`, `advantage ${adv < 0 ? "−" : "+"}${Math.abs(adv).toFixed(2)}`));
    const table = Object.assign(el("table"), { ariaLabel: `Scores of response ${response.session}` });
    for (const name of ["score", ...JSON.parse(byId("data").textContent).components, "embed_similarity"]) {
      const value = own(response.scores, name, null);
      const head = Object.assign(el("th", "", name === "score" ? "reward" : name), { scope: "row" });
      table.append(el("tr", "", head, el("td", "", value === null ? "n/a" : value.toFixed(3)), el("td", "", own(response.why, name, ""))));
    }
    const judge = response.verdict === null ? "not asked" : `${response.verdict ? "YES" : "NO"}${response.attempts > 1 ? ` after ${response.attempts} tries` : ""}, reply: ${response.raw || "(none)"}`;
    const card = el("article", "response", top, highlighted(response), table, labelled("Judge", judge));
    if (String(response.session) === linked) card.classList.add("linked");
    if (response.problems.length) card.append(el("p", "", `Form: ${response.problems.join(", ").replaceAll("_", " ")}`));
    return card;
  }

  // ---- events -----------------------------------------------------------------------------------------------------
  let waiting;
  const changed = () => {
    linked = null;
    refresh(shown[chosen]?.key);
    saveAddress();
  };
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 80); });
  form.addEventListener("reset", () => setTimeout(changed));
  form.addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
  new ResizeObserver(paint).observe(list);
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW_PX) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "Enter") panel.focus();
    else if (event.key in moves) choose(chosen + moves[event.key], true);
    else return;
    event.preventDefault();
  });
  // A click, or Enter, enlarges a picture and makes it small again.
  const zoom = (event) => { if (event.target.matches?.(".zoom") && (event.type === "click" || event.key === "Enter")) event.target.classList.toggle("zoomed"); };
  for (const kind of ["click", "keydown"]) document.addEventListener(kind, zoom);
  window.addEventListener("hashchange", readAddress);
  if (!readAddress()) refresh();
  document.documentElement.dataset.ready = "yes";
})();
