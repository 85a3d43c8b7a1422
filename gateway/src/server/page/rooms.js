// One room on the page: its head, its members, its messages and the box to write in. It speaks through a Room of the
// client library and knows nothing of other rooms; what concerns the page goes to `app`.

import { element, Log, tone } from "./log.js";
import { compare, label, retell, say, tell } from "./words.js";

const PATIENCE = 120_000; // ms that a message may wait for a connection; its id is remembered for longer
const SLOW = 3000; // ms after which a message on its way says so
const PAGE = 50; // messages or members loaded at a time

// Why a message was not sent, why a room cannot be entered: by the protocol's codes and those of the client library.
const WHY = { too_large: "whyTooLarge", forbidden: "whyForbidden", storage_full: "whyFull", timeout: "whyTime", not_connected: "whyTime",
  stopped: "whyTime", closed: "whyTime" };
const REFUSED = { forbidden: "refusedForbidden", room_limit: "refusedLimit", name_taken: "refusedName", removed: "removed" };

const PARTS = { title: "h2", online: ".online", call: ".call", copy: ".copy", leave: ".leave", stage: ".stage", notice: ".room-notice",
  people: ".people", list: ".people ul", more: ".more", form: ".composer", text: "textarea" };

export class RoomView {
  #app; #room; #parts;
  #been = false; // whether this page was in the room before
  #more = new Map(); // client id -> a member beyond those that are told unasked
  #next; // where their list goes on
  #chosen = false; // whether somebody opened or closed the list

  constructor(app, id) {
    this.id = id;
    this.unread = 0;
    this.#app = app;
    const root = document.getElementById("room-template").content.firstElementChild.cloneNode(true);
    retell(root);
    this.root = root;
    this.#parts = Object.fromEntries(Object.entries(PARTS).map(([name, selector]) => [name, root.querySelector(selector)]));
    this.log = new Log(root, () => this.#loadOlder());
    this.#dress();
    this.#act();
    this.enter();
  }

  #dress() {
    const { title, online, copy, leave, people, text } = this.#parts;
    title.id = `title-${this.id}`;
    title.textContent = title.title = this.id;
    people.id = `people-${this.id}`;
    online.setAttribute("aria-controls", people.id);
    this.root.setAttribute("aria-labelledby", title.id);
    this.root.dataset.room = this.id;
    label(copy, "copyLabel", { room: this.id });
    label(leave, "leaveLabel", { room: this.id });
    label(text, "messageTo", { room: this.id });
    this.log.name(this.id);
    this.notice("entering");
  }

