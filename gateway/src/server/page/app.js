// The page: who you are, where you are connected, and which rooms are in front. It speaks through the client library,
// as any other page could; each room is a RoomView.

import { Roomcast } from "/roomcast.js";
import { RoomView } from "./rooms.js";
import { element, textOf } from "./log.js";
import { address, always, linkTo, newRoomId, roomIn, settings, thisTab } from "./settings.js";
import { Call, videoOf } from "./video.js";
import { say, tell } from "./words.js";

const $ = (id) => document.getElementById(id);
const wide = matchMedia("(min-width: 761px)"); // on a phone, focus would bring up the keyboard unasked
const COLUMN = 380; // px that a room needs to stand beside another
const COPIED = 5000; // ms that it is said
const ROOM_ID = /^[A-Za-z0-9_.~-]{1,128}$/;

const rooms = new Map(); // room id -> RoomView, in the order of the list
let recent = []; // the same, last used first
let current = null;
let client;
let countdown;
let video = null; // what the node says of video calls
const mine = new Set(thisTab.list("mine")); // the client ids this tab has had, also before a reload

// What a room needs of the page.
const app = {
  get client() { return client; },
  get name() { return client.name ?? $("name").placeholder; },
  me: undefined, // this page's client id, the last if there is no connection
  node: undefined, // the node that serves it, likewise
  moved: false, // whether that is another than before
  isMine: (id) => mine.has(id),
  leave(view) {
    view.close();
    forget(view);
  },
  touched: (view) => view === current || front(view, false),
  heard,
  announce,
  copy: (view) => copy(linkTo(view.id)),
  nameTaken(view) {
    nameProblem("nameTakenHere", { room: view.id, name: app.name });
    if (view === current) $("name").focus();
  },
};

// ---- the connection

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const name = $("name").value.trim() || undefined;
  const made = new Roomcast(`${scheme}//${location.host}/connect`, { token: thisTab.get("token") ?? undefined });
  if (name) made.rename(name); // one that cannot be is left out
  client = made;
  made.on("status", (now) => made === client && status(now));
  made.on("error", () => {}); // told by status, or by the room it happened in
}

// With another token, or under another name after the server closed for good: the same rooms through a new client.
function connectAnew() {
  const old = client;
  connect();
  old.close();
  for (const view of rooms.values()) view.enter();
}

const STOPPED = { 4401: "stopped4401", 4403: "stopped4403", 4409: "stopped4409" };

const states = {
  connecting() {
    if (app.node === undefined) tell($("status-text"), "connecting");
  },
  open({ nodeId, clientId, name }) {
    tell($("status-text"), "connected", { node: nodeId });
    $("name").placeholder = name;
    // The name in force, which may be the token's. Not while another is being typed.
    if ($("name").value && document.activeElement !== $("name") && !$("name").ariaInvalid) $("name").value = name;
    app.moved = app.node !== undefined && app.node !== nodeId;
    if (app.node !== undefined) announce(say(app.moved ? "connectedOther" : "connected", { node: nodeId }));
    $("status").classList.toggle("moved", app.moved);
    Object.assign(app, { node: nodeId, me: clientId });
    mine.add(clientId);
    thisTab.set("mine", JSON.stringify([...mine].slice(-20)));
    notice();
  },
  waiting({ code, retryInMs, nodeId, attempt }) {
    if (code === 4429) notice("tooMany");
    else if (nodeId === undefined && attempt > 1) hintAtToken();
    if (app.node !== undefined) announce(say("lost"));
    for (const view of rooms.values()) view.away();
    if (code === 1012) return tell($("status-text"), "moving");
    const end = Date.now() + retryInMs;
    const show = () => tell($("status-text"), "waiting", { count: Math.max(1, Math.ceil((end - Date.now()) / 1000)) });
    show();
    countdown = setInterval(show, 1000);
  },
  closed({ code, reason }) {
    const named = code === 4409 && reason === "the name was taken by another"; // else an operator's words
    const key = named ? "stoppedName" : STOPPED[code] ?? "stopped";
    tell($("status-text"), "stopped", { code });
    notice(key, { code, reason: reason || String(code) });
    if (code === 4401) openToken();
    if (named) $("name").focus();
  },
};

// A browser does not tell a page why a socket was refused. If the node answers otherwise, it is worth saying what it may be.
async function hintAtToken() {
  const there = await fetch("/", { method: "HEAD", cache: "no-store" }).then(({ ok }) => ok, () => false);
  if (there && client.status.state !== "open") notice("notLetIn");
}

