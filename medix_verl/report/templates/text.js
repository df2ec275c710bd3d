// Text of models and data sets as nodes: never as markup, and with nothing in it that hides or reorders.
"use strict";
const reportText = (() => {
  function el(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.append(visible(String(text)));
    return node;
  }

  // Characters that reorder or hide text are shown by their number instead of being obeyed.
  const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
  function visible(text) {
    const part = document.createDocumentFragment();
    let from = 0;
    for (const match of text.matchAll(CONTROL)) {
      part.append(text.slice(from, match.index));
      const mark = document.createElement("span");
      mark.className = "ctl";
      mark.textContent = "U+" + match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      part.append(mark);
      from = match.index + 1;
    }
    part.append(text.slice(from));
    return part;
  }

  // Colours follow the tags as they stand; what the parser made of them is in the line "Form".
  function highlighted(response) {
    const box = el("div", "text");
    box.dir = "auto";
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `Text of response ${response.s}`);
    let kind = "";
    for (const [i, piece] of response.t.split(/(<\/?(?:thinking|answer)>|^\s*<[A-Z_]+>)/).entries()) {
      if (!piece) continue;
      if (i % 2 === 0) box.append(el("span", kind ? `seg-${kind}` : "", piece));
      else {
        box.append(el("span", /^\s*<[A-Z]/.test(piece) ? "seg-tag" : "seg-mark", piece));
        kind = piece.startsWith("</") ? "" : piece === "<thinking>" ? "thinking" : piece === "<answer>" ? "answer" : "";
      }
    }
    if (response.cut) box.append(el("em", "", ` … ${response.cut.toLocaleString("en")} more characters in line ${response.line} of rollouts/scored.jsonl`));
    if (!response.t) box.append(el("em", "", "(empty)"));
    return box;
  }

  return { el, visible, highlighted };
})();
