// The live half of the dashboard: the stream of events, the countdown, the banner, the track record and the paper account.
import { drawPaper } from "./paper.js";

const at = (id) => document.getElementById(id);
const percent = (value, digits = 0) => (value == null ? "–" : `${(value * 100).toFixed(digits)} %`);
const stamp = (value) => value.slice(0, 16).replace("T", " ");
const live = { state: null, received: 0, score: null, paper: null, refreshing: false, again: false, events: null };

// Connect to the events of a market; `refresh` is called after each close, `call` asks the API, `text` gives the texts.
export function connect(symbol, { call, refresh, text, tell }) {
  const update = async () => {
    if (live.refreshing) { live.again = true; return; }
    live.refreshing = true;
    try {
      do {
        live.again = false;
        [live.score, live.paper] = await Promise.all([call(`/v1/${symbol}/score`), call(`/v1/${symbol}/paper`).catch(() => null)]);
        await refresh();
        await ask(symbol, call);
        showLive(text());
      } while (live.again);
      live.events ??= listen(symbol, update);
    } catch (error) {
      tell(error);
      if (!live.events) setTimeout(update, 3000); // no close has been recorded yet
    } finally {
      live.refreshing = false;
    }
  };
  setInterval(() => ask(symbol, call).then(() => banner(text()), () => banner(text(), true)), 3000);
  setInterval(() => countdown(text()), 1000);
  return update();
}

function listen(symbol, update) {
  const events = new EventSource(`/v1/${symbol}/events`);
  events.addEventListener("forecast", update);
  events.addEventListener("open", update); // after a pause in the connection
  return events;
}

async function ask(symbol, call) {
  live.state = await call(`/v1/${symbol}/state`);
  live.received = performance.now();
}

// Show everything again, such as in another language or theme.
export function showLive(text) {
  if (!live.state) return;
  banner(text);
  countdown(text);
  if (live.score) trackRecord(live.score, text);
  if (live.paper) paper(live.paper, text);
}

function banner(text, silent = false) {
  const bad = silent || live.state.stale;
  at("stale").hidden = !bad;
  if (bad) at("stale").textContent = silent ? text.failed : `${text.stale} ${live.state.newest ? stamp(live.state.newest) : "–"} UTC`;
  at("light").className = `light ${bad ? "bad" : "ok"}`;
  at("light").setAttribute("aria-label", bad ? text.stale_light : text.ready);
}

function countdown(text) {
  if (!live.state?.next_close) return;
  const passed = (performance.now() - live.received) * live.state.rate;
  const left = Math.max(0, (Date.parse(live.state.next_close) - Date.parse(live.state.now) - passed) / 1000);
  const parts = [left / 3600, (left % 3600) / 60, left % 60].map((part) => String(Math.floor(part)).padStart(2, "0"));
  const halted = live.state.halted ? ` · ${text.halted}` : "";
  at("countdown").textContent = `${text.next} ${parts.join(":")}${live.state.clock === "replay" ? ` · ${text.replay}` : ""}${halted}`;
}

function row(cells) {
  const line = document.createElement("tr");
  for (const [i, cell] of cells.entries()) {
    const made = document.createElement(i ? "td" : "th");
    if (!i) made.scope = "row";
    made.textContent = cell;
    line.append(made);
  }
  return line;
}

function trackRecord(score, text) {
  at("track").hidden = false;
  const range = (pair, digits = 0) => (pair ? ` (${percent(pair[0], digits)} – ${percent(pair[1], digits)})` : "");
  const rows = [
    [text.state, text.states[score.state]],
    [text.scored, `${score.n}${score.late ? ` (+ ${score.late} ${text.late})` : ""}`],
    [text.hits, `${percent(score.hit_rate)}${range(score.hit_rate_interval)}`],
    [text.coverage, percent(score.coverage["0.9"])],
    ...Object.entries(score.skill).map(([name, value]) => [`${text.skill} ${name}`, `${percent(value, 1)}${range(score.skill_interval[name], 1)}`]),
    [text.evidence, score.evidence < 1e4 ? score.evidence.toPrecision(3) : "> 10 000"],
  ];
  at("track-table").replaceChildren(...rows.map(row));
}

function paper(found, text) {
  at("paper").hidden = false;
  const change = (values) => percent(values.at(-1) / found.initial_equity - 1, 2);
  const held = found.position
    ? `${text.position} ${found.position.toPrecision(4)}, ${text.entry} ${found.entry_price}, ${text.stop} ${found.stop?.toFixed(2) ?? "–"}, ${text.target} ${found.target?.toFixed(2) ?? "–"}`
    : text.no_position;
  const words = `${held}. ${text.equity} ${change(found.equity)}, ${text.hold} ${change(found.hold)}, ${found.trades.length} ${text.trades}${found.halted ? `, ${text.halted}` : ""}`;
  at("paper-words").textContent = words;
  at("paper-chart").setAttribute("aria-label", words);
  drawPaper(at("paper-chart"), found, text);
}