function status(now) {
  clearInterval(countdown);
  $("status").dataset.state = { open: "open", closed: "stopped" }[now.state] ?? "waiting";
  $("retry").hidden = !["waiting", "closed"].includes(now.state);
  states[now.state](now);
}

// ---- rooms

const fits = () => ($("columns").ariaPressed === "true" ? Math.max(1, Math.floor($("rooms").clientWidth / COLUMN)) : 1);

// Nobody sees what is said in a room that is behind, or on a page that is.
const seen = (view) => !document.hidden && visible().includes(view);

function visible() {
  const shown = new Set(recent.slice(0, fits()));
  return [...rooms.values()].filter((view) => shown.has(view));
}

function enter(id) {
  notice();
  if (!ROOM_ID.test(id)) return notice("badRoom", { room: id.length > 60 ? `${id.slice(0, 60)}…` : id });
  let view = rooms.get(id);
  if (!view) {
    view = new RoomView(app, id);
    view.tab = tabOf(view);
    rooms.set(id, view);
    $("rooms").append(view.root);
    $("tabs").append(view.tab.item);
    if (video) view.call = new Call(video, view);
  }
  front(view);
  return view;
}

function front(view, focus = true) {
  current = view;
  recent = view ? [view, ...recent.filter((other) => other !== view)] : recent;
  thisTab.set("rooms", JSON.stringify([...rooms.keys()]));
  const hash = view ? `#room=${encodeURIComponent(view.id)}` : "";
  if (location.hash !== hash) history.replaceState(null, "", location.pathname + location.search + hash);
  arrange();
  view?.tab.item.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (view && focus && wide.matches && !$("settings").open) view.focusable.focus();
}

function arrange() {
  $("welcome").hidden = rooms.size > 0;
  $("rooms").hidden = rooms.size === 0;
  const shown = visible();
  $("rooms").classList.toggle("several", shown.length > 1);
  for (const view of rooms.values()) {
    view.show(shown.includes(view), view === current);
    if (seen(view)) view.unread = 0;
  }
  $("columns").hidden = rooms.size < 2 || $("rooms").clientWidth < 2 * COLUMN;
  list();
}

function forget(view) {
  rooms.delete(view.id);
  recent = recent.filter((other) => other !== view);
  view.root.remove();
  view.tab.item.remove();
  front(recent[0] ?? null);
  if (!recent.length) $("join-room").focus();
}

// A room's place in the list. It is there as long as the room, so that a message does not take it from under the pointer.
function tabOf(view) {
  const [item, button, badge] = [element("li"), element("button"), element("span", "badge")];
  Object.assign(button, { type: "button", title: view.id, onclick: () => front(view) });
  button.append(element("span", "label", view.id));
  item.append(button);
  return { item, button, badge };
}

