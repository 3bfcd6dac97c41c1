// The playground's page. Everything that comes from a catalogue is set as text, never as HTML.
"use strict";

const SHOWN_MATCHES = 20;
// Milliseconds without an answer after which the page says that it waits.
const PATIENCE = 300;
const byId = (id) => document.getElementById(id);
const state = { models: [], history: [], titles: new Map(), matches: [], active: -1, open: new Set() };

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function say(text, fault = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("fault", fault);
}

// One request of a kind at a time: a newer one makes the older one void.
const running = {};
async function call(kind, url, body) {
  running[kind]?.abort();
  const control = (running[kind] = new AbortController());
  const options = { signal: control.signal };
  if (body) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  try {
    const answer = await fetch(url, options);
    const tree = await answer.json();
    if (!answer.ok) throw new Error([tree.error, tree.hint].filter(Boolean).join(". "));
    return tree;
  } catch (error) {
    if (error.name === "AbortError") return null;
    say(error instanceof TypeError ? "The server does not answer." : error.message, true);
    return null;
  }
}

// --- search ---

async function search() {
  const text = byId("search").value;
  const parameters = new URLSearchParams({ q: text, limit: SHOWN_MATCHES });
  const answer = await call("search", `api/search?${parameters}`);
  if (!answer) return;
  state.matches = answer.items;
  state.active = text && answer.items.length ? 0 : -1;
  const more = answer.count - answer.items.length;
  byId("count").textContent = answer.count
    ? `${answer.count.toLocaleString("en")} ${answer.count === 1 ? "item" : "items"}` +
      (more > 0 ? `, the ${answer.items.length} most popular shown` : "")
    : "No title holds all of these words.";
  showMatches();
}

function showMatches() {
  byId("matches").replaceChildren(
    ...state.matches.map((match, place) =>
      element("li", { id: `match-${place}`, role: "option", "aria-selected": place === state.active },
        match.title || match.item_id, " ", element("span", { className: "id" }, match.item_id)))
  );
  const open = document.activeElement === byId("search");
  byId("found").hidden = !open;
  byId("search").setAttribute("aria-expanded", String(open));
  if (state.active < 0) byId("search").removeAttribute("aria-activedescendant");
  else {
    byId("search").setAttribute("aria-activedescendant", `match-${state.active}`);
    byId(`match-${state.active}`).scrollIntoView({ block: "nearest" });
  }
}

function closeMatches() {
  byId("found").hidden = true;
  byId("search").setAttribute("aria-expanded", "false");
  byId("search").removeAttribute("aria-activedescendant");
}

function searchKey(event) {
  const count = state.matches.length;
  if ((event.key === "ArrowDown" || event.key === "ArrowUp") && count) {
    const step = event.key === "ArrowDown" ? 1 : -1;
    state.active = state.active < 0 && step < 0 ? count - 1 : (state.active + step + count) % count;
    showMatches();
    event.preventDefault();
  } else if (event.key === "Enter" && state.active >= 0 && !byId("found").hidden) {
    add(state.matches[state.active].item_id, state.matches[state.active].title);
    event.preventDefault();
  } else if (event.key === "Escape") {
    closeMatches();
  }
}

// --- history ---

function add(item, title) {
  state.titles.set(item, title);
  state.history.push(item);
  byId("search").value = "";
  closeMatches();
  state.matches = [];
  changed();
}

function remove(place) {
  state.history.splice(place, 1);
  changed();
  const buttons = byId("history").querySelectorAll("button");
  (buttons[Math.min(place, buttons.length - 1)] ?? byId("search")).focus();
}

function showHistory() {
  byId("history").replaceChildren(
    ...state.history.map((item, place) => {
      const title = state.titles.get(item) || item;
      return element("li", {},
        element("span", { className: "title" }, title, " ", element("span", { className: "id" }, item)),
        element("button", {
          type: "button", className: "plain", "aria-label": `Remove ${title}`, textContent: "✕",
          onclick: () => remove(place),
        }));
    })
  );
  byId("clear").hidden = byId("empty").hidden = state.history.length > 0;
  byId("clear").hidden = !state.history.length;
}

