/* The shell: theme, navigation, and charts that follow the theme.
 *
 *   page.payload                 what the page was rendered with, or null
 *   page.colour("--ink")         a colour of the style sheet under the present theme
 *   page.chart(element, draw)    draw() -> {traces, layout}; returns a function that draws again;
 *                                a third argument adds to Plotly's configuration
 */
"use strict";

const page = (() => {
  const root = document.documentElement;
  const source = document.getElementById("payload");
  const payload = source ? JSON.parse(source.textContent) : null;
  const charts = [];

  // Custom properties come back as written, light-dark() and all; a real property is resolved.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  function colour(name) {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  // --- theme ---

  // Storage may be forbidden where the page is opened; the toggle then lasts as long as the page.
  function remembered() {
    try { return localStorage.getItem("theme"); } catch { return null; }
  }
  function remember(theme) {
    try { localStorage.setItem("theme", theme); } catch { /* see above */ }
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
  function redrawAll() { charts.forEach((redraw) => redraw()); }
  document.querySelector(".theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    remember(root.dataset.theme);
    redrawAll();
  });
  dark.addEventListener("change", redrawAll);

  // --- navigation ---

  const links = new Map(
    [...document.querySelectorAll(".bar nav a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("main section[id]")];
  function follow() {
    const line = innerHeight / 3;
    const end = innerHeight + scrollY >= root.scrollHeight - 2;
    const current = end ? sections.at(-1)
      : sections.findLast((section) => section.getBoundingClientRect().top < line);
    links.forEach((link, id) => {
      if (id !== current?.id) link.removeAttribute("aria-current");
      else if (!link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        const strip = link.closest("nav");  // scrollIntoView would scroll the page as well
        strip.scrollLeft = link.offsetLeft - strip.offsetLeft - 40;
      }
    });
  }
  addEventListener("scroll", () => requestAnimationFrame(follow), { passive: true });
  follow();

  // --- charts ---

  const narrow = matchMedia("(max-width: 40rem)");
  // The buttons are named one by one, since Plotly's own choice includes uploading the chart.
  const config = {
    responsive: true, displaylogo: false, plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  function axis(given) {
    return {
      gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--muted"),
      tickfont: { color: colour("--muted") }, automargin: true, ...given,
    };
  }
  function themed(layout) {
    const result = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
      margin: { l: 56, r: 12, t: 12, b: 48 },
      ...layout,
      hoverlabel: {
        bgcolor: colour("--card"), bordercolor: colour("--muted"), align: "left",
        font: { color: colour("--ink"), size: 12 }, ...layout.hoverlabel,
      },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: colour("--ink") },
      legend: { bgcolor: "rgba(0,0,0,0)", ...layout.legend },
    };
    for (const key of new Set([...Object.keys(layout), "xaxis", "yaxis"])) {
      if (/^[xy]axis\d*$/.test(key)) result[key] = axis(layout[key]);
    }
    return result;
  }
  function chart(element, draw, options = {}) {
    function redraw() {
      const { traces, layout } = draw();
      return Plotly.react(element, traces, themed(layout), { ...config, displayModeBar: narrow.matches ? false : "hover", ...options });
    }
    charts.push(redraw);
    redraw();
    return redraw;
  }
  narrow.addEventListener("change", redrawAll);

  return { payload, colour, chart, narrow };
})();
