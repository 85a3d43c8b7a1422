// One room's messages on the page: in the room's order, with days between them, and at the end what is on its way.
// Everything becomes text; nothing from others is ever markup, a link or an attribute that acts.

import { dayOf, label, tell, time } from "./words.js";

const KEPT = 500; // lines on the page per room; older ones can be loaded again
const MOST = 2000; // the same while somebody reads further up
const TOGETHER = 5 * 60_000; // ms between messages of one author that are shown as one block

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

// One of eight colours, the same for a person wherever they appear, and after they have come back under another id.
export function tone({ user, name }) {
  let sum = 0;
  for (const letter of user ?? name) sum = (sum * 31 + letter.charCodeAt(0)) >>> 0;
  return `tone-${sum % 8}`;
}

export function textOf(data) {
  if (typeof data === "string") return data;
  return typeof data?.text === "string" ? data.text : JSON.stringify(data);
}

export class Log {
  #box; #lines; #waiting; #below; #older;
  #bySeq = new Map(); // seq -> its line
  #pending = new Map(); // a message's key -> its line, until the room has it
  #following = true; // the end is in sight, and stays so
  #top = 0;
  #last = 0; // the highest seq that is shown
  #unseen = 0; // came while the reader was further up
  #frame = 0;

  // `root` has the parts by their class names; `load` is asked for older messages.
  constructor(root, load) {
    this.#box = root.querySelector(".log");
    this.#lines = root.querySelector(".lines");
    this.#waiting = root.querySelector(".pending");
    this.#below = root.querySelector(".below");
    this.#older = root.querySelector(".older");
    this.#older.onclick = load;
    this.#below.onclick = () => this.toEnd();
    this.#box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#settle()).observe(this.#box);
  }

