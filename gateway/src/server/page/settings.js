// What a person chose for this page, where it is kept, and the window in which it is chosen.

import { speak } from "./words.js";

const MOST_ROOMS = 16; // that a link may open at once

const $ = (id) => document.getElementById(id);

// A browser may refuse to keep anything: then it lasts as long as the page.
class Kept {
  #own = new Map();
  #store;
  constructor(store) {
    this.#store = store;
  }
  get(key) {
    try {
      return window[this.#store].getItem(key);
    } catch {
      return this.#own.get(key) ?? null;
    }
  }
  // A list of texts; what else may stand there is none.
  list(key) {
    try {
      return [JSON.parse(this.get(key))].flat().filter((one) => typeof one === "string");
    } catch {
      return [];
    }
  }
  set(key, value) {
    try {
      if (value) window[this.#store].setItem(key, value);
      else window[this.#store].removeItem(key);
    } catch {
      this.#own.set(key, value);
    }
  }
}

export const always = new Kept("localStorage"); // name and looks
export const thisTab = new Kept("sessionStorage"); // rooms and the token

function theme(wanted) {
  if (wanted) document.documentElement.dataset.theme = wanted;
  else delete document.documentElement.dataset.theme;
}

// `useToken` is called with one that was given.
export function settings(useToken) {
  const dialog = $("settings");
  for (const [id, apply] of [["language", speak], ["theme", theme]]) {
    $(id).value = always.get(id) ?? "";
    apply($(id).value);
    $(id).onchange = () => {
      always.set(id, $(id).value);
      apply($(id).value);
    };
  }
  $("settings-open").onclick = () => dialog.showModal();
  $("settings-close").onclick = () => dialog.close();
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside the window
  $("token-form").onsubmit = (event) => {
    event.preventDefault();
    const given = $("token").value.trim();
    $("token").value = "";
    dialog.close();
    if (given) useToken(given);
  };
}

// What the address says: the rooms, and a token, which must not stay there to be seen or copied.
export function address() {
  const said = new URLSearchParams(location.hash.slice(1));
  const token = said.get("token");
  if (said.has("token")) {
    said.delete("token");
    history.replaceState(null, "", location.pathname + location.search + (said.size ? `#${said}` : ""));
  }
  return { token, rooms: said.getAll("room").slice(0, MOST_ROOMS) };
}

export const linkTo = (room) => `${location.origin}${location.pathname}#room=${encodeURIComponent(room)}`;

// 59 random bits, in letters that are hard to mistake for one another.
export function newRoomId() {
  const letters = "23456789abcdefghjkmnpqrstuvwxyz";
  const picked = [];
  while (picked.length < 12) {
    const byte = crypto.getRandomValues(new Uint8Array(1))[0];
    if (byte < letters.length * 8) picked.push(letters[byte % letters.length]);
  }
  return picked.join("").replace(/(.{4})(?=.)/g, "$1-");
}

// The room in what was typed or pasted: an id, or a whole link.
export function roomIn(text) {
  const link = text.match(/[#&]room=([^&]+)/);
  try {
    return link ? decodeURIComponent(link[1]) : text.trim();
  } catch {
    return text.trim();
  }
}
