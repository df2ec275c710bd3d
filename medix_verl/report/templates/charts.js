// Draws each chart when it comes near the view, in the page's own colours, and again when the colour scheme changes.
// The plotting library is large, so it is unpacked and started only once the rest of the page stands.
"use strict";
(async () => {
  const charts = JSON.parse(document.getElementById("data").textContent).charts;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const isNarrow = () => window.innerWidth < 600;

  // On a dark page the strong blues and browns of a light page are too dark to be read.
  const lighter = { "#0072b2": "#56a9e4", "#d55e00": "#f08a3c", "#009e73": "#3cc79d", "#aa4499": "#d583c6", "#cc3311": "#ff7a5c", "#882255": "#d9709f" };
  const shade = (colour) => (colour === "ink" ? css("--ink") : (dark.matches && lighter[colour]) || colour);
  const soft = (colour) => {
    const hex = shade(colour).replace("#", "");
    const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},0.13)`;
  };

  function themed(trace) {
    const copy = structuredClone(trace);
    for (const part of [copy.line, copy.marker]) if (part && typeof part.color === "string") part.color = shade(part.color);
    if (copy.soft) copy.fillcolor = soft(copy.fillcolor);
    delete copy.soft;
    if (copy.marker?.showscale) copy.marker.colorbar = { thickness: 10, tickfont: { color: css("--soft") }, outlinewidth: 0 };
    return copy;
  }

  function layoutOf(chart) {
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true, exponentformat: "e" };
    const layout = structuredClone(chart.layout);
    const merged = { xaxis: { ...axis, title: { text: "step", standoff: 4 }, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
    if (layout.yaxis2) merged.yaxis2 = { ...axis, ...layout.yaxis2 };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), size: 12, family: "system-ui, DejaVu Sans, sans-serif" },
      margin: { l: 44, r: 12, t: 8, b: 36 },
      legend: { orientation: "h", traceorder: "normal", y: chart.id === "main" ? -0.12 : -0.26, yanchor: "top", font: { size: isNarrow() ? 10 : 11 } },
      hovermode: "x unified", hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } },
      ...layout, ...merged,
    };
  }

  function draw(chart) {
    const place = document.getElementById(`plot-${chart.id}`);
    if (!place) return;
    place.dataset.drawn = "yes";
    Plotly.react(place, chart.data.map(themed), layoutOf(chart), { responsive: true, displaylogo: false, displayModeBar: false });
  }

  function csvOf(chart) {
    const traces = chart.data.filter((trace) => trace.hoverinfo !== "skip" && trace.x);
    const steps = [...new Set(traces.flatMap((trace) => trace.x))].sort((a, b) => a - b);
    const cell = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const lines = [["step", ...traces.map((trace) => cell(trace.name))]];
    for (const step of steps) lines.push([step, ...traces.map((trace) => trace.y[trace.x.indexOf(step)] ?? "")]);
    return lines.map((line) => line.join(",")).join("\n") + "\n";
  }

  function save(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  async function startLibrary() {
    const bytes = Uint8Array.from(atob(document.getElementById("library").textContent), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script); // runs here and now; the page's policy knows it by its hash
  }

  const whenIdle = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)));

  await whenIdle();
  await startLibrary();
  const byPlot = new Map(charts.map((chart) => [`plot-${chart.id}`, chart]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(byPlot.get(entry.target.id));
    }
  }, { rootMargin: "400px" });
  document.querySelectorAll(".plot").forEach((place) => watcher.observe(place));
  dark.addEventListener("change", () => {
    for (const [id, chart] of byPlot) if (document.getElementById(id)?.dataset.drawn) draw(chart);
  });

  const main = charts.find((chart) => chart.id === "main");
  const place = document.getElementById("figure-main");
  if (main && place) {
    const row = document.createElement("div");
    row.className = "downloads";
    const add = (label, action) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", action);
      row.append(button);
    };
    add("Save as PNG", () => Plotly.downloadImage("plot-main", { format: "png", width: 1200, height: 620, filename: "curve" }));
    add("Save as CSV", () => save("curve.csv", csvOf(main)));
    place.append(row);
  }
})();