function list() {
  const shown = visible();
  $("tabs").hidden = rooms.size === 0;
  for (const view of rooms.values()) {
    const { button, badge } = view.tab;
    button.classList.toggle("beside", shown.includes(view));
    button.tabIndex = view === current ? 0 : -1;
    button.ariaCurrent = view === current ? "true" : null;
    if (view.unread) tell(badge, "unread", { count: view.unread });
    if (view.unread && !badge.isConnected) button.append(badge);
    if (!view.unread) badge.remove();
  }
  if ($("tabs").contains(document.activeElement)) inList();
  const unread = [...rooms.values()].reduce((sum, view) => sum + view.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${current ? `${current.id} · ` : ""}Roomcast`;
}

// Where the focus belongs when it has no other place.
const home = () => (current?.focusable ?? $("join-room")).focus();
const inList = () => $("tabs").querySelector("[aria-current]")?.focus();

function step(by) {
  const all = [...rooms.values()];
  if (!all.length) return;
  const at = Number.isFinite(by) ? (all.indexOf(current) + by + all.length) % all.length : by < 0 ? 0 : all.length - 1;
  const listed = $("tabs").contains(document.activeElement);
  front(all[at], !listed);
}

// ---- what is said on the page's own behalf

let fading;
function notice(key, values, good = false) {
  clearTimeout(fading);
  $("notice").hidden = !key;
  $("notice").classList.toggle("good", good);
  if (key) tell($("notice-text"), key, values);
  if (key === "copied") fading = setTimeout(notice, COPIED);
}

// For those who listen: one sentence at a time, and none for what they did themselves.
function announce(text) {
  $("announcer").textContent = text;
}

let burst = []; // messages of others that came within a moment
function heard(view, message) {
  if (!seen(view)) {
    view.unread += 1;
    list();
  }
  if (!burst.length) setTimeout(readOut, 700);
  burst.push([view, message]);
}

function readOut() {
  const here = burst.filter(([view]) => view === current);
  const [view, message] = burst[0];
  if (burst.length > 3 || (burst.length > 1 && !here.length)) announce(say("newMessages", { count: burst.length }));
  else if (here.length) announce(here.map(([, { from, data }]) => say("heard", { name: from.name, text: textOf(data).slice(0, 300) })).join(". "));
  else announce(say("heardIn", { room: view.id, name: message.from.name }));
  burst = [];
}

function copy(link) {
  const copied = navigator.clipboard?.writeText(link) ?? Promise.reject(); // not there on plain http
  copied.then(() => notice("copied", {}, true), () => notice("copyByHand", { link }, true));
}

function openToken() {
  if (!$("settings").open) $("settings").showModal();
  $("token").focus();
}

// ---- the name

function nameProblem(key, values) {
  $("name-problem").hidden = !key;
  $("name").ariaInvalid = key ? "true" : null;
  if (key) {
    tell($("name-problem"), key, values);
    $("name").setAttribute("aria-describedby", "name-problem");
  } else $("name").removeAttribute("aria-describedby");
}

function asItWas() {
  $("name").value = always.get("name") ?? "";
  nameProblem();
}

async function rename() {
  const name = $("name").value.trim();
  if (!name) return asItWas();
  const own = app.name;
  try {
    await client.rename(name);
    if (client.status.state === "closed") connectAnew(); // which takes the name from the field
  } catch (error) {
    nameProblem({ name_taken: "nameTaken", forbidden: "nameFixed", rate_limited: "nameFast", bad_name: "nameBad" }[error.code] ?? "nameOther", { name, own });
    return setTimeout(() => $("name").focus()); // after whatever else the key that was pressed does
  }
  nameProblem();
  always.set("name", name);
  for (const view of rooms.values()) if (view.outside) view.enter(); // where the old one was taken
}

// ---- what a person does

$("join-form").onsubmit = (event) => {
  event.preventDefault();
  const id = roomIn($("join-room").value);
  if (id && enter(id)) $("join-room").value = "";
};
$("create").onclick = $("create-first").onclick = () => enter(newRoomId());
$("columns").onclick = () => {
  $("columns").ariaPressed = String($("columns").ariaPressed !== "true");
  always.set("columns", $("columns").ariaPressed === "true" ? "" : "off");
  arrange();
};
$("name").onchange = rename;
$("name-form").onsubmit = (event) => {
  event.preventDefault();
  home(); // leaving the field is what changes the name
};
$("retry").onclick = () => client.connect();
$("notice-close").onclick = () => {
  notice();
  if (wide.matches) home();
};
$("skip").onclick = (event) => {
  event.preventDefault();
  home();
};
$("tabs").onkeydown = (event) => {
  const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
  if (!by || event.altKey) return;
  event.preventDefault();
  step(by);
};
document.addEventListener("keydown", (event) => {
  if (event.isComposing || $("settings").open) return;
  if (event.altKey && ["ArrowUp", "ArrowDown"].includes(event.key)) {
    event.preventDefault();
    step(event.key === "ArrowUp" ? -1 : 1);
  } else if (event.key === "/" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("settings").showModal();
  } else if (event.key === "Escape") {
    if (document.activeElement === $("name")) asItWas();
    if (document.activeElement === current?.focusable) inList();
    else home();
  }
});
addEventListener("hashchange", () => {
  const said = address();
  if (said.token) useToken(said.token);
  said.rooms.forEach((id) => enter(id));
});
document.addEventListener("visibilitychange", () => !document.hidden && arrange());
new ResizeObserver(arrange).observe($("rooms"));

function useToken(token) {
  thisTab.set("token", token);
  notice();
  connectAnew();
}

// ---- the beginning

const said = address();
if (said.token) thisTab.set("token", said.token);
$("name").value = always.get("name") ?? "";
$("columns").ariaPressed = String(always.get("columns") !== "off");
settings(useToken);
connect();
for (const id of [...thisTab.list("rooms"), ...said.rooms]) enter(id);
if (said.rooms.length) front(rooms.get(said.rooms.at(-1)) ?? current);
video = await videoOf();
if (video) for (const view of rooms.values()) view.call = new Call(video, view);
