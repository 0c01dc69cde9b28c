// Chart of known candles, the fan of a forecast and, if known, what came.
const BANDS = [["0.025", "0.975", 0.14], ["0.1", "0.9", 0.2], ["0.25", "0.75", 0.28]];

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function candles(rows, name, strong) {
  const column = (key) => rows.map((row) => row[key]);
  const line = (side) => ({ line: { color: color(side), width: 1 }, fillcolor: strong ? color(side) : color("panel") });
  return {
    type: "candlestick", name, x: column("timestamp"), open: column("open"), high: column("high"), low: column("low"),
    close: column("close"), increasing: line("up"), decreasing: line("down"), showlegend: false,
  };
}

export function draw(element, view, text) {
  const known = element.clientWidth < 500 ? view.known.slice(-48) : view.known; // narrow candles cannot be read
  const start = view.known.at(-1)?.timestamp ?? view.cutoff;
  const x = [start, ...view.stamps];
  const prices = (level) => [view.last_close, ...view.quantiles[level]];
  const traces = [];
  for (const [low, high, strength] of BANDS) {
    const share = Math.round((high - low) * 100);
    const edge = { type: "scatter", mode: "lines", x, line: { width: 0 }, hoverinfo: "skip", showlegend: false };
    traces.push({ ...edge, y: prices(low) });
    traces.push({
      ...edge, y: prices(high), fill: "tonexty", fillcolor: `rgba(${color("band")}, ${strength})`,
      name: `${share} %`, showlegend: true,
    });
  }
  traces.push(candles(known, text.known, true));
  if (view.actual.length) traces.push(candles(view.actual, text.then, false));
  traces.push({
    type: "scatter", mode: "lines", name: text.median, x, y: prices("0.5"),
    line: { color: color("accent"), width: 2 },
  });
  const marks = (view.marks ?? []).filter((mark) => mark.timestamp >= known[0]?.timestamp);
  if (marks.length) {
    traces.push({
      type: "scatter", mode: "markers", name: text.signal, x: marks.map((mark) => mark.timestamp), y: marks.map((mark) => mark.price),
      text: marks.map((mark) => mark.signal), hoverinfo: "x+text",
      marker: { size: 9, symbol: marks.map((mark) => (mark.signal === "BUY" ? "triangle-up" : "triangle-down")), color: marks.map((mark) => color(mark.signal === "BUY" ? "up" : "down")) },
    });
  }
  const span = { x0: x[0], x1: x.at(-1), type: "line" };
  const shapes = (view.levels ?? []).map((level) => ({
    ...span, y0: level.price, y1: level.price, line: { color: color(level.side), width: 1, dash: "dot" },
  }));
  const axis = { gridcolor: color("grid"), zeroline: false, fixedrange: true };
  const layout = {
    shapes, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: color("text"), size: 12 },
    margin: { l: 8, r: 8, t: 8, b: 8 }, legend: { orientation: "h", y: 1.08, x: 0 }, hovermode: "x",
    xaxis: { ...axis, automargin: true, rangeslider: { visible: false } },
    yaxis: { ...axis, automargin: true, tickformat: ",.6~r" },
  };
  return window.Plotly.react(element, traces, layout, { displayModeBar: false, responsive: true });
}
