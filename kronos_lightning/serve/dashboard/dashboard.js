// The dashboard: everything it shows comes from the HTTP API of this service.
import { draw } from "./fan.js";
import { connect, showLive } from "./live.js";
import { TEXTS } from "./texts.js";

const at = (id) => document.getElementById(id);
const state = { language: (navigator.language || "en").startsWith("zh") ? "zh" : "en", model: null, view: null, newest: null, past: null, signals: [] };
const text = () => TEXTS[state.language];
const number = (value, digits = 6) => value.toLocaleString("en-US", { maximumSignificantDigits: digits });
const percent = (value, digits = 1) => `${(value * 100).toFixed(digits)}\u00a0%`;
const signed = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value * 100).toFixed(2)}\u00a0%`;
const stamp = (value) => value.slice(0, 16).replace("T", " ");

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const content = response.status === 204 ? null : await response.json();
  if (!response.ok) throw Object.assign(new Error(content.error.message), { hint: content.error.hint, status: response.status });
  return content;
}

function element(tag, content, attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...[content].flat());
  return made;
}

function notice(...lines) {
  at("notices").replaceChildren(...lines.map((line) => element("p", line, { className: "notice" })));
}

function told(error) {
  notice(error.hint ? `${error.message}. ${error.hint}` : String(error.message ?? error));
}

function translate() {
  document.documentElement.lang = state.language;
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = text()[one.dataset.text];
  at("language").textContent = state.language === "en" ? "中文" : "English";
  at("language").lang = state.language === "en" ? "zh" : "en";
  at("terms").replaceChildren(...text().dt.flatMap(([term, meaning]) => [element("dt", term), element("dd", meaning)]));
  showModel();
  if (state.view) show(state.view);
  showLive(text());
}

function showModel() {
  if (!state.model) return;
  const { decision, id } = state.model;
  const facts = decision.evaluation;
  at("model").textContent = `${decision.symbol} ${decision.interval} · ${decision.model} · ${id}`;
  at("verdict").replaceChildren(...facts.verdict.map((line) => element("li", line)));
  at("span").textContent = `${text().evaluated}: ${facts.cutoffs} ${text().cutoffs}, ${stamp(facts.first)} – ${stamp(facts.last)} UTC`;
}

function card(title, value, small = "", side = "") {
  return element("div", [element("h3", title), element("strong", value, { className: side }), element("small", small)], { className: "card" });
}

function cards(view) {
  const t = text();
  const last = (level) => number(view.quantiles[level].at(-1));
  const side = { BUY: "up", SELL: "down" }[view.signal] ?? "";
  const limits = view.limits ? Object.entries(view.limits).map(([name, value]) => `${name} ${signed(value)}`).join(", ") : "";
  const made = [
    card(t.predicted, number(view.predicted_price), `${last("0.05")} – ${last("0.95")} (90 %)`),
    card(t.signal, view.signal, `${signed(view.expected_return)}${limits ? `; ${limits}` : ""}`, side),
    card(t.up, percent(view.probability_up), view.calibrated ? t.calibrated : t.uncalibrated),
    card(t.confidence, view.confidence === null ? "–" : percent(view.confidence), view.confidence === null ? t.none : t.trend[view.trend]),
  ];
  if (view.volatility != null) made.push(card(t.volatility, percent(view.volatility, 2), t.a_candle));
  if (view.touch) made.push(card(t.touch, `${percent(view.touch.down, 0)} / ${percent(view.touch.up, 0)}`, `${t.stop} / ${t.target}; ${t.neither} ${percent(view.touch.neither, 0)}`));
  if (view.actual.length) {
    const close = view.actual.at(-1).close;
    const inside = close >= view.quantiles["0.05"].at(-1) && close <= view.quantiles["0.95"].at(-1);
    made.push(card(t.came, `${number(close)}`, `${signed(close / view.last_close - 1)}; ${inside ? t.right : t.wrong}`));
  }
  return made;
}

function table(view) {
  const levels = Object.keys(view.quantiles).sort((a, b) => a - b);
  const head = element("tr", [text().time, ...levels.map((level) => percent(Number(level)))].map((cell) => element("th", cell, { scope: "col" })));
  const rows = view.stamps.map((when, i) => element("tr", [stamp(when), ...levels.map((level) => number(view.quantiles[level][i]))].map((cell) => element("td", cell))));
  return [element("thead", head), element("tbody", rows)];
}

function show(view) {
  state.view = view;
  const t = text();
  at("cards").replaceChildren(at("now"), ...cards(view));
  at("table").replaceChildren(...table(view));
  notice(...(view.notices ?? []));
  const words = `${view.symbol}: ${t.predicted} ${number(view.predicted_price)}, ${t.signal} ${view.signal}, ${view.stamps.length} ${t.candles} ${t.after} ${stamp(view.cutoff)} UTC`;
  at("summary").textContent = words;
  at("chart").setAttribute("aria-label", words);
  at("save").disabled = false;
  at("again").hidden = !state.newest || view === state.newest;
  draw(at("chart"), view, t);
}

function fromAnswer(answer, known) {
  const step = (Date.parse(answer.target) - Date.parse(answer.cutoff_close)) / answer.horizon;
  const stamps = Array.from({ length: answer.horizon }, (_, i) => new Date(Date.parse(answer.cutoff_close) + i * step).toISOString());
  const levels = [{ price: answer.touch.down_level, side: "down" }, { price: answer.touch.up_level, side: "up" }];
  const shown = known.filter((row) => Date.parse(row.timestamp) <= Date.parse(answer.cutoff)).slice(-120);
  const chance = answer.probability_up_calibrated ?? answer.probability_up;
  return { ...answer, probability_up: chance, answer, stamps, known: shown, actual: [], levels: levels.filter((level) => inReach(level.price, answer)), limits: answer.thresholds.values };
}

function inReach(price, answer) {
  const low = Math.min(...answer.quantiles["0.025"]);
  const high = Math.max(...answer.quantiles["0.975"]);
  return price > low - (high - low) * 2 && price < high + (high - low) * 2;
}

function parse(content) {
  const [head, ...lines] = content.trim().split(/\r?\n/).map((line) => line.split(/[,;\t]/).map((cell) => cell.trim().replace(/^"|"$/g, "")));
  const find = (...names) => head.findIndex((cell) => names.includes(cell.toLowerCase().replace(/[ _]/g, "")));
  const columns = { open: find("open"), high: find("high"), low: find("low"), close: find("close"), volume: find("volume", "vol"), amount: find("amount", "quotevolume", "quoteassetvolume") };
  const time = find("timestamps", "timestamp", "time", "date", "datetime", "opentime");
  if ([time, columns.open, columns.high, columns.low, columns.close].some((place) => place < 0)) throw new Error(text().no_rows);
  return lines.filter((cells) => cells.length > 4).map((cells) => {
    const row = { timestamp: moment(cells[time]) };
    for (const [name, place] of Object.entries(columns)) if (place >= 0) row[name] = Number(cells[place]);
    return row;
  });
}

function moment(cell) {
  if (/^\d+(\.\d+)?$/.test(cell)) {
    let value = Number(cell);
    while (value > 1e14) value /= 1000;
    return new Date(value < 1e11 ? value * 1000 : value).toISOString();
  }
  const zoned = /(Z|[+-]\d\d:?\d\d)$/.test(cell);
  return new Date(zoned ? cell : `${cell.replace(" ", "T")}${cell.length <= 10 ? "T00:00:00" : ""}Z`).toISOString();
}

async function forecastFile(file) {
  try {
    const rows = parse(await file.text()).sort((a, b) => a.timestamp.localeCompare(b.timestamp));
    const { symbol, lookback } = state.model.decision;
    const named = (file.name.toUpperCase().match(/^[A-Z0-9]+/) ?? [symbol])[0];
    const market = /^[A-Z0-9]{2,20}$/.test(named) ? named : symbol;
    const candles = rows.slice(-lookback - 1);
    const answer = await call(`/v1/${market}/predict?drop_unfinished=true`, { candles: candles.length > lookback ? await finished(candles, lookback) : candles });
    state.newest = fromAnswer(answer, rows);
    show(state.newest);
  } catch (error) {
    told(error);
  }
}

// One candle more than the lookback, because the last one may not have closed.
async function finished(candles, lookback) {
  const step = Date.parse(candles.at(-1).timestamp) - Date.parse(candles.at(-2).timestamp);
  return Date.parse(candles.at(-1).timestamp) + step > Date.now() ? candles : candles.slice(-lookback);
}

async function showPast(index) {
  const one = state.past.forecasts[index];
  at("slider").value = index;
  at("when").textContent = `${stamp(one.cutoff)} UTC (${index + 1}/${state.past.forecasts.length})`;
  at("slider").setAttribute("aria-valuetext", at("when").textContent);
  const found = await call(state.past.path(one.id));
  if (at("slider").value !== String(index)) return; // the slider has moved on
  const notices = state.past.matches_model ? state.model.decision.evaluation.notices : [text().other];
  show({ ...found, answer: found, symbol: state.past.symbol, calibrated: found.confidence !== null, notices });
}

function offerPast(past, label) {
  state.past = past;
  at("past").hidden = !past.forecasts.length;
  at("slider").max = Math.max(0, past.forecasts.length - 1);
  document.querySelector("label[for=slider]").dataset.text = label;
  document.querySelector("label[for=slider]").textContent = text()[label];
}

// Follow the live record: the newest decision, and a slider over those before it.
async function follow(symbol) {
  const link = at("record-link");
  link.hidden = false;
  link.firstElementChild.href = `/v1/${symbol}/signals?limit=1000`;
  await connect(symbol, { call, text, tell: told, refresh: () => showLatest(symbol) });
}

async function showLatest(symbol) {
  const known = await call("/v1/candles?limit=500");
  await readSignals(symbol);
  const forecasts = state.signals.filter((one) => one.status === "ok");
  offerPast({ forecasts, symbol, matches_model: true, path: (id) => `/v1/${symbol}/forecasts/${id}` }, "live_slider");
  const wasNewest = state.view === state.newest;
  const answer = await call(`/v1/${symbol}/latest`).catch((error) => { if (error.status !== 409) throw error; return null; });
  if (answer) {
    const marks = forecasts.filter((one) => one.signal !== "HOLD").map((one) => ({ timestamp: one.cutoff, price: one.last_close, signal: one.signal }));
    state.newest = { ...fromAnswer(answer, known), marks };
    if (wasNewest) { at("slider").value = at("slider").max; at("when").textContent = `${stamp(answer.cutoff)} UTC`; show(state.newest); }
  } else if (!state.view && forecasts.length) {
    await showPast(forecasts.length - 1);
  }
}

// Read the signals that are new; those of the record never change.
async function readSignals(symbol) {
  let cursor = state.signals.at(-1)?.id ?? 0;
  while (cursor !== null) {
    const page = await call(`/v1/${symbol}/signals?limit=1000&cursor=${cursor}`);
    state.signals.push(...page.signals);
    cursor = page.next;
  }
}

async function start() {
  at("login").hidden = true;
  state.model = await call("/v1/model");
  showModel();
  if (state.model.live) return follow(state.model.live);
  const known = state.model.candles ? await call("/v1/candles?limit=500") : null;
  const past = state.model.past_forecasts ? await call("/v1/evaluation") : null;
  if (past && past.forecasts.length) offerPast({ ...past, path: (id) => `/v1/evaluation/${id}` }, "slider");
  if (known) {
    const answer = await call(`/v1/${state.model.decision.symbol}/predict?drop_unfinished=true`, {});
    state.newest = fromAnswer(answer, known);
    show(state.newest);
    if (state.past) { at("slider").value = at("slider").max; }
  } else if (state.past) {
    await showPast(past.forecasts.length - 1);
  } else {
    notice(text().unevaluated);
  }
}

async function watch() {
  if (state.model?.live) return; // its state is asked for more often
  const ready = await fetch("/readyz").then((response) => response.ok, () => false);
  at("light").className = `light ${ready ? "ok" : "bad"}`;
  at("light").setAttribute("aria-label", ready ? text().ready : text().failed);
}

function listen() {
  at("language").addEventListener("click", () => { state.language = state.language === "en" ? "zh" : "en"; translate(); watch(); });
  at("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme === "dark" || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.theme = dark ? "light" : "dark";
    if (state.view) show(state.view);
    showLive(text());
  });
  at("file").addEventListener("change", (event) => { if (event.target.files[0]) forecastFile(event.target.files[0]); });
  at("again").addEventListener("click", () => show(state.newest));
  at("slider").addEventListener("input", (event) => showPast(Number(event.target.value)).catch(told));
  const move = (by) => showPast(Math.max(0, Math.min(state.past.forecasts.length - 1, Number(at("slider").value) + by))).catch(told);
  at("earlier").addEventListener("click", () => move(-1));
  at("later").addEventListener("click", () => move(1));
  at("save").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([JSON.stringify(state.view.answer, null, 2)], { type: "application/json" }));
    element("a", "", { href: address, download: "forecast.json" }).click();
    URL.revokeObjectURL(address);
  });
  at("login").addEventListener("submit", (event) => {
    event.preventDefault();
    call("/login", { key: at("key").value }).then(start).catch(() => notice(text().wrong_key));
  });
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
  document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    if (event.dataTransfer.files[0]) forecastFile(event.dataTransfer.files[0]);
  });
}

listen();
translate();
watch();
setInterval(watch, 15000);
if (document.body.dataset.locked === "true") at("login").hidden = false;
else start().catch(told);
