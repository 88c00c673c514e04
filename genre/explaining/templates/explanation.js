"use strict";
// Play the music from where the map or a bar is clicked, and draw a line at the current position.
const audio = document.querySelector("audio");
const music = document.querySelector(".music");
const now = document.querySelector(".now");
const map = document.querySelector(".map");
const start = Number(music.dataset.start);
const seconds = Number(music.dataset.seconds);

function listen(second) {
  audio.currentTime = second;
  audio.play();
}

map.addEventListener("click", (event) => {
  const box = map.getBoundingClientRect();
  listen(start + ((event.clientX - box.left) / box.width) * seconds);
});
for (const button of document.querySelectorAll("button[data-at]")) {
  button.addEventListener("click", () => listen(Number(button.dataset.at)));
}

function show() {
  const share = (audio.currentTime - start) / seconds;
  now.hidden = share < 0 || share > 1;
  now.style.left = `${100 * share}%`;
}
audio.addEventListener("timeupdate", show);
audio.addEventListener("seeking", show);
