// A plain client of the wire protocol, version 1. One socket, many rooms. Whatever comes from others is shown as text.

const $ = (id) => document.getElementById(id);
const rooms = new Map(); // room id -> what is known of it, see roomOf
const mine = new Set(); // the client ids this page has had
const requests = new Map(); // ref -> what to do when it is refused
let socket = null;
let current = null;
let attempts = 0;
let comeBackAfter = null; // ms, as the node asked in `reconnect`
let timer = null;
let heard = 0;
let counter = 0;

const wide = matchMedia("(min-width: 761px)"); // on a phone, focus would bring up the keyboard unasked
const LOG_LIMIT = 500; // lines kept on the page per room
const STOP_CODES = [1002, 1003, 1007, 4401, 4403, 4409]; // coming back unchanged would not help

function roomOf(id) {
  const known = rooms.get(id) ?? {
    ...{ id, term: null, seq: 0, online: 0, unread: 0, draft: "", joined: false, asked: 0 },
    members: new Map(),
    pending: new Map(), // message id -> publish frame that has no ack yet
    lines: document.createDocumentFragment(), // while another room is in front
  };
  rooms.set(id, known);
  return known;
}

// ---- the socket

function connect() {
  clearTimeout(timer);
  timer = null;
  comeBackAfter = null;
  status("waiting", "Connecting");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const name = $("name").value.trim();
  const url = `${scheme}//${location.host}/connect${name ? `?name=${encodeURIComponent(name)}` : ""}`;
  const opened = new WebSocket(url, "roomcast.v1.json");
  socket = opened;
  opened.onmessage = (event) => {
    if (socket !== opened) return;
    heard = Date.now();
    const frame = JSON.parse(event.data);
    receive[frame.type]?.(frame);
    if (frame.ref !== undefined) requests.delete(frame.ref);
  };
  opened.onclose = (event) => socket === opened && lost(event);
}

function lost({ code }) {
  socket = null;
  requests.clear();
  for (const room of rooms.values()) room.joined = false;
  $("retry").hidden = false;
  if (STOP_CODES.includes(code)) return status("stopped", `Disconnected by the server (code ${code})`);
  const patience = code === 1008 || code === 1013 ? 5000 : 500;
  const backoff = Math.min(30_000, patience * 2 ** attempts++) * (0.5 + Math.random());
  const delay = comeBackAfter ?? backoff;
  status("waiting", `Connection lost, trying again in ${Math.max(1, Math.round(delay / 1000))} s`);
  timer = setTimeout(connect, delay);
}

function send(frame, refused) {
  if (socket?.readyState !== WebSocket.OPEN) return notice("Not connected.");
  const ref = ++counter;
  if (refused) requests.set(ref, refused);
  socket.send(JSON.stringify({ ...frame, ref }));
}

// A browser cannot see the node's pings, so silence is found by asking.
setInterval(() => {
  if (socket?.readyState !== WebSocket.OPEN) return;
  const silence = Date.now() - heard;
  if (silence > 40_000) {
    const dead = socket;
    lost({ code: 1006 });
    dead.close();
  } else if (silence > 20_000) socket.send('{"type":"ping"}');
}, 5000);

// ---- what the node says

