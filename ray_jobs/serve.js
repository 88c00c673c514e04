"use strict";
// Sends the dropped file as it is, and draws the answer. Names from outside only ever become text.
const drop = document.getElementById("drop");
const file = document.getElementById("file");
const status = document.getElementById("status");
const answer = document.getElementById("answer");
let asked = 0;

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function share([genre, probability]) {
  const bar = element("i");
  bar.style.width = `${100 * probability}%`;
  const row = element("div", "", element("span", genre), bar, element("span", percent(probability)));
  row.className = "share";
  return row;
}

function moment({ start, end, genres }) {
  const [genre, probability] = genres[0];
  const box = element("div", genre, element("small", `${clock(start)}-${clock(end)}, ${percent(probability)}`));
  box.style.flexGrow = Math.max(1, end - start);
  return box;
}

function show(tags) {
  const [best] = tags.genres[0];
  document.getElementById("genre").textContent = tags.genre === best ? best : `${tags.genre}, most like ${best}`;
  document.getElementById("song").textContent = `${tags.name}, ${clock(tags.seconds)}`;
  document.getElementById("genres").replaceChildren(...tags.genres.map(share));
  document.getElementById("timeline").replaceChildren(...tags.timeline.map(moment));
  answer.hidden = false;
}

function say(text, isError) {
  status.textContent = text;
  status.classList.toggle("error", isError);
}

async function ask(song) {
  const mine = ++asked;
  answer.hidden = true;
  say(`Listening to ${song.name} ...`, false);
  try {
    const headers = { "X-Song-Name": encodeURIComponent(song.name) };
    const response = await fetch("/tag", { method: "POST", body: song, headers });
    const found = await response.json().catch(() => ({ message: `the service answered ${response.status}` }));
    if (mine !== asked) return; // another song was dropped meanwhile
    if (response.ok) show(found);
    say(response.ok ? "" : `${song.name}: ${found.message}`, !response.ok);
  } catch {
    if (mine === asked) say(`${song.name}: the service did not answer; is it still running, is the file too large?`, true);
  }
}

file.addEventListener("change", () => file.files.length && ask(file.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
}
