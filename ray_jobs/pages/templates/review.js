"use strict";
// The list, the player and the keys. Text from outside is only ever inserted as text.
const get = (id) => document.getElementById(id);
const player = get("player");
const other = get("other");
const fields = ["state", "genre", "below", "text"].map(get);
const SEEK = 15; // seconds
const KEYED = 10; // genres with a key: 1 to 9, and 0

let tracks = [];
let at = 0; // place of the current track in `tracks`
let page = {};
let genres = [];
let requests = 0;
let offered = ""; // a new genre that Enter would add
let queue = Promise.resolve(); // decisions, one after another: keys may be faster than the disk

const percent = (share) => `${Math.round(100 * share)} %`;
const number = (count) => count.toLocaleString("en");
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const current = () => tracks[at];
const isDoubted = (track) => track.label !== null && track.genre === null; // what a person decided is settled
const key = (place) => (place < KEYED ? String((place + 1) % 10) : "");

function element(tag, name, ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children.filter((child) => child !== null));
  return node;
}

function report(text, isError = false) {
  get("status").textContent = text;
  get("status").classList.toggle("error", isError);
}

async function ask(address, body) {
  const options = body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("no answer; the service has ended. Start it again: everything up to here is saved");
  }
  const content = await response.json().catch(() => ({ message: `the service returned status ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(content.message), { reason: content.reason });
  return content;
}

// ---- the list

async function load(start, focus = "first") {
  const request = ++requests;
  const query = new URLSearchParams({ start, state: get("state").value, genre: get("genre").value, text: get("text").value });
  if (get("below").value) query.set("below", Number(get("below").value) / 100);
  try {
    const answer = await ask(`/rows?${query}`);
    if (request !== requests) return; // the filter has changed in the meantime
    page = answer;
    tracks = answer.tracks;
    showProgress(answer);
    showList();
    select(focus === "last" ? tracks.length - 1 : 0);
  } catch (error) {
    report(error.message, true);
  }
}

function showProgress({ reviewed, total, genres: names }) {
  get("bar").max = total;
  get("bar").value = reviewed;
  get("count").textContent = `${number(reviewed)} of ${number(total)} reviewed`;
  if (names.join("\n") === genres.join("\n")) return;
  genres = names;
  const chosen = get("genre").value;
  get("genre").replaceChildren(new Option("any", ""), ...genres.map((name) => new Option(name)));
  get("genre").value = genres.includes(chosen) ? chosen : ""; // one that a person added and took back is gone
  get("names").replaceChildren(...genres.map((name) => new Option(name)));
}

function titleOf(track) {
  const name = track.name.split("/").pop();
  return track.title || name;
}

function line(track, place) {
  const folder = track.title ? track.name : track.name.split("/").slice(0, -1).join("/");
  const about = [track.artist, folder].filter(Boolean).join(" · ");
  const [best, share] = track.guesses[0];
  const bar = element("i");
  bar.style.width = `${100 * share}%`;
  const model = element("td", "model", element("span", track.answer === best ? "" : "unsure", best), " ", element("small", "", percent(share)), element("span", "bar", bar));
  if (track.answer !== best) model.title = `below its threshold, so the reported genre is ${track.answer}`;
  const row = element(
    "tr",
    "",
    element("th", "track", element("span", "", titleOf(track)), element("small", "", about)),
    element("td", isDoubted(track) ? "label doubted" : "label", track.label || track.own_genre),
    model,
    element("td", "you", track.genre || ""),
  );
  row.firstChild.scope = "row";
  row.tabIndex = -1;
  row.title = track.path;
  row.classList.toggle("done", track.genre !== null);
  row.classList.toggle("gone", track.state !== "");
  row.classList.toggle("changed", track.genre !== null && track.genre !== best);
  row.addEventListener("click", () => select(place));
  return row;
}

function showList() {
  get("tracks").replaceChildren(...tracks.map(line));
  get("empty").hidden = tracks.length > 0;
  get("range").textContent = tracks.length ? `${number(page.first + 1)}–${number(page.first + tracks.length)} of ${number(page.matching)}` : "none";
  get("previous").disabled = page.previous === null;
  get("next").disabled = page.next === null;
}

function redraw(place) {
  const row = line(tracks[place], place);
  if (place === at) row.ariaCurrent = "true";
  get("tracks").children[place].replaceWith(row);
  return row;
}

// ---- the current track

function select(place) {
  const wasPlaying = !player.paused || player.ended;
  const before = get("tracks").querySelector("[aria-current]");
  if (before) before.ariaCurrent = null;
  at = Math.max(0, Math.min(place, tracks.length - 1));
  const track = current();
  showDesk(track);
  if (!track) {
    player.removeAttribute("src");
    return;
  }
  const row = get("tracks").children[at];
  row.ariaCurrent = "true";
  if (document.activeElement === document.body || get("box").contains(document.activeElement)) row.focus({ preventScroll: true });
  reveal(row);
  const source = `/audio/${track.row}`;
  if (player.getAttribute("src") === source) return;
  if (track.state) {
    player.removeAttribute("src");
    player.load();
    return;
  }
  player.src = source;
  if (wasPlaying) play();
}

// On a phone the desk covers the lower part of the window.
function reveal(row) {
  const box = row.getBoundingClientRect();
  const desk = document.querySelector(".desk").getBoundingClientRect();
  const bottom = desk.top > box.height && desk.left <= box.left ? desk.top : window.innerHeight;
  if (box.top < 0) window.scrollBy(0, box.top - 60);
  else if (box.bottom > bottom) window.scrollBy(0, box.bottom - bottom + 8);
}

const STATES = {
  "": "",
  gone: "The file is gone or cannot be read.",
  no_audio: "This is not an audio file.",
};

function hintOf(track) {
  const [best, share] = track.guesses[0];
  if (track.state) return STATES[track.state];
  if (isDoubted(track)) return `Labelled ${track.label}; worth a listen: the model hears ${best} (${percent(share)}).`;
  return track.own_genre ? `The file says ${track.own_genre}.` : "";
}

function showDesk(track) {
  get("title").textContent = track ? titleOf(track) : "No track";
  get("by").textContent = track ? [track.artist, track.title ? track.name : "", clock(track.seconds)].filter(Boolean).join(" · ") : "";
  get("by").title = track ? track.path : "";
  get("accept").disabled = !track;
  get("accept").textContent = track ? `Accept ${track.guesses[0][0]}` : "Accept";
  get("hint").textContent = track ? hintOf(track) : "";
  get("hint").classList.toggle("error", Boolean(track && track.state));
  get("genres").replaceChildren(...(track ? genres.map((name, place) => choice(track, name, place)) : []));
}

function choice(track, name, place) {
  const share = Object.fromEntries(track.guesses)[name];
  const label = key(place) ? element("kbd", "", key(place)) : null;
  const button = element("button", "", label, element("span", "name", name), share >= 0.01 ? element("small", "", percent(share)) : null);
  button.type = "button";
  button.style.setProperty("--share", `${100 * (share || 0)}%`);
  button.ariaPressed = String(track.genre === name);
  if (key(place)) button.ariaKeyShortcuts = key(place);
  button.addEventListener("click", () => decide(() => name));
  return button;
}

function play() {
  player.play().catch((error) => {
    if (error.name !== "AbortError") report("Press Space to play.");
  });
}

player.addEventListener("error", () => {
  if (!player.getAttribute("src")) return;
  const suffix = current().path.split(".").pop();
  report(`This browser cannot play ${titleOf(current())}; it may not know the format .${suffix}`, true);
});

// ---- decisions

function then(action) {
  queue = queue.then(action).catch((error) => report(error.message, true));
  return queue;
}

function decide(choose, isNew = false) {
  return then(async () => {
    const track = current();
    if (!track) return;
    const genre = choose(track);
    const answer = await ask("/decide", { row: track.row, genre, is_new: isNew });
    track.genre = answer.genre;
    showProgress(answer);
    redraw(at);
    report(`${titleOf(track)}: ${answer.genre}. Saved.`);
    await move(1);
  });
}

const accept = () => decide((track) => track.guesses[0][0]);

function undo() {
  return then(async () => {
    const answer = await ask("/undo", {});
    showProgress(answer);
    const place = tracks.findIndex((track) => track.row === answer.row);
    if (place < 0) {
      await load(answer.row);
    } else {
      tracks[place].genre = answer.genre;
      redraw(place);
      select(place);
    }
    report(answer.genre ? `Undone: ${answer.genre} again.` : "Undone: not reviewed.");
  });
}

async function move(step) {
  const place = at + step;
  if (place >= 0 && place < tracks.length) select(place);
  else if (step > 0 && page.next !== null) await load(page.next);
  else if (step < 0 && page.previous !== null) await load(page.previous, "last");
  else {
    redraw(at);
    select(at);
    if (step > 0) get("status").textContent += " This was the last track of the list.";
  }
}

// ---- typing another genre

function leave() {
  offered = "";
  other.value = "";
  document.activeElement.blur();
  if (current()) get("tracks").children[at].focus({ preventScroll: true });
}

async function nameIt() {
  const name = other.value.trim();
  if (!name) return;
  const isNew = name === offered;
  await then(async () => {
    const track = current();
    if (!track) return;
    try {
      const answer = await ask("/decide", { row: track.row, genre: name, is_new: isNew });
      track.genre = answer.genre;
      showProgress(answer);
      redraw(at);
      leave();
      report(`${titleOf(track)}: ${answer.genre}. Saved.`);
      await move(1);
    } catch (error) {
      if (error.reason !== "new_genre") throw error;
      offered = name;
      report(`${name} is a new genre. Enter again adds it, Esc does not.`, true);
    }
  });
}

get("naming").addEventListener("submit", (event) => {
  event.preventDefault();
  nameIt();
});

// ---- keys and buttons

const ACTIONS = {
  Enter: accept,
  " ": () => (player.paused ? play() : player.pause()),
  ArrowDown: () => then(() => move(1)),
  ArrowUp: () => then(() => move(-1)),
  ArrowRight: () => (player.currentTime += SEEK),
  ArrowLeft: () => (player.currentTime = Math.max(0, player.currentTime - SEEK)),
  n: () => get("next").click(),
  p: () => get("previous").click(),
  u: undo,
  g: () => other.focus(),
  "/": () => get("text").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key === "z" && !event.target.matches("input")) {
    event.preventDefault();
    undo();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target !== other)) {
      event.preventDefault();
      if (event.target === other) leave();
      else event.target.blur();
      if (current()) get("tracks").children[at].focus({ preventScroll: true });
    }
    return;
  }
  if (event.target.matches("button, audio") && (event.key === "Enter" || event.key === " ")) return;
  const place = "1234567890".indexOf(event.key);
  const action = place >= 0 ? genres[place] && (() => decide(() => genres[place])) : ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || event.repeat && event.key === "Enter") return;
  event.preventDefault();
  action();
});

get("accept").addEventListener("click", accept);
get("undo").addEventListener("click", undo);
get("next").addEventListener("click", () => page.next !== null && load(page.next));
get("previous").addEventListener("click", () => page.previous !== null && load(page.previous));
get("filter").addEventListener("submit", (event) => event.preventDefault());
let typing;
for (const field of fields) {
  field.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => load(0), field.tagName === "SELECT" ? 0 : 200);
  });
}
load(0);
