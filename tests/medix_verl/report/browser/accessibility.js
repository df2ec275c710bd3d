// Findings of the kind that axe calls serious or critical, as a list of sentences. Evaluated in the page.
() => {
  const findings = [];
  const isShown = (node) => node.checkVisibility?.({ visibilityProperty: true }) ?? true;
  const name = (node) => {
    const by = node.getAttribute("aria-labelledby");
    if (by) return by.split(/\s+/).map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim();
    return (node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent || node.title || "").trim();
  };
  const where = (node) => `${node.tagName.toLowerCase()}${node.id ? "#" + node.id : ""}.${node.className}`;

  if (!document.documentElement.lang) findings.push("the page has no language");
  if (!document.title.trim()) findings.push("the page has no title");
  if (document.querySelectorAll("main").length !== 1) findings.push("not exactly one main landmark");
  for (const landmark of document.querySelectorAll("nav, [role=region], form")) if (!name(landmark)) findings.push(`landmark without a name: ${where(landmark)}`);
  for (const image of document.querySelectorAll("img, [role=img]")) if (!(image.getAttribute("alt") ?? image.getAttribute("aria-label") ?? "").trim()) findings.push(`picture without a text: ${where(image)}`);
  for (const control of document.querySelectorAll("button, a[href], input, select, [role=listbox]")) if (!name(control)) findings.push(`control without a name: ${where(control)}`);
  for (const node of document.querySelectorAll("[tabindex]")) if (node.tabIndex > 0) findings.push(`focus order is forced: ${where(node)}`);

  const seen = new Set();
  for (const node of document.querySelectorAll("[id]")) {
    // The drawing library names parts of its pictures by itself; inside of role=img they are not read out.
    if (seen.has(node.id) && !node.closest("[role=img]")) findings.push(`id twice: ${node.id}`);
    seen.add(node.id);
  }
  for (const node of document.querySelectorAll("[aria-activedescendant]")) if (!document.getElementById(node.getAttribute("aria-activedescendant"))) findings.push(`points at nothing: ${where(node)}`);
  for (const option of document.querySelectorAll("[role=option]")) if (!option.closest("[role=listbox]") || !option.hasAttribute("aria-selected")) findings.push(`option out of place: ${where(option)}`);

  let depth = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    const level = Number(heading.tagName[1]);
    if (level > depth + 1) findings.push(`heading jumps from ${depth} to ${level}: ${heading.textContent}`);
    depth = level;
  }
  for (const node of document.querySelectorAll("body *")) {
    const style = getComputedStyle(node);
    const scrolls = /auto|scroll/.test(style.overflowY) && node.scrollHeight > node.clientHeight + 1 && isShown(node);
    if (scrolls && node.tabIndex < 0 && !node.querySelector("a, button, input, select, [tabindex='0']")) findings.push(`scrolls but not by keyboard: ${where(node)}`);
  }

  // ---- contrast of text, computed as WCAG does ----
  const rgba = (text) => { const n = text.match(/[\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => { const v = c[i] / 255; return sum + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const ground = (node) => { const layers = []; for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor)); return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]); };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || /^(SCRIPT|STYLE|NOSCRIPT|OPTION)$/.test(node.tagName) || node.closest("svg") || !isShown(node)) continue;
    const style = getComputedStyle(node);
    const back = ground(node);
    const [a, b] = [luminance(over(rgba(style.color), back)), luminance(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < needed) findings.push(`contrast ${ratio.toFixed(2)} of "${walker.currentNode.textContent.trim().slice(0, 30)}" in ${where(node)}`);
  }
  return [...new Set(findings)];
}