  get box() { return this.#box; }
  get empty() { return !this.#lines.childElementCount && !this.#waiting.childElementCount; }
  get first() { return Math.min(...this.#bySeq.keys()); } // Infinity if there is none

  offerOlder(offered) {
    this.#older.hidden = !offered;
  }

  // Whether it was new here.
  add(message, own) {
    this.#forgetPending(message.id);
    const known = this.#bySeq.get(message.seq);
    if (known?.early) this.#correct(known, message);
    if (known) return false;
    const line = this.#line(message, own);
    this.#place(line, message.seq);
    if (!own && !this.#following) this.#mark(this.#unseen + 1);
    this.#trim();
    this.#settle();
    return true;
  }

  // A page of history in front of all others, without moving what the reader looks at.
  addOlder(messages, isOwn) {
    const height = this.#box.scrollHeight;
    for (const message of messages) {
      if (!this.#bySeq.has(message.seq)) this.#place(this.#line(message, isOwn(message)), message.seq);
    }
    this.#following = false;
    this.#box.scrollTop += this.#box.scrollHeight - height;
  }

  // `passing`: only as long as there are no messages.
  system(key, values, passing = false) {
    const line = element("li", passing ? "system passing" : "system");
    tell(line, key, values);
    this.#lines.append(line);
    this.#trim();
    this.#settle();
  }

  // What was told behind `seq` did not happen.
  rollBack(seq) {
    for (const [own, line] of this.#bySeq) {
      if (own <= seq) continue;
      line.remove();
      this.#bySeq.delete(own);
    }
    this.#last = Math.max(0, ...this.#bySeq.keys());
    for (const day of this.#lines.querySelectorAll(".day")) {
      if (!day.nextElementSibling?.classList.contains("message")) day.remove();
    }
  }

  clear() {
    this.#lines.replaceChildren();
    this.#bySeq.clear();
    this.#last = 0;
  }

  // ---- what is on its way

  pend(key, from, text) {
    const line = element("li", "message mine waiting");
    const state = element("p", "state");
    line.message = { from, data: { text } };
    line.append(element("bdi", `author ${tone(from)}`, from.name), element("div", "text", text), state);
    tell(state, "sending");
    this.#pending.set(key, line);
    this.#waiting.append(line);
    this.toEnd();
  }

  get pending() { return [...this.#pending.keys()]; }

  // It takes longer, or goes through another connection.
  still(key) {
    const state = this.#pending.get(key)?.querySelector(".state");
    if (state && !this.#pending.get(key).classList.contains("failed")) tell(state, "sendingAgain");
  }

  // It will not be sent; `again` and `discard` are what can be done.
  failed(key, reason, again) {
    const line = this.#pending.get(key);
    if (!line) return;
    line.classList.add("failed");
    const state = line.querySelector(".state");
    tell(state, "notSent", { reason });
    const buttons = element("p", "choices");
    for (const [word, act] of [["again", again], ["discard", () => {}]]) {
      const button = element("button", "quiet small");
      button.type = "button";
      tell(button, word);
      button.onclick = () => { this.#forgetPending(key); act(); };
      buttons.append(button);
    }
    line.append(buttons);
  }

  // The room has it, at `seq`. The message itself comes before or after this, or not again if the way back had a gap:
  // so it takes its place now, and what comes later only corrects the time.
  stored(key, { seq, duplicate }) {
    const line = this.#pending.get(key);
    if (!line) return;
    if (seq === undefined && !duplicate) { // of an ephemeral room: if the message itself is lost on the way, it was sent
      line.classList.remove("waiting");
      line.querySelector(".state").hidden = true;
      return;
    }
    this.#forgetPending(key);
    if (seq === undefined || this.#bySeq.has(seq)) return;
    const placed = this.#line({ ...line.message, seq, ts: Date.now() }, true);
    placed.early = true;
    this.#place(placed, seq);
    this.#settle();
  }

  #forgetPending(key) {
    this.#pending.get(key)?.remove();
    this.#pending.delete(key);
  }

  // ---- lines

  #line(message, own) {
    const line = element("li", own ? "message mine" : "message");
    line.author = `${message.from.id} ${message.from.name}`; // for #arrange, as are the next two
    line.ts = message.ts;
    line.seq = message.seq;
    line.append(element("bdi", `author ${tone(message.from)}`, message.from.name), time(message.ts),
      element("div", "text", textOf(message.data)));
    return line;
  }

  #correct(line, { ts }) {
    line.early = false;
    line.ts = ts;
    line.querySelector("time").replaceWith(time(ts));
    this.#arrange(line);
  }

  #place(line, seq) {
    let before = null; // the line it goes in front of
    if (seq !== undefined) {
      this.#bySeq.set(seq, line);
      if (seq < this.#last) {
        const later = [...this.#bySeq.keys()].filter((other) => other > seq);
        before = this.#bySeq.get(Math.min(...later));
        if (before.previousElementSibling?.classList.contains("day")) before = before.previousElementSibling;
      }
      this.#last = Math.max(this.#last, seq);
    }
    this.#lines.insertBefore(line, before);
    this.#arrange(line);
    for (let next = line.nextElementSibling; next; next = next.nextElementSibling) {
      if (!next.classList.contains("message")) continue;
      this.#arrange(next);
      break;
    }
  }

  // Puts the day in front of a message that begins one, and joins it to the one before if both are of one breath.
  #arrange(line) {
    let previous = line.previousElementSibling;
    if (previous?.classList.contains("day")) {
      previous.remove();
      previous = line.previousElementSibling;
    }
    const adjacent = previous?.classList.contains("message") ? previous : null;
    while (previous && !previous.classList.contains("message")) previous = previous.previousElementSibling;
    const newDay = !previous || dayOf(new Date(previous.ts)) !== dayOf(new Date(line.ts));
    if (newDay) {
      const day = element("li", "day");
      day.append(time(line.ts, true));
      line.before(day);
    }
    const joined = !newDay && adjacent?.author === line.author && Math.abs(line.ts - adjacent.ts) < TOGETHER;
    line.classList.toggle("joined", joined);
  }

  #trim() {
    const most = this.#following ? KEPT : MOST;
    if (this.#lines.childElementCount <= most + 100) return;
    while (this.#lines.childElementCount > most) {
      const line = this.#lines.firstElementChild;
      if (line.seq !== undefined) {
        this.#bySeq.delete(line.seq);
        this.offerOlder(true);
      }
      line.remove();
    }
    this.#top = 0; // everything has moved up, by nobody's hand
    const first = this.#lines.querySelector(".message");
    if (first) this.#arrange(first);
  }

  // ---- what is in sight

  toEnd() {
    this.#following = true;
    this.#mark(0);
    this.#settle();
  }

  // The room has been brought to the front.
  shown() {
    if (!this.#following) this.#box.scrollTop = this.#top;
    this.#settle();
  }

  #settle() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.#following) this.#box.scrollTop = this.#box.scrollHeight;
    });
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#box;
    if (!clientHeight) return; // not in front
    const up = scrollTop < this.#top; // else it grew below, which is nobody's wish to stop following
    this.#top = scrollTop;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    if (atEnd || up) this.#following = atEnd;
    if (atEnd) this.#mark(0);
  }

  #mark(unseen) {
    this.#unseen = unseen;
    this.#below.hidden = !unseen;
    if (unseen) tell(this.#below, "newMessages", { count: unseen });
  }

  name(room) {
    label(this.#box, "messagesOf", { room });
  }
}