const receive = {
  welcome(frame) {
    attempts = 0;
    mine.add(frame.clientId);
    $("retry").hidden = true;
    if (!$("name").value) $("name").placeholder = frame.name;
    status("open", `Connected to ${frame.nodeId}`);
    notice("");
    for (const room of rooms.values()) join(room.id);
  },
  joined(frame) {
    const room = roomOf(frame.room);
    room.joined = true;
    if (frame.recovery === "gap") system(room, "Some messages are missing here: the room no longer keeps them.");
    if (["diverged", "unknown_term"].includes(frame.recovery)) startOver(room);
    for (const message of frame.messages) receive.message(message);
    // When resumed, what was missed may still follow: only what arrived moves the position.
    if (frame.recovery !== "resumed") Object.assign(room, { term: frame.term, seq: frame.seq ?? 0 });
    room.online = frame.online;
    setMembers(room, frame.members);
    for (const publish of room.pending.values()) say(room, publish);
    if (frame.ref === joinRef || !current) show(room);
  },
  message(frame) {
    const room = rooms.get(frame.room);
    if (!room) return;
    if (frame.seq !== undefined) {
      if (frame.term === room.term && frame.seq <= room.seq) return; // seen before the connection was lost
      Object.assign(room, { term: frame.term, seq: frame.seq });
    }
    room.pending.delete(frame.id);
    const own = mine.has(frame.from.id);
    if (!own && (room !== current || document.hidden)) room.unread++;
    line(room, own ? "message mine" : "message", [
      element("bdi", `author ${tone(frame.from.id)}`, frame.from.name),
      clock(frame.ts),
      element("div", "text", words(frame.data)),
    ]);
    tabs();
  },
  presence({ room: id, event, member, online }) {
    const room = rooms.get(id);
    if (!room) return;
    room.online = online;
    const before = room.members.get(member?.id);
    if (event === "count") recount(room); // in a crowd only the count is told
    else if (event === "leave") room.members.delete(member.id);
    else room.members.set(member.id, member.name);
    if (event === "leave" && before) system(room, before, " left");
    if (event === "join" && !before && !mine.has(member.id)) system(room, member.name, " joined");
    if (event === "rename" && before) system(room, before, " is now ", member.name);
    paint(room);
  },
  members: (frame) => rooms.has(frame.room) && setMembers(rooms.get(frame.room), frame.members),
  left: (frame) => forget(rooms.get(frame.room)), // by the server's will; of our own we know
  ack: (frame) => rooms.get(frame.room)?.pending.delete(frame.id),
  reset(frame) {
    const room = rooms.get(frame.room);
    if (!room) return;
    if (frame.reason === "gap") system(room, "Some messages are missing here.");
    else startOver(room);
    Object.assign(room, { term: frame.term, seq: frame.seq });
  },
  reconnect(frame) {
    comeBackAfter = frame.afterMs;
    status("waiting", "This node is going away, moving to another");
  },
  error(frame) {
    requests.get(frame.ref)?.(frame);
    notice(`${frame.message} (${frame.code})`);
  },
};

let joinRef = null; // the join a person asked for last: its room comes to the front

function join(id, byHand = false) {
  const room = rooms.get(id);
  const since = room?.term ? { term: room.term, seq: room.seq } : undefined;
  send({ type: "join", room: id, since }, (error) => error.retryable || forget(room));
  if (byHand) joinRef = counter;
}

function recount(room) {
  if (Date.now() - room.asked < 3000) return;
  room.asked = Date.now();
  send({ type: "members", room: room.id, limit: 100 });
}

function startOver(room) {
  body(room).replaceChildren();
  Object.assign(room, { term: null, seq: 0 });
  system(room, "The room went back in time; what was said since is gone.");
}

function say(room, publish) {
  send(publish, () => {
    room.pending.delete(publish.id);
    if (room === current && !$("composer").value) $("composer").value = publish.data.text;
  });
}

// ---- what is shown

