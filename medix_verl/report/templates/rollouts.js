// The rollout browser. All text of models and data sets goes in as textContent, never as markup.
"use strict";
(async () => {
  const ROW_PX = 56;
  const FLAGS = { disagree: 1, no_spread: 2, judge_far: 4, short_paid: 8 };
  const FLAG_TEXT = { disagree: "judge ≠ embedder", no_spread: "no spread", judge_far: "YES but far", short_paid: "short answer paid" };
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const space = document.getElementById("list-space");
  const panel = document.getElementById("group");
  const count = document.getElementById("count");
  const { el, visible, highlighted } = reportText;
  const images = JSON.parse(document.getElementById("images").textContent);

  // A sample may be called "constructor".
  const own = (object, key, otherwise) => (Object.hasOwn(object, key) ? object[key] : otherwise);

  async function unpack(id) {
    const packed = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(packed, (char) => char.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }

  const chunks = new Map();
  const chunk = (step) => {
    if (!chunks.has(step)) chunks.set(step, unpack(`chunk-${step}`));
    return chunks.get(step);
  };

  let index;
  try {
    index = await unpack("index");
  } catch (error) {
    count.textContent = "The rollouts could not be unpacked: this needs a browser of 2023 or later.";
    throw error;
  }
  const groups = index.groups.map(([key, step, training, sample, size, mean, std, flags, kept]) => {
    const [id, question, reference, modality] = index.samples[sample];
    return { key, step, training, id, question, reference, modality, size, mean, std, flags, kept, hasImage: index.with_images[sample] };
  });
  for (const tag of [...new Set(groups.map((group) => group.modality))].sort()) {
    form.modality.append(new Option(tag || "none (text only)", tag || "-"));
  }

  let shown = [];
  let chosen = -1; // position in `shown`
  let linkedResponse = null;

  // ---- filters, sorting, and the address -------------------------------------------------------------------------
  const fields = ["part", "from", "to", "modality", "low", "high", "only", "sort", "find"];
  const defaults = Object.fromEntries(fields.map((name) => [name, form[name].value]));

  function passes(group) {
    const f = (name) => form[name].value;
    const number = (name) => (f(name) === "" ? null : Number(f(name)));
    if (f("part") && (f("part") === "train") !== Boolean(group.training)) return false;
    if (number("from") !== null && group.step < number("from")) return false;
    if (number("to") !== null && group.step > number("to")) return false;
    if (f("modality") && (group.modality || "-") !== f("modality")) return false;
    if (number("low") !== null && group.mean < number("low")) return false;
    if (number("high") !== null && group.mean > number("high")) return false;
    if (f("only") === "spread" ? group.flags & FLAGS.no_spread || group.size < 2 : f("only") && !(group.flags & FLAGS[f("only")])) return false;
    const words = f("find").trim().toLowerCase();
    return !words || `${group.question}\n${group.reference}\n${group.id}`.toLowerCase().includes(words);
  }

  function refresh(keepKey) {
    const order = form.sort.value;
    const key = order.replace("-", "");
    const sign = order.startsWith("-") ? -1 : 1;
    shown = groups.filter(passes).sort((a, b) => sign * (a[key] - b[key]) || a.step - b.step);
    count.textContent = `${shown.length} of ${groups.length} groups, ${shown.reduce((sum, group) => sum + group.size, 0)} responses`;
    space.style.height = `${shown.length * ROW_PX}px`;
    chosen = keepKey ? shown.findIndex((group) => group.key === keepKey) : -1;
    if (chosen < 0 && shown.length) chosen = 0;
    reveal();
    paint();
    show();
  }

  function address() {
    const parts = fields.filter((name) => form[name].value !== defaults[name]).map((name) => `${name}=${encodeURIComponent(form[name].value)}`);
    if (chosen >= 0) parts.push(`group=${encodeURIComponent(shown[chosen].key)}`);
    if (linkedResponse !== null) parts.push(`response=${linkedResponse}`);
    return "#rollouts&" + parts.join("&");
  }

  function saveAddress() {
    history.replaceState(null, "", address());
  }

  function readAddress() {
    if (!location.hash.startsWith("#rollouts&")) return false;
    const wanted = new URLSearchParams(location.hash.slice("#rollouts&".length));
    for (const name of fields) form[name].value = wanted.get(name) ?? defaults[name];
    linkedResponse = wanted.get("response");
    const key = wanted.get("group");
    // A link to a group outside of the filter's default part still finds it.
    if (key && !wanted.has("part") && groups.some((group) => group.key === key && !passes(group))) form.part.value = "";
    refresh(key);
    document.getElementById("rollouts").scrollIntoView();
    return true;
  }

  // ---- the list: only the rows in view exist ----------------------------------------------------------------------
  function paint() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + 5);
    space.replaceChildren(...shown.slice(first, last).map((group, i) => row(group, first + i)));
    if (chosen >= first && chosen < last) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(group, position) {
    const node = el("div", "row");
    node.id = `row-${position}`;
    node.style.top = `${position * ROW_PX}px`;
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", String(position === chosen));
    node.setAttribute("aria-setsize", String(shown.length));
    node.setAttribute("aria-posinset", String(position + 1));
    const middle = el("div");
    const question = el("div", "q text", group.question.slice(0, 160) || "(no question)");
    question.style.whiteSpace = "nowrap";
    middle.append(question, el("span", "sub", [group.modality || "text only", ...flagTexts(group)].join(" · ")));
    const bar = el("span", "bar");
    const fill = el("i");
    fill.style.width = `${Math.round(100 * Math.min(1, Math.max(0, group.mean)))}%`;
    bar.append(fill);
    const mean = el("div", "mean", group.mean.toFixed(2));
    mean.append(bar);
    const step = el("div", "", `step ${group.step}`);
    step.append(el("span", "sub", group.training ? `${group.size} resp.` : "validation"));
    node.append(step, middle, mean);
    node.addEventListener("click", () => choose(position));
    return node;
  }

  const flagTexts = (group) => Object.keys(FLAGS).filter((name) => group.flags & FLAGS[name]).map((name) => FLAG_TEXT[name]);

  function reveal() {
    if (chosen < 0) return;
    const top = chosen * ROW_PX;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW_PX > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_PX - list.clientHeight;
  }

  function choose(position) {
    chosen = Math.min(shown.length - 1, Math.max(0, position));
    linkedResponse = null;
    reveal();
    paint();
    show();
    saveAddress();
  }

  // ---- the chosen group -------------------------------------------------------------------------------------------
  async function show() {
    const group = shown[chosen];
    if (!group) {
      panel.replaceChildren(el("p", "", "No group fits the filter."));
      return;
    }
    const parts = [prompt(group)];
    if (!group.kept) parts.push(el("p", "", "The texts of this step are not in this page, to keep it small; they are in rollouts/scored.jsonl."));
    else {
      const responses = (await chunk(group.step))[group.key];
      if (shown[chosen] !== group) return; // another was chosen meanwhile
      const side = el("div", "responses");
      side.append(...responses.map((response) => responseCard(group, response)));
      parts.push(side);
    }
    panel.replaceChildren(...parts);
    panel.querySelector(".linked")?.scrollIntoView({ block: "nearest" });
  }

  function prompt(group) {
    const box = el("div", "prompt");
    for (const [i, uri] of own(images, group.id, []).entries()) {
      const picture = el("img");
      picture.src = uri;
      picture.alt = `Image ${i + 1} of sample ${group.id}`;
      box.append(picture);
    }
    const words = el("div");
    const facts = el("div", "facts");
    const spread = group.size > 1 ? `mean ${group.mean.toFixed(3)}, std ${group.std.toFixed(3)}` : `reward ${group.mean.toFixed(3)}`;
    for (const fact of [`step ${group.step}`, group.training ? "training" : "validation", group.modality || "text only", spread]) facts.append(el("span", "badge", fact));
    for (const flag of flagTexts(group)) facts.append(el("span", "badge watch", flag));
    words.append(el("h3", "text", group.question || "(no question)"), labelled("Reference", group.reference), facts, labelled("Sample", group.id || "unnamed"));
    if (!group.hasImage) words.append(el("p", "sub", "No image in this page for this sample."));
    box.append(words);
    return box;
  }

  function labelled(label, value) {
    const line = el("p", "text");
    line.append(el("strong", "", label), ": ", visible(String(value)));
    return line;
  }

  function responseCard(group, response) {
    const card = el("article", "response");
    if (String(response.s) === linkedResponse) card.classList.add("linked");
    const top = el("header");
    const title = el("h4", "", `Response ${response.s}`);
    const link = el("a", "", "link");
    link.href = "#rollouts&group=" + encodeURIComponent(group.key) + "&response=" + response.s;
    link.setAttribute("aria-label", `Link to response ${response.s}`);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      linkedResponse = String(response.s);
      saveAddress();
      show();
    });
    top.append(title, link);
    if (response.adv !== null) top.append(el("span", `adv ${response.adv > 0 ? "up" : response.adv < 0 ? "down" : ""}`, `advantage ${signed(response.adv)}`));
    card.append(top, highlighted(response), scores(response), verdict(response));
    if (response.p.length) card.append(el("p", "", `Form: ${response.p.join(", ").replaceAll("_", " ")}`));
    return card;
  }

  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);

  function scores(response) {
    const table = el("table");
    const body = el("tbody");
    index.keys.forEach((key, i) => {
      if (key !== "score" && !index.components.includes(key) && key !== "embed_similarity") return;
      const line = el("tr");
      const head = el("th", "", key === "score" ? "reward" : key);
      head.scope = "row";
      const value = response.v[i];
      line.append(head, el("td", "", value === null || value === -1 ? "n/a" : value.toFixed(3)), el("td", "", own(response.why, key, "")));
      body.append(line);
    });
    table.append(body);
    table.setAttribute("aria-label", `Scores of response ${response.s}`);
    return table;
  }

  function verdict(response) {
    if (response.judge === null) return el("p", "text", "Judge: not asked");
    const line = el("p", "text");
    const cost = `${response.sec ? response.sec.toFixed(2) + " s" : "from the cache"}${response.tries > 1 ? `, ${response.tries} tries` : ""}`;
    line.append(el("strong", "", response.judge ? "Judge: YES" : "Judge: NO"), ` (${cost}), reply: `, visible(response.raw || "(none)"));
    return line;
  }

  // ---- events -----------------------------------------------------------------------------------------------------
  let waiting;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      linkedResponse = null;
      refresh(shown[chosen]?.key);
      saveAddress();
    }, 80);
  });
  form.addEventListener("reset", () => setTimeout(() => { refresh(); saveAddress(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
  new ResizeObserver(paint).observe(list);
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW_PX) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "Enter") panel.focus();
    else if (!(event.key in moves)) return;
    else choose(Math.min(shown.length - 1, Math.max(0, chosen + moves[event.key])));
    event.preventDefault();
  });
  window.addEventListener("hashchange", readAddress);
  if (!readAddress()) refresh();
  document.documentElement.dataset.ready = "yes";
})();