  #act() {
    const { online, copy, leave, more, form, text } = this.#parts;
    online.onclick = () => {
      this.#chosen = true;
      this.#openPeople(this.#parts.people.hidden);
    };
    copy.onclick = () => this.#app.copy(this);
    leave.onclick = () => this.#app.leave(this);
    more.onclick = () => this.#listMore();
    form.onsubmit = (event) => {
      event.preventDefault();
      const words = text.value.trim();
      if (!words) return;
      text.value = "";
      this.#publish(words);
    };
    text.onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    };
    this.root.addEventListener("focusin", () => this.#app.touched(this));
  }

  // ---- the room

  // Joins, or joins again through another client or after having been sent out.
  enter() {
    const since = this.#room?.position;
    const room = this.#app.client.join(this.id, since?.term ? { since } : {});
    this.#room = room;
    const current = (run) => (told) => room === this.#room && run(told);
    room.on("joined", current((told) => this.#joined(told)));
    room.on("message", current((message) => this.#message(message)));
    room.on("presence", current((told) => this.#presence(told)));
    room.on("recovered", current((told) => this.#recovered(told)));
    room.on("left", current(({ reason }) => this.#left(reason)));
    room.on("error", current((error) => error.retryable && room.state === "joining" && this.notice("refusedOther", { code: error.code })));
  }

  close() {
    const room = this.#room;
    this.#room = null;
    this.call?.leave();
    room.leave();
  }

  #joined({ mode }) {
    this.notice();
    this.#more.clear();
    this.#next = undefined;
    this.#paint();
    const first = !this.#been;
    // What was there or was missed follows at once.
    queueMicrotask(() => {
      this.#been = true;
      if (first && mode === "durable" && this.log.empty) this.log.system("quiet", {}, true);
      this.log.offerOlder(this.log.first > 1 && this.log.first < Infinity);
    });
  }

  #message(message) {
    const own = message.own || this.#app.isMine(message.from.id);
    if (!this.log.add(message, own) || own) return;
    if (message.replayed && !this.#been) return;
    this.#app.heard(this, message);
  }

  #recovered({ kind, seq }) {
    const node = this.#app.node;
    if (kind === "resumed") return this.log.system(this.#app.moved ? "backOther" : "backSame", { node });
    if (this.#room.mode === "ephemeral") return this.log.system("backFresh", { node });
    if (kind === "diverged") this.log.rollBack(seq);
    if (kind === "unknown_term") this.log.clear();
    return this.log.system({ gap: "gap", diverged: "diverged" }[kind] ?? "unknownTerm");
  }

  #left(reason) {
    if (reason === "left") return;
    this.#paint();
    this.notice(REFUSED[reason] ?? "refused", { code: reason, room: this.id });
    if (reason === "removed") this.log.system("removed");
    const again = element("button", "quiet small");
    again.type = "button";
    tell(again, "comeIn");
    again.onclick = () => {
      this.notice("entering");
      this.enter();
    };
    this.#parts.notice.append(again);
    if (reason === "name_taken") this.#app.nameTaken(this);
  }

  get outside() { return this.#room?.state === "left"; }

  // ---- who is there

  #presence({ event, member, was }) {
    // Whoever comes back from a node that died is there twice until its lease is over: neither the one nor the other is news.
    const twice = [...this.#room.present.values()].some(({ id, name }) => id !== member?.id && name === member?.name);
    if (event === "join" && !twice && !this.#app.isMine(member.id)) this.log.system("cameIn", { name: member.name });
    if (event === "leave" && !twice && was) this.log.system("left", { name: member.name });
    if (event === "leave") this.#more.delete(member.id);
    if (event === "rename" && was) this.log.system("renamed", { old: was, name: member.name });
    this.#paint();
  }

  #paint() {
    const { online, people, list, more } = this.#parts;
    const known = new Map([...this.#more, ...this.#room.present]);
    online.hidden = this.#room.online === 0;
    tell(online, "online", { count: this.#room.online });
    const me = known.get(this.#app.me);
    const others = [...known.values()].filter((member) => member !== me).sort((a, b) => compare(a.name, b.name));
    list.replaceChildren(...[...(me ? [me] : []), ...others].map(({ id, name, user }) => {
      const item = element("li", tone({ user, name }));
      if (user) item.title = user;
      const words = element("span");
      if (id === this.#app.me) tell(words, "you", { name });
      else words.append(element("bdi", "", name));
      item.append(words);
      return item;
    }));
    const hidden = this.#room.online - known.size;
    more.hidden = hidden <= 0 || people.hidden;
    if (hidden > 0) tell(more, "more", { count: hidden });
  }

  async #listMore() {
    this.#parts.more.disabled = true;
    try {
      const cursor = this.#next ?? [...this.#room.present.keys()].sort().at(-1);
      const page = await this.#room.members({ cursor, limit: 4 * PAGE });
      for (const member of page.members) this.#more.set(member.id, member);
      this.#next = page.next;
    } catch (error) {
      this.notice("failed", { code: error.code, message: error.message });
    }
    this.#parts.more.disabled = false;
    this.#paint();
  }

  #openPeople(open) {
    this.#parts.people.hidden = !open;
    this.#parts.online.ariaExpanded = String(open);
    this.#paint();
  }

  // ---- messages

  // The id is random, so that nobody can take it before, and sending again under it is safe: the room keeps one.
  #publish(text, id = hex(16)) {
    this.log.pend(id, { id: this.#app.me, name: this.#app.name }, text);
    const slow = setTimeout(() => this.log.still(id), SLOW);
    this.#room.publish({ text }, { id, timeoutMs: PATIENCE }).then(
      (ack) => this.log.stored(id, ack),
      (error) => {
        const reason = say(WHY[error.code] ?? (this.outside ? "whyNotIn" : "whyOther"), { code: error.code });
        this.log.failed(id, reason, () => this.#publish(text, id));
      },
    ).finally(() => clearTimeout(slow));
  }

  async #loadOlder() {
    try {
      const page = await this.#room.history({ before: this.log.first, limit: PAGE });
      this.log.addOlder(page.messages, ({ own, from }) => own || this.#app.isMine(from.id));
      this.log.offerOlder(page.next !== undefined);
      this.#app.announce(say(page.messages.length ? "olderLoaded" : "nothingOlder", { count: page.messages.length }));
    } catch {
      this.notice("historyGone");
    }
  }

  // ---- on the page

  // Whether it stands there, and whether it is the one that is used.
  show(visible, current) {
    const was = !this.root.hidden;
    this.root.hidden = !visible;
    this.root.classList.toggle("current", current);
    if (!visible) return;
    const { people } = this.#parts;
    if (!this.#chosen && people.hidden !== this.root.clientWidth < 640) this.#openPeople(people.hidden);
    if (!was) this.log.shown();
  }

  notice(key, values) {
    const { notice } = this.#parts;
    notice.hidden = !key;
    notice.classList.toggle("plain", key === "entering");
    if (!key) return;
    const words = element("span");
    tell(words, key, values);
    notice.replaceChildren(words);
  }

  // The connection is gone: what is on its way will take longer.
  away() {
    for (const id of this.log.pending) this.log.still(id);
  }

  get clientId() { return this.#app.me; }
  get focusable() { return this.#parts.text; }
  get callParts() { return [this.#parts.call, this.#parts.stage]; }
}

const hex = (count) => Array.from(crypto.getRandomValues(new Uint8Array(count)), (byte) => byte.toString(16).padStart(2, "0")).join("");
