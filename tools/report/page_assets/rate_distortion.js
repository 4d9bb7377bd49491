/* The page of the rate-distortion study: curves, tables, frames, showcases.  Names come from files
 * and researchers, so they reach the page as text only. */
"use strict";

(() => {
  const { payload, colour, chart, narrow } = page;
  const byId = (id) => document.getElementById(id);
  const value = (id) => byId(id).value;
  // Plotly reads a little markup in texts; this takes it away.
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const digits = (number, count = 3) =>
    number == null ? "–" : Number(number.toPrecision(count)).toLocaleString("en");
  const percent = (share) => (share == null ? "–" : `${(100 * share).toFixed(1)} %`);
  const points = payload.points.rows.map(
    (row) => Object.fromEntries(payload.points.fields.map((field, number) => [field, row[number]])));
  const elements = Object.fromEntries(payload.splits.map((split) => [split.name, split.elements]));
  const style = (codec) => payload.styles[codec];

  function of(split, clip) {
    return points.filter((point) => point.clip === clip && ["", split].includes(point.split));
  }
  function grouped(list, key) {
    const groups = new Map();
    for (const item of list) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
    return groups;
  }
  function listen(ids, react) {
    for (const id of ids) byId(id).addEventListener("change", react);
  }
  /* Show of several siblings those whose data-* agree with the selects PREFIX-*. */
  function choose(prefix) {
    for (const choice of document.querySelectorAll(`[data-choice="${prefix}"]`)) {
      choice.hidden = Object.entries(choice.dataset).some(
        ([key, wanted]) => key !== "choice" && value(`${prefix}-${key}`) !== wanted);
    }
  }
  function fill(id, options) {
    const before = value(id);
    byId(id).replaceChildren(...options.map(([name, text]) => new Option(text, name)));
    if (options.some(([name]) => name === before)) byId(id).value = before;
  }

  // --- curves ---

  const RATES = {
    bytes_per_frame: ["bytes per frame", (point) => point.bytes_per_frame],
    kbit_per_s: ["kbit/s", (point) => point.kbit_per_s],
    bits_per_element: ["bits per feature element", (point, split) =>
      point.bits_per_element ?? 8 * point.bytes_per_frame / elements[split]],
  };
  const MEASURES = Object.fromEntries(payload.measures.map((measure) => [measure.name, measure]));
  const [LEAD] = payload.measures, FRAMED = MEASURES[payload.framed];
  const LOSSLESS = 1e-6;  // what has less loss than that has none, but for rounding
  /* A figure as text, a share in per cent. */
  const figure = ({ loss }, number, count = 3) => (loss ? digits(number, count) : percent(number));

  function logarithmic(values, title, few) {
    const positive = values.filter((one) => one > 0);
    if (!positive.length) return { title: { text: title } };
    const low = Math.log10(Math.min(...positive)), high = Math.log10(Math.max(...positive));
    const steps = few && high - low > 1.3 ? [1] : high - low > 2.5 && few ? [1] : [1, 2, 5];
    const ticks = [];
    for (let decade = Math.floor(low) - 1; decade <= high + 1; decade += 1) {
      ticks.push(...steps.map((step) => step * 10 ** decade));
    }
    const margin = 0.04 * (high - low) + 0.02;
    return {
      type: "log", title: { text: title }, range: [low - margin, high + margin],
      tickvals: ticks, ticktext: ticks.map((tick) => `${Number(tick.toPrecision(3))}`),
    };
  }
  function described(point) {
    return [
      `<b>${plain(point.codec)}</b> ${plain(point.variant)} ${plain(point.point)}`,
      `${digits(point.bytes_per_frame, 4)} bytes per frame, ${digits(point.kbit_per_s, 4)} kbit/s`,
      `${digits(point.bytes, 8)} bytes, ${point.frames} frames`,
      ...[true, false].map((loss) => payload.measures
        .filter((measure) => measure.loss === loss && point[measure.name] != null)
        .map((measure) => `${measure.brief} ${figure(measure, point[measure.name])}`).join(", ")),
    ].filter(Boolean).join("<br>");
  }

  function drawCurves() {
    const split = value("curve-split"), clip = value("curve-clip");
    const [rateTitle, rateOf] = RATES[value("curve-x")];
    const fidelity = value("curve-y"), { title, loss: log, compared } = MEASURES[fidelity];
    const onFront = (point) => point.front.includes(compared ? fidelity : LEAD.name);
    const rate = (point) => rateOf(point, split);
    const drawable = (point) => point[fidelity] != null && !(log && point[fidelity] < LOSSLESS);
    const traces = [];
    const shown = of(split, clip);
    const heights = shown.filter(drawable).map((point) => point[fidelity]);
    for (const [codec, found] of grouped(shown, (point) => point.codec)) {
      const { colour: ink, dash, symbol, ours } = style(codec);
      const front = found.filter((point) => onFront(point) && drawable(point))
        .sort((one, other) => rate(one) - rate(other));
      const common = {
        type: "scatter", name: plain(codec), legendgroup: codec, hoverinfo: "text",
        marker: { color: ink, symbol, size: 7, line: { color: colour("--card"), width: 1 } },
        line: { color: ink, dash, width: ours ? 2.4 : 1.6 },
      };
      if (front.length) {
        traces.push({
          ...common, uid: codec, mode: "lines+markers",
          x: front.map(rate), y: front.map((point) => point[fidelity]), text: front.map(described),
        });
      } else if (heights.length && log && found.some((point) => point[fidelity] != null)) {
        // exact, so without a place on a logarithmic axis: a line at its rate
        const best = found.reduce((one, other) => (rate(other) < rate(one) ? other : one));
        traces.push({
          ...common, uid: codec, mode: "lines", name: `${plain(codec)} (no loss)`,
          x: [rate(best), rate(best)], y: [Math.min(...heights), Math.max(...heights)],
          text: [described(best), described(best)],
          visible: codec === "uncompressed" ? "legendonly" : true,
        });
      } else if (found.some(drawable)) {
        const exact = found.filter(drawable);
        traces.push({
          ...common, uid: codec, mode: "markers", x: exact.map(rate),
          y: exact.map((point) => point[fidelity]), text: exact.map(described),
          visible: codec === "uncompressed" ? "legendonly" : true,
        });
      }
      const rest = found.filter((point) => !onFront(point) && drawable(point));
      if (byId("curve-all").checked && front.length && rest.length) {
        traces.push({
          ...common, uid: `${codec} rest`, mode: "markers", showlegend: false,
          marker: { color: ink, symbol: `${symbol}-open`, size: 5, opacity: 0.55 },
          x: rest.map(rate), y: rest.map((point) => point[fidelity]), text: rest.map(described),
        });
      }
    }
    const visible = traces.filter((trace) => trace.visible !== "legendonly");
    const rates = visible.flatMap((trace) => trace.x);
    const axes = `${clip} ${split} ${value("curve-x")} ${fidelity}`;
    const y = log ? logarithmic(heights, title, false)
      : { title: { text: title }, tickformat: ".0%", rangemode: "normal" };
    return {
      traces,
      layout: {
        xaxis: { ...logarithmic(rates, rateTitle, narrow.matches), uirevision: axes },
        yaxis: { ...y, uirevision: axes },
        legend: {
          uirevision: "kept",
          ...(narrow.matches ? { orientation: "h", yref: "container", y: 0, yanchor: "bottom" } : { x: 1.01, y: 1 }),
          traceorder: "normal",
        },
        hovermode: "closest",
        margin: { l: 56, r: 12, t: 36, b: 48 },
      },
    };
  }

  // --- frames ---

  const PARTS = { header: "--muted", motion: "--motion", residual: "--residual" };
  function framed() {
    return of(value("frame-split"), value("frame-clip")).filter((point) => point.per_frame);
  }
  const named = (point) => `${point.variant} ${point.point}`.trim();
  function fillFrames() {
    const found = framed();
    fill("frame-codec", [...new Set(found.map((point) => point.codec))].map((name) => [name, name]));
    const options = found.filter((point) => point.codec === value("frame-codec"));
    fill("frame-point", options.map((point) => [
      named(point), `${named(point)}: ${digits(point.bytes_per_frame)} B/frame, ${LEAD.brief} ${figure(LEAD, point[LEAD.name], 2)}`]));
  }
  function drawFrames() {
    const point = framed().find(
      (one) => one.codec === value("frame-codec") && named(one) === value("frame-point"));
    if (!point) {
      return { traces: [], layout: { annotations: [
        { text: "not measured frame by frame", showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper" }] } };
    }
    const { [FRAMED.name]: losses, bytes, parts } = point.per_frame;
    const stacks = Object.keys(parts ?? {}).length ? parts : bytes ? { "all bits": bytes } : {};
    const number = losses.map((_, index) => index);
    const heights = losses.map((one) => Math.max(one, 1e-5));
    const traces = Object.entries(stacks).map(([part, sizes]) => ({
      type: "bar", name: plain(part), x: number, y: sizes.map((size) => 8 * size),
      marker: { color: colour(PARTS[part] ?? "--residual"), line: { width: 0 } },
      hovertemplate: "%{y:,.0f} bits",
    }));
    traces.push({
      type: "scatter", mode: "lines", name: FRAMED.brief, x: number, y: heights,
      yaxis: "y2", line: { color: colour("--loss"), width: 1.8 }, hovertemplate: `%{y:.3g} ${FRAMED.unit}`,
    });
    const totals = number.map((index) =>
      Object.values(stacks).reduce((sum, sizes) => sum + 8 * sizes[index], 0));
    // a key frame may be many times the others; it is cut off, and its height written on it
    const [largest, second] = [...totals].sort((a, b) => b - a);
    const cut = largest > 3 * second ? 1.6 * second : 1.08 * largest;
    const annotations = totals.flatMap((total, index) => (total <= cut ? [] : [{
      x: index + 0.43, y: cut, yanchor: "top", xanchor: "left", showarrow: false, xshift: 2,
      text: `${total.toLocaleString("en", { maximumFractionDigits: 0 })} bits ↑`,
      font: { size: 11, color: colour("--muted") },
    }]));
    return {
      traces,
      layout: {
        barmode: "stack", bargap: 0.15, hovermode: "x unified", annotations,
        xaxis: {
          title: { text: "frame" }, range: [-0.7, losses.length - 0.3], showgrid: false,
          showspikes: false,  // drawn on white, since Plotly does not see what lies beneath
        },
        yaxis: { title: { text: "bits" }, range: [0, cut || 1] },
        yaxis2: {
          ...logarithmic(heights, FRAMED.title, true),
          overlaying: "y", side: "right", showgrid: false,
        },
        legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
        margin: { l: 56, r: 56, t: 36, b: 48 },
      },
    };
  }

  // --- showcases ---

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, text] of Object.entries(attributes)) made.setAttribute(key, text);
    made.append(...children);
    return made;
  }
  function vector(name, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, text] of Object.entries(attributes)) made.setAttribute(key, text);
    made.append(...children);
    return made;
  }
  const LENGTH = 3;  // what the text says
  /* Content at x came from x + v, so it moved by -v. */
  function arrows({ vectors, ...frame }, { grid, width, height }) {
    if (!vectors) return "";
    let path = "";
    vectors.forEach((row, i) => row.forEach(([v, u], j) => {
      const x = Math.min(j * grid + (grid - 1) / 2, width - 2), y = Math.min(i * grid + (grid - 1) / 2, height - 2);
      const size = Math.hypot(u, v) * LENGTH;
      if (size < 0.5) {
        path += `M${x} ${y}h0`;
        return;
      }
      const angle = Math.atan2(-v, -u), head = Math.min(6, 0.55 * size + 1.5);
      const [tipX, tipY] = [x + size * Math.cos(angle) / 2, y + size * Math.sin(angle) / 2];
      const side = (turn) => `${(tipX - head * Math.cos(angle + turn)).toFixed(1)} ${(tipY - head * Math.sin(angle + turn)).toFixed(1)}`;
      path += `M${(2 * x - tipX).toFixed(1)} ${(2 * y - tipY).toFixed(1)}L${tipX.toFixed(1)} ${tipY.toFixed(1)}`
        + `M${side(0.5)}L${tipX.toFixed(1)} ${tipY.toFixed(1)}L${side(-0.5)}`;
    }));
    return vector("g", { class: "arrows" },
      vector("path", { class: "halo", d: path }), vector("path", { class: "shaft", d: path }));
  }
  function frameCell(frame, show) {
    const { width, height } = show;
    const said = frame.vectors ? "and its motion field" : "without a motion field";
    return element("div", {},
      vector("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `frame ${frame.number} ${said}` },
        vector("image", { href: frame.image, width, height }), arrows(frame, show)),
      element("div", { class: "under" },
        `frame ${frame.number}, ${digits(frame.bytes, 6)} B${frame.vectors ? "" : ", no field"}`));
  }
  function channelRow(channel, show) {
    const count = show.frames.length;
    const share = 100 * channel.scale / (channel.high - channel.low || 1);
    const label = element("div", { class: "label" }, `channel ${channel.number}`,
      element("small", {}, channel.reason), element("small", {},
        `differences to ±${digits(channel.scale, 2)}, ${share.toFixed(0)}\u00a0% of its range`));
    const cells = show.frames.map((frame, index) => {
      const cell = element("div", { class: "triple" });
      for (const [kind, strip] of Object.entries(channel.images)) {
        const plane = element("div", {
          role: "img", title: kind,
          "aria-label": `channel ${channel.number}, ${kind}, frame ${frame.number}`,
        });
        plane.style.backgroundImage = `url("${strip}")`;
        plane.style.backgroundPosition = `${count > 1 ? 100 * index / (count - 1) : 0}% 0`;
        cell.append(plane);
      }
      return cell;
    });
    return [label, ...cells];
  }
  function shown() {
    return payload.showcases.find(
      (show) => show.clip === value("show-clip") && show.split === value("show-split"));
  }
  const toldOf = (show) => payload.measures.filter((measure) => show[measure.name] != null)
    .map((measure) => `${measure.brief} ${figure(measure, show[measure.name])}`).join(", ");
  function drawShowcase() {
    const strip = byId("show-strip"), show = shown();
    byId("show-summary").textContent = show
      ? `Effort ${show.effort}, qp ${show.qp}, ${show.coded} frames: ${digits(show.bytes / show.coded, 4)} bytes per frame, `
        + `${toldOf(show)}. Tensor ${show.tensor.name}, `
        + `${show.tensor.channels} channels of ${show.tensor.height} × ${show.tensor.width}.`
      : "There is no showcase of this clip at this split.";
    strip.replaceChildren();
    byId("show-results")?.replaceChildren(...(show?.frames ?? []).filter((frame) => frame.drawn).map((frame) => element("figure", {},
      element("img", { src: frame.drawn, alt: `frame ${frame.number} with what is found in it`, width: show.width, height: show.height }),
      element("figcaption", {}, `frame ${frame.number}, ${digits(frame.bytes, 6)} B`))));
    if (!show) return;
    strip.style.setProperty("--frames", show.frames.length);
    strip.style.setProperty("--aspect", `${show.tensor.width} / ${show.tensor.height}`);
    const kinds = () => element("div", { class: "triple", "aria-hidden": "true" },
      ...["original", "coded", "difference"].map((kind) => element("span", {}, kind)));
    strip.append(
      element("div", { class: "label" }, "frame", element("small", {}, "and its motion field")),
      ...show.frames.map((frame) => frameCell(frame, show)),
      element("div", { class: "label" }), ...show.frames.map(kinds),
      ...show.channels.flatMap((channel) => channelRow(channel, show)));
  }

  const MAPS = {
    "channel-bits": ["Rate by channel", "bits per frame", "--residual", (show) => tiled(show.channel_bits)],
    "channel-nrmse": ["Error by channel", "NRMSE, by the tensor’s range", "--error", (show) => tiled(show.channel_nrmse)],
    "block-bits": ["Rate by block", "bits per frame", "--residual", (show) => ({ z: show.block_bits })],
    "position-nrmse": ["Error by position", "NRMSE, by the tensor’s range", "--error", (show) => ({ z: show.position_nrmse })],
  };
  /* Lay channels out as tiles, in reading order. */
  function tiled(values) {
    const columns = Math.ceil(Math.sqrt(values.length));
    const z = [], text = [];
    for (let start = 0; start < values.length; start += columns) {
      const row = Array.from({ length: columns }, (_, index) => start + index);
      z.push(row.map((index) => values[index] ?? null));
      text.push(row.map((index) => `channel ${index}`));
    }
    return { z, text };
  }
  function drawMap(name) {
    const show = shown(), [title, unit, ink, of] = MAPS[name];
    byId(`map-${name}-title`).replaceChildren(element("b", {}, title), unit);
    if (!show) return { traces: [], layout: { xaxis: { visible: false }, yaxis: { visible: false } } };
    const { z, text } = of(show);
    const rows = z.length, columns = z[0].length, few = rows * columns <= 16;
    const values = z.flat().filter((one) => one != null);
    return {
      traces: [{
        type: "heatmap", z, xgap: 1, ygap: 1,
        zmin: name.endsWith("bits") ? 0 : Math.min(...values), zmax: Math.max(...values) || 1,
        text: text ?? z.map((row, i) => row.map((_, j) => `row ${i}, column ${j}`)),
        hovertemplate: "%{text}: %{z:.4~g}<extra></extra>",
        ...(few ? { texttemplate: name.endsWith("bits") ? "%{z:,.0f}" : "%{z:.2~g}" } : {}),
        colorscale: [[0, colour("--soft")], [1, colour(ink)]],
        colorbar: { thickness: 8, len: 1, outlinewidth: 0, tickfont: { color: colour("--muted"), size: 10 }, nticks: 5, x: 1.01, xpad: 4 },
      }],
      layout: {
        xaxis: { visible: false, range: [-0.5, columns - 0.5], constrain: "domain", fixedrange: true },
        yaxis: { visible: false, range: [rows - 0.5, -0.5], scaleanchor: "x", constrain: "domain", fixedrange: true },
        margin: { l: 2, r: 36, t: 2, b: 2 },
      },
    };
  }

  // --- all of it ---

  const redrawCurves = chart(byId("curve-chart"), drawCurves);
  listen(["curve-split", "curve-clip", "curve-x", "curve-y", "curve-all"], () => {
    choose("curve");
    redrawCurves();
  });
  choose("curve");

  if (byId("bd-split")) {
    listen(["bd-split", "bd-test", "bd-measure"], () => choose("bd"));
    choose("bd");
  }

  if (byId("frame-chart")) {
    fillFrames();
    const redrawFrames = chart(byId("frame-chart"), drawFrames);
    listen(["frame-split", "frame-clip", "frame-codec", "frame-point"], () => {
      fillFrames();
      redrawFrames();
    });
  }

  if (byId("show-strip")) {
    drawShowcase();
    const redrawMaps = Object.keys(MAPS).map((name) => chart(byId(`map-${name}`), () => drawMap(name), { displayModeBar: false }));
    listen(["show-clip", "show-split"], () => {
      drawShowcase();
      redrawMaps.forEach((redraw) => redraw());
    });
    byId("show-vectors").addEventListener("change", (event) => {
      byId("show-strip").classList.toggle("plain", !event.target.checked);
    });
  }
})();
