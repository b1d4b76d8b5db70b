"use strict";
// Asks for the state once a second and shows it. Every text goes in as text, never as markup.

const EVERY_MS = 1000, EVENTS_EVERY = 3, STREAMS_AT_ONCE = 4, RETRY_MS = 3000;
const FIGURES = ["p50", "p90", "p99", "p99_9", "max"];
const STAGES = ["decode", "wait", "preprocess", "infer", "postprocess", "publish"];
const cards = new Map();
let asked = 0, failedSince = 0;

const byId = (id) => document.getElementById(id);

function make(tag, name = "", ...parts) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...parts);
  return made;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const count = (value) => value.toLocaleString("en");
const ms = (value) => value == null ? "–" : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);

function span(seconds) {
  const whole = Math.floor(seconds), pairs = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = pairs.findIndex(([unit]) => whole >= unit);
  if (first < 0) return "0 s";
  const [unit, name] = pairs[first], [next, lesser] = pairs[first + 1] || [0, ""];
  const rest = next ? Math.floor((whole % unit) / next) : 0;
  return `${Math.floor(whole / unit)} ${name}` + (rest ? ` ${rest} ${lesser}` : "");
}

async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function send(path, body) {
  const headers = { "content-type": "application/json", accept: "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  if (answer.status === 401) location.assign("/login");
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

// Pictures

class Card {
  constructor(name) {
    this.path = encodeURIComponent(name);
    this.img = make("img");
    this.img.alt = `Live picture of ${name}`;
    this.img.addEventListener("error", () => this.later());
    this.img.addEventListener("load", () => this.loaded());
    this.note = make("p");
    this.view = make("div", "view", this.img, this.note);
    this.state = make("span", "state");
    this.result = make("p", "result soft");
    this.counts = new Map();
    this.list = make("div", "counts");
    this.node = make("article", "camera", this.view,
      make("div", "about", make("div", "name", make("span", "", name), this.state), this.result, this.list));
    this.shows = "";
  }

  show(kind) {  // "stream", "stills" or "" for nothing
    if (this.shows === kind) return;
    this.shows = kind;
    clearTimeout(this.timer);
    if (kind) this.load();
    else this.img.removeAttribute("src");
  }

  load() {
    const kind = this.shows === "stream" ? `/stream/${this.path}.mjpg` : `/snapshot/${this.path}.jpg`;
    this.img.src = `${kind}?${Date.now()}`;  // another address each time: browsers reuse pictures
  }

  loaded() {
    this.img.hidden = false;
    if (this.shows === "stills") this.later(EVERY_MS);
  }

  later(after = RETRY_MS) {
    if (after === RETRY_MS) this.img.hidden = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.shows && this.load(), after);
  }

  figure(name, text) {
    if (!this.counts.has(name)) {
      this.counts.set(name, make("b"));
      this.list.append(make("div", "", this.counts.get(name), make("span", "", name)));
    }
    put(this.counts.get(name), text);
  }

  update(camera) {
    const live = camera.state === "live";
    put(this.state, camera.state);
    this.state.classList.toggle("live", live);
    const reasons = Object.entries(camera.dropped_for).map(([reason, n]) => `${reason} ${count(n)}`);
    if (camera.lost_before) reasons.push(`in the decoder's process ${count(camera.lost_before)}`);
    this.list.title = reasons.length ? `dropped: ${reasons.join(", ")}` : "";
    const why = camera.last_error ? `: ${camera.last_error}` : "";
    put(this.note, live ? "" : `${camera.state} for ${span(camera.since_s)}${why}`);
    this.note.hidden = live;
    put(this.result, camera.last_result || "");
    if (camera.width) this.view.style.setProperty("--ratio", `${camera.width} / ${camera.height}`);
    this.figure("results/s", camera.fps.toFixed(1));
    this.figure("age, ms", camera.age_ms == null ? "–" : camera.age_ms.toFixed(1));
    for (const name of ["captured", "processed", "dropped", "reconnects"]) this.figure(name, count(camera[name]));
    this.figure("pixels", camera.width ? `${camera.width}×${camera.height}` : "–");
    this.figure(live ? "live for" : "away for", span(camera.since_s));
    this.counts.get(live ? "away for" : "live for")?.parentNode.remove();
    this.counts.delete(live ? "away for" : "live for");
  }
}

function showCameras(cameras) {
  const names = new Set(cameras.map((camera) => camera.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.show("");
    card.node.remove();
    cards.delete(name);
  }
  for (const camera of cameras) {
    if (!cards.has(camera.name)) {
      cards.set(camera.name, new Card(camera.name));
      byId("cameras").append(cards.get(camera.name).node);
    }
    cards.get(camera.name).update(camera);
  }
  byId("cameras").classList.toggle("alone", cameras.length === 1);
  showPictures();
}

function showPictures() {
  // A browser opens six connections to a server: streams must leave some for the rest.
  let place = 0;
  for (const card of cards.values()) {
    card.show(document.hidden ? "" : place++ < STREAMS_AT_ONCE ? "stream" : "stills");
  }
}

// Figures

function row(name, figures, kind, swatch = "") {
  const first = make("td", "", ...(swatch ? [make("i", `swatch s-${swatch}`)] : []), name);
  first.title = name;
  const made = make("tr", kind, first);
  for (const figure of FIGURES) made.append(make("td", "", ms(figures[figure])));
  return made;
}

function bar(stages) {
  const made = make("div", "bar");
  for (const stage of STAGES) {
    const part = make("i", `s-${stage}`);
    part.style.flexGrow = String(stages[stage]?.p50 || 0);
    part.title = `${stage}: ${ms(stages[stage]?.p50)} ms`;
    made.append(part);
  }
  return made;
}

function latencyOf(name, latency, several) {
  const head = make("tr", "", ...["stage", "p50", "p90", "p99", "p99.9", "max"].map((text) => make("th", "", text)));
  const body = make("tbody"), models = Object.entries(latency.models);
  for (const [stage, figures] of Object.entries(latency.stages)) {
    body.append(row(stage, figures, stage === "age" ? "age" : "", STAGES.includes(stage) ? stage : ""));
    if (models.length < 2) continue;
    for (const [model, of] of models) if (of[stage]) body.append(row(model, of[stage], "part"));
  }
  const table = make("div", "scroll", make("table", "", make("thead", "", head), body));
  const title = make("h3", "", ...(several ? [name, " "] : []), make("small", "", `${count(latency.n)} frames`));
  return make("div", "", title, bar(latency.stages), table);
}

function showLatency(latency) {
  const several = Object.keys(latency).length > 1, seen = Object.entries(latency).filter(([, of]) => of.n);
  const parts = seen.map(([name, of]) => latencyOf(name, of, several));
  byId("latency").replaceChildren(...(seen.length ? parts : [make("p", "soft", "No frame yet.")]));
}

function showModels(models) {
  byId("models").replaceChildren(...models.map((model) => make("div", "model",
    make("b", "", model.name), make("span", "soft", ` ${model.backend} ${model.precision}`),
    ...(model.building ? [make("p", "", `building ${model.building}; this one serves meanwhile`)] : []),
    ...(model.changed ? [make("p", "warn", "its files have changed; it serves as it was loaded until the settings are read again")] : []),
    ...model.refused.map((why) => make("p", "soft", `not taken: ${why}`)))));
}

function flat(tree, above = "") {
  if (tree === null || typeof tree !== "object") return [[above, tree === null ? "–" : String(tree)]];
  if (Array.isArray(tree) && tree.every((part) => part === null || typeof part !== "object"))
    return [[above, tree.join(", ") || "–"]];
  return Object.entries(tree).flatMap(([key, part]) => flat(part, above ? `${above}.${key}` : key));
}

function showSinks(sinks) {
  const lines = sinks.flatMap((sink) => [
    [sink.lost ? `lost ${count(sink.lost)}` : "", sink.last_error].filter(Boolean).join(": "), sink.damage,
  ].filter(Boolean).map((line) => make("p", "warn", `${sink.name}: ${line}`)));
  byId("sinks").replaceChildren(...lines);
}

const shownFacts = new Map();

function showFacts(id, tree) {
  const text = JSON.stringify(tree);
  if (shownFacts.get(id) === text) return;  // so that what somebody marks stays marked
  shownFacts.set(id, text);
  byId(id).replaceChildren(...flat(tree).flatMap(([key, value]) => [make("dt", "", key), make("dd", "", value)]));
}

function eventLine(event) {
  const when = new Date(event.time), words = [String(event.kind).replaceAll("_", " ")];
  if (event.label) words.push(event.label);
  if (event.track) words.push(`#${event.track}`);
  if (event.seconds) words.push(`after ${span(event.seconds)}`);
  const time = isNaN(when) ? "–" : when.toLocaleString("en-GB", { dateStyle: "short", timeStyle: "medium" });
  return make("li", "", make("time", "", time), ...(event.camera ? [make("b", "", event.camera), " "] : []), words.join(" "));
}

async function showEvents() {
  const { events } = await ask("/api/v1/events?limit=50");
  byId("events").replaceChildren(...events.map(eventLine));
  if (!events.length) byId("events").append(make("li", "soft", "None."));
}

// What can be changed

let reloads = { done: 0, refused: 0, last_error: "" }, reloadAsked = null;

function tell(id, text, bad = false) {
  put(byId(id), text);
  byId(id).className = bad ? "warn" : "soft";
}

async function reload() {
  tell("reloaded", "Reading");
  reloadAsked = reloads.done + reloads.refused;
  try {
    await send("/api/v1/reload", {});
  } catch (error) {
    reloadAsked = null;
    tell("reloaded", error.message, true);
  }
}

function showReloads(now) {
  reloads = now;
  if (reloadAsked === null || now.done + now.refused === reloadAsked) return;
  reloadAsked = null;
  tell("reloaded", now.last_error ? `Refused, and the old ones go on: ${now.last_error}` : "In force.", !!now.last_error);
  showTeaching().catch(() => {});
}

function options(select, names) {
  if (names.join() === [...select.options].map((option) => option.value).join()) return;
  const before = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(before)) select.value = before;
}

async function showTeaching() {
  const { models } = await ask("/api/v1/enrolment");
  byId("teach").hidden = !models.length;
  options(byId("teaching").elements.camera, [...cards.keys()]);
  options(byId("teaching").elements.model, models.map((model) => model.model));
  byId("classes").replaceChildren(...models.flatMap((model) => [
    ...(models.length > 1 ? [make("h3", "", model.model)] : []),
    make("ul", "classes", ...model.classes.map((one) => classLine(model.model, one))),
    ...(model.classes.length ? [] : [make("p", "soft", "No class yet: everything is unknown.")])]));
}

function classLine(model, one) {
  const forget = make("button", "", "Forget");
  forget.type = "button";
  forget.addEventListener("click", async () => {
    if (forget.textContent === "Forget") {  // a second press means it
      put(forget, "Really?");
      setTimeout(() => put(forget, "Forget"), 4000);
      return;
    }
    await acting(forget, async () => {
      await send("/api/v1/enrolment/forget", { model, label: one.label });
      tell("taught", `${one.label} is forgotten.`);
    });
  });
  const kind = one.people ? "person, " : "";
  return make("li", "", make("b", "", one.label), make("span", "soft", ` ${kind}${one.pictures} pictures `), forget);
}

async function teach(event) {
  event.preventDefault();
  const form = byId("teaching"), { camera, model, label } = form.elements;
  await acting(form.querySelector("button"), async () => {
    tell("taught", "Taking pictures: show it to the camera, and turn it a little.");
    const made = await send("/api/v1/enrolment/teach", { camera: camera.value, model: model.value, label: label.value });
    tell("taught", `${made.label}: ${made.pictures} pictures, accepted from a likeness of ${made.threshold}. More can follow.`);
  });
}

async function acting(button, act) {
  button.disabled = true;
  try {
    await act();
    await showTeaching();
  } catch (error) {
    tell("taught", error.message, true);
  }
  button.disabled = false;
}

byId("reload").addEventListener("click", reload);
byId("teaching").addEventListener("submit", teach);

// The loop

function trouble(text) {
  put(byId("trouble"), text);
  byId("trouble").hidden = !text;
}

async function update() {
  const state = await ask("/api/v1/state");
  put(byId("told"), `${state.version} · up ${span(state.uptime_s)}`);
  showCameras(state.cameras);
  showLatency(state.latency);
  showModels(state.models);
  showSinks(state.sinks);
  showReloads(state.reloads);
  showFacts("device", state.device);
  showFacts("settings", state.settings);
  if (asked === 0) await showTeaching();
  if (asked++ % EVENTS_EVERY === 0) await showEvents();
}

function restartPictures() {
  for (const card of cards.values()) card.show("");
  showPictures();
}

async function loop() {
  try {
    if (!document.hidden) await update();
    if (failedSince) restartPictures();
    failedSince = 0;
    trouble("");
  } catch (error) {
    failedSince ||= Date.now();
    trouble(`No answer for ${span((Date.now() - failedSince) / 1000)}; what stands here is old. (${error.message})`);
  }
  setTimeout(loop, EVERY_MS);
}

document.addEventListener("visibilitychange", showPictures);
loop();