function status(state, text) {
  $("status").dataset.state = state;
  $("status-text").textContent = text;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function tone(id) {
  let sum = 0;
  for (const letter of id) sum = (sum * 31 + letter.charCodeAt(0)) >>> 0;
  return `tone-${sum % 8}`;
}

function clock(ms) {
  const when = new Date(ms);
  const shown = element("time", "", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  shown.dateTime = when.toISOString();
  shown.title = when.toLocaleString();
  return shown;
}

function words(data) {
  if (typeof data === "string") return data;
  return typeof data?.text === "string" ? data.text : JSON.stringify(data);
}

// Where a room's lines live: on the page while it is in front, else kept aside.
const body = (room) => (room === current ? $("log") : room.lines);

function line(room, className, children) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const item = element("li", className);
  item.append(...children);
  body(room).append(item);
  while (body(room).childElementCount > LOG_LIMIT) body(room).firstElementChild.remove();
  if (room === current && atEnd) log.scrollTop = log.scrollHeight;
}

// Each part stands for itself: a name cannot turn the direction of what follows.
function system(room, ...parts) {
  line(room, "system", parts.map((part) => element("bdi", "", part)));
}

function setMembers(room, list) {
  room.members = new Map(list.map(({ id, name }) => [id, name]));
  paint(room);
}

function show(room) {
  if (current && current !== room) {
    current.draft = $("composer").value;
    current.lines.append(...$("log").childNodes);
  }
  if (room !== current) {
    current = room;
    $("log").replaceChildren(...(room ? room.lines.childNodes : []));
    $("composer").value = room?.draft ?? "";
  }
  if (room) room.unread = 0;
  $("room").hidden = $("aside").hidden = !room;
  $("welcome").hidden = Boolean(room);
  const hash = room ? `#room=${encodeURIComponent(room.id)}` : "";
  if (location.hash !== hash) history.replaceState(null, "", location.pathname + location.search + hash);
  paint(room);
  $("log").scrollTop = $("log").scrollHeight;
  if (room && wide.matches) $("composer").focus();
}

function paint(room) {
  tabs();
  if (!room || room !== current) return;
  $("room-name").textContent = room.id;
  $("online").textContent = `${room.online} online`;
  $("members").replaceChildren(...[...room.members].map(([id, name]) => {
    const item = element("li", tone(id));
    item.append(element("bdi", "", name), mine.has(id) ? " (you)" : "");
    return item;
  }));
  const more = room.online - room.members.size;
  $("more").hidden = more <= 0;
  $("more").textContent = `and ${more} more`;
}

function tabs() {
  const list = $("tabs");
  const focused = list.contains(document.activeElement);
  list.replaceChildren(...[...rooms.values()].map((room) => {
    const tab = element("button", "");
    const selected = room === current;
    Object.assign(tab, { type: "button", role: "tab", tabIndex: selected ? 0 : -1, title: room.id });
    Object.assign(tab, { ariaSelected: String(selected), onclick: () => show(room) });
    tab.append(element("span", "label", room.id));
    if (room.unread) tab.append(element("span", "badge", `${room.unread} new`));
    return tab;
  }));
  if (focused) list.querySelector('[aria-selected="true"]')?.focus();
  const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${current ? `${current.id} · ` : ""}Roomcast`;
}

function notice(text, good = false) {
  $("notice").hidden = !text;
  $("notice").classList.toggle("good", good);
  $("notice").textContent = text;
}

function forget(room) {
  if (!room) return;
  rooms.delete(room.id);
  if (room === current) show([...rooms.values()].at(-1) ?? null);
  else tabs();
}

// ---- what a person does

const hashRoom = () => new URLSearchParams(location.hash.slice(1)).get("room");

function enter(id) {
  notice("");
  if (rooms.has(id)) show(rooms.get(id));
  else join(id, true);
}

$("join-form").onsubmit = (event) => {
  event.preventDefault();
  const field = $("join-room");
  const pasted = field.value.trim().match(/[#&]room=([^&]+)/); // a whole link is welcome too
  const id = pasted ? decodeURIComponent(pasted[1]) : field.value.trim();
  if (id) enter(id);
  field.value = "";
};
$("create").onclick = () => enter(undefined);
$("leave").onclick = () => {
  const room = current;
  if (room.joined) send({ type: "leave", room: room.id });
  forget(room);
};
$("copy").onclick = () => {
  const copied = navigator.clipboard?.writeText(location.href) ?? Promise.reject(); // not there on plain http
  copied.then(() => notice("Link copied.", true), () => notice(`Copy this link: ${location.href}`));
};
$("composer-form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("composer").value.trim();
  if (!text || !current) return;
  if (!current.joined) return notice("Not connected. Your message stays in the box.");
  // The id makes sending again after a lost connection safe: the room keeps one.
  const id = `${[...mine].at(-1)}-${++counter}`;
  const publish = { type: "publish", room: current.id, data: { text }, id };
  current.pending.set(id, publish);
  say(current, publish);
  $("composer").value = "";
  notice("");
};
$("composer").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer-form").requestSubmit();
};
$("tabs").onkeydown = (event) => {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (!step || !current) return;
  event.preventDefault();
  const all = [...rooms.values()];
  show(all[(all.indexOf(current) + step + all.length) % all.length]);
  $("tabs").querySelector('[aria-selected="true"]').focus(); // rather than the composer
};
$("name").onchange = () => {
  const name = $("name").value.trim();
  localStorage.setItem("name", name);
  if (name) send({ type: "rename", name });
};
$("name-form").onsubmit = (event) => {
  event.preventDefault();
  $("composer").focus(); // leaving the field is what changes the name
};
$("retry").onclick = connect;
addEventListener("hashchange", () => hashRoom() && enter(hashRoom()));
document.addEventListener("visibilitychange", () => !document.hidden && current && show(current));

$("name").value = localStorage.getItem("name") ?? "";
$("members-box").open = wide.matches;
if (hashRoom()) show(roomOf(hashRoom()));
connect();
