// Draws each chart when it comes near the view, in the page's own colours, and again when the colour scheme changes.
// The plotting library is large, so it is unpacked and started only once the rest of the page stands.
"use strict";
(async () => {
  const charts = new Map(JSON.parse(document.getElementById("data").textContent).charts.map((chart) => [`plot-${chart.id}`, chart]));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // On a dark page the strong blues and browns of a light page are too dark to be read.
  const lighter = { "#0072b2": "#56a9e4", "#d55e00": "#f08a3c", "#009e73": "#3cc79d", "#aa4499": "#d583c6", "#cc3311": "#ff7a5c", "#882255": "#d9709f" };
  const shade = (colour) => (colour === "ink" ? css("--ink") : (dark.matches && lighter[colour]) || colour);

  function themed(trace) {
    const copy = structuredClone(trace);
    for (const part of [copy.line, copy.marker]) if (part) part.color = shade(part.color);
    if (copy.fillcolor) copy.fillcolor = shade(copy.fillcolor) + "22"; // see-through
    return copy;
  }
  function draw(id) {
    const [place, chart] = [document.getElementById(id), charts.get(id)];
    place.dataset.drawn = "yes";
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true, exponentformat: "e" };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), size: 12, family: "system-ui, DejaVu Sans, sans-serif" },
      margin: { l: 44, r: 12, t: 8, b: 36 },
      legend: { orientation: "h", traceorder: "normal", y: chart.id === "main" ? -0.12 : -0.26, yanchor: "top", font: { size: 11 } },
      hovermode: "x unified", hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } },
      ...chart.layout, xaxis: { ...axis, title: { text: "step", standoff: 4 } }, yaxis: { ...axis, ...chart.layout.yaxis },
    };
    Plotly.react(place, chart.data.map(themed), layout, { responsive: true, displaylogo: false, displayModeBar: false });
  }

  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)));
  const bytes = Uint8Array.from(atob(document.getElementById("library").textContent), (char) => char.charCodeAt(0));
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script); // runs here and now; the page's policy knows it by its hash
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target.id);
    }
  }, { rootMargin: "400px" });
  for (const place of document.querySelectorAll(".plot")) watcher.observe(place);
  dark.addEventListener("change", () => document.querySelectorAll("[data-drawn]").forEach((place) => draw(place.id)));
})();