// --- lists ---

function question() {
  const asked = {
    history: state.history,
    k: Number(byId("k").value),
    exclude_history: byId("exclude").checked,
    rank: byId("rank").checked,
  };
  const candidates = byId("candidates").value.split(/[,\n]/).map((id) => id.trim()).filter(Boolean);
  if (candidates.length) asked.candidates = candidates;
  return asked;
}

function changed() {
  const parameters = new URLSearchParams(state.history.map((item) => ["item", item]));
  history.replaceState(null, "", state.history.length ? `#${parameters}` : location.pathname);
  state.open.clear();
  showHistory();
  update();
}

async function update() {
  if (!state.history.length) {
    running.recommend?.abort();
    byId("lists").replaceChildren(element("p", { className: "hint" },
      "Add an item to the history, and the recommendations appear here."));
    say("");
    return;
  }
  const start = performance.now();
  const asked = question();
  const waiting = setTimeout(() => say("Ranking …"), PATIENCE);
  const answer = await call("recommend", "api/recommend", asked);
  clearTimeout(waiting);
  if (!answer) return;
  for (const { item_id, title } of answer.history) state.titles.set(item_id, title ?? "");
  showHistory();
  const places = answer.lists.map((list) => new Map((list.items ?? []).map((item, at) => [item.item_id, at + 1])));
  byId("lists").replaceChildren(...answer.lists.map((list, model) => card(list, model, places, asked)));
  const counts = answer.lists.map((list) => (list.items ?? []).length).join(" and ");
  say(`${counts} items in ${Math.round(performance.now() - start)} ms`);
}

function card(list, model, places, asked) {
  const { name } = state.models[model];
  const made = element("section", { className: "card", "aria-label": `List of ${name}` },
    element("h2", {}, name));
  if (list.error) made.append(element("p", { className: "fault" }, [list.error, list.hint].filter(Boolean).join(". ")));
  if (list.unknown) made.append(element("p", { className: "hint" }, `Passed over, not in this model's catalogue: ${list.unknown.join(", ")}`));
  if (list.unknown_candidates) made.append(element("p", { className: "hint" }, `Candidates that it does not have: ${list.unknown_candidates.join(", ")}`));
  if (list.items && !list.items.length) made.append(element("p", { className: "hint" }, "No items."));
  made.append(element("ol", {}, ...(list.items ?? []).map((item, at) => row(item, at + 1, model, places, asked))));
  return made;
}

function row(item, place, model, places, asked) {
  const title = item.title || item.item_id;
  const key = `${model}/${item.item_id}`;
  const path = element("div", { className: "path", id: `path-${model}-${place}`, hidden: true });
  const why = element("button", {
    type: "button", className: "why", "aria-expanded": "false", "aria-controls": path.id,
    "aria-label": `Why ${title}?`, textContent: "Why?",
    onclick: () => toggle(why, path, key, model, item, asked),
  });
  const name = element("button", {
    type: "button", className: "item", title: "Add to the history",
    onclick: () => add(item.item_id, item.title),
  }, title);
  if (asked.history.includes(item.item_id)) name.classList.add("in-history");
  const more = element("span", { className: "more" },
    element("span", { className: "id" }, `${item.item_id} · ${item.sid}`),
    ...(item.sources ?? []).map((source) => element("span", { className: "source" }, source.replace("_", "-"))));
  const other = places[1 - model]?.get(item.item_id);
  // The same place is no news.
  if (places.length > 1 && other !== place) more.append(elsewhere(other));
  if (state.open.has(key)) toggle(why, path, key, model, item, asked);
  return element("li", {},
    element("div", { className: "row" },
      element("span", { className: "place" }, String(place)),
      name,
      element("span", { className: "score", title: "Score" }, item.score.toFixed(2)),
      more,
      why),
    path);
}

