// A page that is served asks whether the run has gone on, and reloads itself; the address keeps the filters.
"use strict";
(() => {
  const note = document.getElementById("live");
  const EVERY_MS = 5000;
  async function look() {
    try {
      const answer = await fetch("/state", { cache: "no-store" });
      const { state } = await answer.json();
      note.textContent = "Following the run.";
      if (state !== note.dataset.state) location.reload();
    } catch {
      note.textContent = "The server has gone; this is how the run stood.";
    }
  }
  setInterval(() => { if (!document.hidden) look(); }, EVERY_MS);
})();
