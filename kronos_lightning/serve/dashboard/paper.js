// Chart of the paper account beside buy and hold and the money untouched.
import { color } from "./fan.js";

export function drawPaper(element, paper, text) {
  const line = (name, y, tint, dash) => ({ type: "scatter", mode: "lines", name, x: paper.times, y, line: { color: color(tint), width: 2, dash } });
  const traces = [
    line(text.equity, paper.equity, "accent", "solid"),
    line(text.hold, paper.hold, "quiet", "dot"),
    line(text.flat, paper.times.map(() => paper.initial_equity), "quiet", "dash"),
  ];
  const axis = { gridcolor: color("grid"), zeroline: false, fixedrange: true, automargin: true };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: color("text"), size: 12 },
    margin: { l: 8, r: 8, t: 8, b: 8 }, legend: { orientation: "h", y: 1.15, x: 0 }, hovermode: "x",
    xaxis: axis, yaxis: { ...axis, tickformat: ",.6~r" },
  };
  return window.Plotly.react(element, traces, layout, { displayModeBar: false, responsive: true });
}