function elsewhere(other) {
  const text = other === undefined ? "not in the other list" : `place ${other} in the other list`;
  return element("span", { className: "elsewhere" }, text);
}

// --- the path of SID tokens ---

async function toggle(why, path, key, model, item, asked) {
  const open = path.hidden;
  path.hidden = !open;
  why.setAttribute("aria-expanded", String(open));
  if (!open) {
    state.open.delete(key);
    return;
  }
  state.open.add(key);
  path.replaceChildren(element("p", {}, "Asking the model …"));
  const { k, ...rest } = asked;
  const found = await call(`path ${key}`, "api/path", { ...rest, model, item_id: item.item_id });
  if (!found) {
    path.replaceChildren();
    return;
  }
  path.replaceChildren(
    element("p", {}, `The model gives this item's SID a log-probability of ${found.log_probability.toFixed(2)}.` +
      " Its tokens, and the most probable of those that could have stood in their place:"),
    ...found.steps.flatMap(stepOf));
}

function stepOf(step, at) {
  const chosen = { token: step.token, log_probability: step.log_probability };
  const branches = step.best.some((branch) => branch.token === step.token) ? step.best : [...step.best, chosen];
  return [
    element("h3", {}, `${at + 1}. `, element("code", {}, step.token), ` ${verdict(step)}`),
    ...branches.map((branch) => bar(branch, branch.token === step.token, branches[0].log_probability)),
  ];
}

function verdict(step) {
  if (step.allowed === 1) return "the only branch";
  const rest = step.best.filter((branch) => branch.token !== step.token);
  const ratio = Math.exp(Math.abs(step.log_probability - rest[0].log_probability));
  const times = `×${ratio < 100 ? ratio.toFixed(1) : Math.round(ratio).toLocaleString("en")}`;
  return step.place === 1
    ? `won among ${step.allowed}, ${times} ahead of ${rest[0].token}`
    : `place ${step.place} of ${step.allowed}, ${times} behind ${rest[0].token}`;
}

// Bars are relative to the most probable branch.
function bar(branch, chosen, best) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const share = Math.exp(branch.log_probability - best);
  for (const [name, value] of Object.entries({ class: "bar", width: `${100 * share}%`, height: "100%" })) rect.setAttribute(name, value);
  svg.append(rect);
  return element("div", { className: chosen ? "branch chosen" : "branch" },
    element("code", {}, branch.token), svg, element("span", {}, percent(branch.log_probability)));
}

function percent(logProbability) {
  const share = 100 * Math.exp(logProbability);
  if (share >= 0.01) return `${share.toPrecision(share >= 10 ? 3 : 2)}%`;
  return share > 0 ? `${share.toExponential(1)}%` : "0%";
}

// --- start ---

async function start() {
  state.models = (await call("models", "api/models")) ?? [];
  byId("models").textContent = state.models
    .map((model) => `${model.name}: ${model.items.toLocaleString("en")} items`).join(" · ");
  byId("rank-label").hidden = !state.models.some((model) => model.sources.length);
  state.history = new URLSearchParams(location.hash.slice(1)).getAll("item");
  changed();
}

const input = byId("search");
input.addEventListener("input", search);
input.addEventListener("focus", search);
input.addEventListener("keydown", searchKey);
input.addEventListener("blur", closeMatches);
byId("matches").addEventListener("mousedown", (event) => {
  const place = [...byId("matches").children].indexOf(event.target.closest("li"));
  event.preventDefault();
  if (place >= 0) add(state.matches[place].item_id, state.matches[place].title);
});
byId("clear").addEventListener("click", () => { state.history = []; changed(); input.focus(); });
for (const id of ["k", "exclude", "rank", "candidates"]) byId(id).addEventListener("input", update);
byId("take").addEventListener("click", () => {
  const ids = state.matches.map((match) => match.item_id);
  const before = byId("candidates").value.split(/[,\n]/).map((id) => id.trim()).filter(Boolean);
  byId("candidates").value = [...new Set([...before, ...ids])].join(", ");
  update();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    input.focus();
  }
});
start();
