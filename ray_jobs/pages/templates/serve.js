"use strict";
// Send the dropped file unchanged and show the answer. Text from outside is only ever inserted as text.
const drop = document.getElementById("drop");
const file = document.getElementById("file");
const status = document.getElementById("status");
const answer = document.getElementById("answer");
let requests = 0;

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function element(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
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
  document.getElementById("genre").textContent = tags.genre === best ? best : `${tags.genre}; closest to ${best}`;
  document.getElementById("song").textContent = `${tags.name}, ${clock(tags.seconds)}`;
  document.getElementById("genres").replaceChildren(...tags.genres.map(share));
  document.getElementById("timeline").replaceChildren(...tags.timeline.map(moment));
  answer.hidden = false;
}

function report(text, isError) {
  status.textContent = text;
  status.classList.toggle("error", isError);
}

async function classify(song) {
  const request = ++requests;
  answer.hidden = true;
  report(`Classifying ${song.name} ...`, false);
  try {
    const headers = { "X-Song-Name": encodeURIComponent(song.name) };
    const response = await fetch("/tag", { method: "POST", body: song, headers });
    const result = await response.json().catch(() => ({ message: `the service returned status ${response.status}` }));
    if (request !== requests) return; // another song was dropped in the meantime
    if (response.ok) show(result);
    report(response.ok ? "" : `${song.name}: ${result.message}`, !response.ok);
  } catch {
    if (request === requests) report(`${song.name}: no answer; the service may have ended, or the file may be too large`, true);
  }
}

file.addEventListener("change", () => file.files.length && classify(file.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
}
