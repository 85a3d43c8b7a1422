// Roomcast's client: rooms over one WebSocket that is lost and found again. For browsers and Node. It imports nothing and
// is one file, so that a page can take it as it is.
//
// Link is the connection: when to connect, whether it lives, tokens, pace. Line is one room: its place in the order,
// who is there, what waits to be published. Roomcast and Room are what users hold; they pass on and keep nothing.
// The protocol is written down in docs/protocol.md of the project.

const SUBPROTOCOL = "roomcast.v1.json";
const STOP_CODES = new Set([1002, 1003, 1007, 4403, 4409]); // coming back unchanged would not help
const HARD_CODES = new Set([1008, 1009, 1013, 4429]); // come back, but much later
const RETRY_MS = 500; // ceiling of the first wait; it doubles with each attempt
const REFUSED_RETRY_MS = 1000; // the same where there was no welcome
const HARD_RETRY_MS = 5000; // the same after HARD_CODES, of which at least half is waited
const FULL_RETRY_MS = 30_000; // the least wait where a user has too many connections
const MAX_TIMER_MS = 2 ** 31 - 1; // beyond it, timers fire at once
const LATE_MS = 5000; // a timer as late as that means that the machine slept
const PROBE_MS = 5000; // time for an answer when there is reason to doubt
const REFRESH_AGAIN_MS = 5000; // no token is fetched sooner after the last
const NAME_PATIENCE_MS = 30_000; // a killed node's members keep their unique names for up to 20 s
const MOST_IN_FLIGHT = 128; // half of what a node takes before it stops reading, and with it our pings
const MOST_BYTES_IN_FLIGHT = 65_536;
const MOST_TRIES = 12; // of one publish, each refused as retryable
const MOST_HELD = 1000; // messages behind one that may be ours
const MOST_READS = 100;
const LONGEST_FRAME = 16 * 2 ** 20; // characters
const SYNC_BELOW = 100; // members that one page holds

const DEFAULTS = {
  name: undefined, token: undefined, autoConnect: true, maxDelayMs: 30_000, stableMs: 10_000, connectTimeoutMs: 15_000,
  silenceMs: 15_000, pongTimeoutMs: 10_000, timeoutMs: 60_000, maxQueuedMessages: 1000, maxQueuedBytes: 2 ** 20,
  random: Math.random, WebSocket: undefined,
};

/** What went wrong: `code` is one of the protocol's, or of this client's (see README). */
export class RoomcastError extends Error {
  constructor(code, message, { retryable = false, room = undefined, cause = undefined } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "RoomcastError";
    this.code = code;
    this.retryable = retryable;
    this.room = room;
  }
}

const fromFrame = (frame, room) => new RoomcastError(String(frame.code), String(frame.message ?? frame.code),
  { retryable: frame.retryable === true, room });

// ---- events

const listeners = new WeakMap();

class Emitter {
  constructor() {
    listeners.set(this, new Map());
  }

  on(event, listener) {
    if (typeof listener !== "function") throw new TypeError("a listener is a function");
    const all = listeners.get(this);
    all.set(event, new Set(all.get(event)).add(listener));
    return () => this.off(event, listener);
  }

  once(event, listener) {
    const off = this.on(event, (value) => {
      off();
      return listener(value);
    });
    return off;
  }

  off(event, listener) {
    const rest = new Set(listeners.get(this).get(event));
    rest.delete(listener);
    listeners.get(this).set(event, rest);
  }
}

// Whatever a listener throws stays its own: `complain` hears of it and the next one is called.
function emit(target, event, value, complain) {
  const all = listeners.get(target).get(event) ?? new Set();
  for (const listener of all) {
    try {
      const answer = listener(value);
      if (typeof answer?.then === "function") answer.then(undefined, complain);
    } catch (error) {
      complain(error);
    }
  }
  return all.size > 0;
}

// ---- small things

const encoder = new TextEncoder();
const byteLength = (text) => encoder.encode(text).length;
const hex = (count) => Array.from(globalThis.crypto.getRandomValues(new Uint8Array(count)),
  (byte) => byte.toString(16).padStart(2, "0")).join("");
const isText = (value) => typeof value === "string";
const isSeq = (value) => Number.isSafeInteger(value) && value >= 0;
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isName = (value) => isText(value) && value !== "" && byteLength(value) <= 64 && !/\p{Cc}/u.test(value);
const isMember = (value) => isObject(value) && isText(value.id) && isText(value.name);
const isMessage = (value) => isObject(value) && isText(value.id) && isMember(value.from) && "data" in value
  && (value.seq === undefined || (isSeq(value.seq) && value.seq > 0 && isText(value.term)));
const isPosition = (value) => isObject(value) && isSeq(value.seq) && (value.term === null || isText(value.term));
const badName = () => new RoomcastError("bad_name", "a name has 1 to 64 bytes and no control characters");
const nothing = (..._) => {};

function addUpTo(most, set, value) { // the oldest goes
  set.add(value);
  if (set.size > most) set.delete(set.values().next().value);
}

function uuid() { // crypto.randomUUID is missing on pages without TLS
  const digits = [...hex(16)];
  digits[12] = "4";
  digits[16] = "89ab"[parseInt(digits[16], 16) & 3];
  return digits.join("").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// How long a JWT is good for, in ms; undefined if it cannot be read. It was just fetched: where the clock here says that it
// is over, or lasts longer than it ever did, the clock is wrong.
function timeLeft(token) {
  try {
    const { exp, iat } = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    if (!Number.isFinite(exp)) return undefined;
    const left = exp * 1000 - Date.now();
    const whole = Number.isFinite(iat) ? (exp - iat) * 1000 : Math.max(left, 0);
    return left > 0 ? Math.min(left, whole) : whole;
  } catch {
    return undefined;
  }
}

const timeUntil = (moment) => (Number.isFinite(moment) ? moment - Date.now() : undefined);

function addressesOf(url) {
  const list = (Array.isArray(url) ? url : [url]).map((one) => {
    const made = new URL(one, globalThis.location?.href);
    made.protocol = { "http:": "ws:", "https:": "wss:" }[made.protocol] ?? made.protocol;
    if (made.pathname === "/") made.pathname = "/connect";
    made.hash = "";
    return made;
  });
  if (list.length === 0) throw new TypeError("no URL");
  return list;
}

// Promises that may be rejected without anybody listening.
function refusal(error) {
  const { promise, reject } = deferred();
  reject(error);
  return promise;
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(nothing);
  return made;
}

// ---- the connection

class Link {
  constructor(face, url, options) {
    this.face = face;
    this.options = { ...DEFAULTS };
    for (const [key, value] of Object.entries(options)) if (value !== undefined) this.options[key] = value;
    this.addresses = addressesOf(url);
    this.WebSocket = this.options.WebSocket ?? globalThis.WebSocket;
    if (!this.WebSocket) throw new TypeError("no WebSocket here: pass one as an option, such as that of the package ws");
    this.name = this.options.name;
    if (this.name !== undefined && !isName(this.name)) throw badName();
    this.goodName = this.name; // the last that was not refused
    this.status = { state: "waiting", attempt: 0 };
    this.lines = new Map(); // room id -> Line
    this.mine = new Set(); // the client ids this client has had, the last 16
    this.refs = new Map(); // ref -> what to do with the answer, and without one when the connection is lost
    this.timers = new Set();
    this.counter = 0;
    this.attempts = 0;
    this.welcomedAt = undefined; // since when the server serves us
    this.comeBackAt = undefined; // when it asked us to, if it sends us away
    this.denied = false; // the last token was refused
    this.patient = false; // the wait is the server's wish
    this.stopped = undefined; // why there is no coming back
    this.turn = 0; // whose line's publish is next
    this.era = 0; // counts connections, so that what was meant for one does not reach the next
    this.at = 0; // index of the address in use
    this.queued = { count: 0, bytes: 0 };
    this.flying = { count: 0, bytes: 0 };
    this.limits = {};
    this.bucket = { tokens: 0, share: 1, rate: 0, since: 0 };
    this.socket = null;
    this.wake = () => this.awake();
    globalThis.addEventListener?.("online", this.wake);
    globalThis.document?.addEventListener?.("visibilitychange", this.wake);
  }

  later(ms, run) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      run();
    }, Math.min(Math.max(ms, 0), MAX_TIMER_MS));
    this.timers.add(timer);
    return timer;
  }

  cancel(timer) {
    this.timers.delete(timer);
    clearTimeout(timer);
  }

  show(state, more = {}) {
    this.status = { state, attempt: this.attempts, ...more };
    emit(this.face, "status", this.status, (error) => this.complain(error));
  }

  // An error that belongs to no promise.
  report(error) {
    const heard = emit(this.face, "error", error, (thrown) => console.error("roomcast: an error listener threw", thrown));
    if (!heard) console.warn(`roomcast: ${error.code}: ${error.message}`, ...(error.cause ? [error.cause] : []));
  }

  complain(thrown) {
    this.report(new RoomcastError("listener", "a listener threw", { cause: thrown }));
  }

  // -- coming and going

  start() {
    if (this.ended) return;
    this.forget();
    this.stopped = this.welcomedAt = this.comeBackAt = undefined;
    this.trouble = "";
    const { era } = this;
    this.show("connecting");
    if (era !== this.era) return; // a listener closed or connected
    this.deadline = this.later(this.options.connectTimeoutMs, () => this.lost(1006, "no welcome in time", true));
    const { token } = this.options;
    if (typeof token !== "function") return this.open(token);
    this.fetchToken((fresh) => this.open(fresh), (error) => {
      this.report(error);
      this.lost(1006, "no token");
    });
  }

  fetchToken(done, failed) {
    const era = this.era;
    const current = (run) => (value) => era === this.era && !this.ended && run(value);
    new Promise((resolve) => resolve(this.options.token())).then((token) => {
      if (!isText(token)) throw new TypeError("the token is no string");
      return token;
    }).then(current(done), current((cause) => failed(new RoomcastError("token", "no token was to be had", { cause }))));
  }

  open(token) {
    const url = new URL(this.addresses[this.at]);
    if (this.name !== undefined) url.searchParams.set("name", this.name);
    let socket;
    try {
      socket = new this.WebSocket(url.href, token === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `bearer.${token}`]);
    } catch (cause) {
      const error = new RoomcastError("bad_url", "the address or the token is not fit for a WebSocket", { cause });
      return this.stop({ code: 0, reason: error.message }, error);
    }
    this.socket = socket;
    this.heard = 0;
    this.token = token;
    socket.onmessage = ({ data }) => socket === this.socket && this.receive(data);
    socket.onclose = ({ code, reason }) => socket === this.socket && this.lost(code, reason || this.trouble);
    socket.onerror = ({ message }) => (this.trouble = isText(message) ? message : ""); // close follows
  }

  // Lets go of the socket, whatever state it is in, and of all that was meant for it.
  forget(dead = false) {
    const { socket } = this;
    this.socket = null;
    this.era += 1;
    for (const timer of [this.deadline, this.watch, this.refreshing, this.pumping, this.retry]) this.cancel(timer);
    this.pumping = undefined;
    const unanswered = [...this.refs.values()];
    this.refs.clear();
    for (const { lost } of unanswered) lost();
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.onerror = nothing; // some implementations throw where nobody listens
    if (dead && socket.terminate) socket.terminate();
    else if (socket.readyState < 2) socket.close(1000);
  }

  lost(code = 1006, reason = "", dead = false) {
    const { options, addresses } = this;
    const { nodeId } = this.status;
    const welcomed = this.welcomedAt !== undefined;
    if (welcomed && Date.now() - this.welcomedAt >= options.stableMs) {
      this.attempts = 0;
      this.denied = false;
    }
    const asked = this.comeBackAt;
    this.comeBackAt = undefined;
    if (code === 1009) this.dropLongest();
    this.forget(dead);
    for (const line of [...this.lines.values()]) line.disconnected();
    if (this.ended) return;
    const unauthorized = code === 4401;
    if (STOP_CODES.has(code) || (unauthorized && (typeof options.token !== "function" || this.denied))) {
      return this.stop({ code, reason, nodeId });
    }
    if (unauthorized) this.denied = true;
    this.at = (this.at + 1) % addresses.length;
    const delay = asked === undefined ? this.delayAfter(code, welcomed) : Math.max(0, asked - Date.now());
    this.patient = asked !== undefined || HARD_CODES.has(code);
    this.attempts += 1;
    this.retry = this.later(delay, () => this.start());
    this.show("waiting", { code, reason, nodeId, retryInMs: Math.round(delay) });
  }

  // Full jitter: anything up to a ceiling that doubles.
  delayAfter(code, welcomed) {
    // As many connections as the user may have: one of the others has to go first. Or one of our own is not counted out yet.
    if (code === 4429 && this.mine.size === 0) return FULL_RETRY_MS * (1 + this.options.random());
    const hard = HARD_CODES.has(code);
    const first = hard ? HARD_RETRY_MS : welcomed ? RETRY_MS : REFUSED_RETRY_MS;
    const ceiling = Math.min(this.options.maxDelayMs, first * 2 ** Math.min(this.attempts, 30));
    return ceiling * (hard ? (1 + this.options.random()) / 2 : this.options.random());
  }

  stop(why, error = new RoomcastError("stopped", `the server closed with ${why.code} ${why.reason ?? ""}`.trim())) {
    this.forget();
    this.stopped = error;
    for (const line of [...this.lines.values()]) {
      line.fail(error);
      line.ready.reject(error);
      line.ready = deferred(); // of a later `connect()`
    }
    this.show("closed", why);
    this.report(error);
  }

  close() {
    if (this.ended) return this.ended;
    const { socket } = this;
    let resolve;
    this.ended = new Promise((done) => (resolve = done));
    globalThis.removeEventListener?.("online", this.wake);
    globalThis.document?.removeEventListener?.("visibilitychange", this.wake);
    this.forget();
    for (const line of [...this.lines.values()]) line.end(new RoomcastError("closed", "the client was closed"));
    for (const timer of [...this.timers]) this.cancel(timer);
    if (socket && socket.readyState < 3) {
      const limit = setTimeout(() => {
        socket.terminate?.();
        resolve();
      }, 1000);
      socket.onclose = () => {
        clearTimeout(limit);
        socket.onclose = null;
        resolve();
      };
    } else resolve();
    this.show("closed", { code: 1000, reason: "by the client" });
    return this.ended;
  }

  awake() {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.status.state === "waiting" && !this.patient && this.retry !== undefined) this.start();
    else if (this.status.state === "open") this.probe(PROBE_MS);
  }

  // -- whether it lives: any frame is a sign. Timers only look at a count, so that a message costs nothing.

  mind() {
    const before = this.heard;
    const due = Date.now() + this.options.silenceMs;
    this.watch = this.later(this.options.silenceMs, () => {
      const slept = Date.now() - due > LATE_MS;
      if (slept) this.probe(PROBE_MS);
      else if (this.heard === before) this.probe(this.options.pongTimeoutMs);
      else this.mind();
    });
  }

  probe(patience) {
    const before = this.heard;
    const due = Date.now() + patience;
    this.cancel(this.watch);
    this.write('{"type":"ping"}');
    this.watch = this.later(patience, () => {
      if (this.heard !== before) this.mind();
      else if (Date.now() - due > LATE_MS) this.probe(PROBE_MS);
      else this.lost(1006, "no sign of life", true);
    });
  }

  // -- frames

  write(text) {
    if (this.socket?.readyState === 1) this.socket.send(text);
  }

  // Sends a request; `answer` gets the frame with its ref, or `lost` is called when the connection is lost before.
  ask(frame, answer = nothing, lost = nothing) {
    const ref = this.expect(answer, lost);
    this.write(JSON.stringify({ ...frame, ref }));
  }

  expect(answer, lost) {
    this.counter += 1;
    this.refs.set(this.counter, { answer, lost });
    return this.counter;
  }

  receive(text) {
    this.heard += 1;
    let frame;
    if (isText(text) && text.length <= LONGEST_FRAME) {
      try {
        frame = JSON.parse(text);
      } catch {
        // told below
      }
    }
    if (!isObject(frame) || !isText(frame.type)) return this.bad("no frame of the protocol");
    if (frame.type === "welcome") return this.welcomed(frame);
    if (this.welcomedAt === undefined) return this.bad(`${frame.type} before welcome`);
    const asked = this.refs.get(frame.ref);
    this.refs.delete(frame.ref);
    if (asked) return asked.answer(frame);
    if (frame.type === "error") return this.report(fromFrame(frame));
    if (frame.type === "reconnect") return this.sentAway(frame);
    const line = this.lines.get(frame.room);
    if (frame.type === "message") line?.receive(frame);
    else if (frame.type === "presence") line?.presence(frame);
    else if (frame.type === "reset") line?.reset(frame);
    else if (frame.type === "left") line?.removed(frame);
  }

  bad(words) {
    this.report(new RoomcastError("bad_frame", `the server sent what cannot be: ${words}`));
  }

  welcomed(frame) {
    if (!isText(frame.clientId) || !isText(frame.nodeId) || this.welcomedAt !== undefined) return this.bad("welcome");
    this.cancel(this.deadline);
    this.welcomedAt = Date.now();
    addUpTo(16, this.mine, frame.clientId);
    this.limits = isObject(frame.limits) ? frame.limits : {};
    // A little slower than allowed, since what is sent evenly does not arrive evenly. What may be sent at once is not told.
    const rate = isSeq(this.limits.publishRate) ? this.limits.publishRate * 0.9 : 0;
    this.bucket = { tokens: Math.ceil(rate / 10), share: 1, rate, since: Date.now() };
    this.mind();
    this.planRefresh(timeLeft(this.token) ?? timeUntil(frame.expiresAtMs));
    // Whoever was given a name keeps it when they come back, unless their token says who they are.
    if (this.token === undefined && isText(frame.name)) this.name ??= frame.name;
    this.goodName = this.name;
    const { era } = this;
    this.show("open", { nodeId: frame.nodeId, clientId: frame.clientId, name: frame.name });
    for (const line of [...this.lines.values()]) if (era === this.era) line.enter();
  }

  sentAway({ afterMs }) {
    if (!Number.isFinite(afterMs) || afterMs < 0) return this.bad("reconnect");
    const wait = Math.min(afterMs, this.options.maxDelayMs);
    this.comeBackAt = Date.now() + wait;
    this.cancel(this.deadline);
    this.deadline = this.later(wait, () => this.lost(1012, "sent away")); // in case the node does not close
  }

  // -- the token, fetched anew when four fifths of its time are over

  planRefresh(left) {
    this.cancel(this.refreshing);
    if (typeof this.options.token !== "function" || !Number.isFinite(left)) return;
    this.refreshing = this.later(Math.max(left * 0.8, REFRESH_AGAIN_MS), () => this.refresh());
  }

  refresh() {
    const failed = (error) => {
      this.report(error);
      this.planRefresh(0);
    };
    this.fetchToken((token) => {
      this.planRefresh(timeLeft(token));
      this.ask({ type: "refresh", token }, (frame) => {
        if (frame.type === "error") return failed(fromFrame(frame));
        for (const line of this.lines.values()) line.unseeing = false;
        if (timeLeft(token) === undefined) this.planRefresh(timeUntil(frame.expiresAtMs));
      });
    }, failed);
  }

  // -- publishing at the node's pace: each refusal counts against us, and twenty close the connection

  pump() {
    if (this.status.state !== "open" || this.pumping !== undefined) return;
    const lines = [...this.lines.values()];
    for (let idle = 0; idle < lines.length; this.turn += 1) {
      const line = lines[this.turn % lines.length];
      const entry = line.next();
      idle = entry ? 0 : idle + 1;
      if (!entry) continue;
      const { count, bytes } = this.flying;
      if (count > 0 && (count >= MOST_IN_FLIGHT || bytes + entry.bytes > MOST_BYTES_IN_FLIGHT)) return;
      const wait = this.take();
      if (wait > 0) {
        this.pumping = this.later(wait, () => {
          this.pumping = undefined;
          this.pump();
        });
        return;
      }
      line.send(entry);
    }
  }

  // 0 if one may be sent now, else the ms until then.
  take() {
    const { bucket } = this;
    if (bucket.rate === 0) return 0;
    const rate = bucket.rate * bucket.share;
    const burst = Math.max(1, rate / 10);
    const now = Date.now();
    bucket.tokens = Math.min(burst, bucket.tokens + (Math.max(0, now - bucket.since) / 1000) * rate);
    bucket.since = now;
    if (bucket.tokens < 1) return Math.ceil(((1 - bucket.tokens) / rate) * 1000);
    bucket.tokens -= 1;
    return 0;
  }

  // Refused as too fast: the user or the room may do less than the connection. Told once for many, it holds once; what is
  // taken brings the pace back.
  slow() {
    const { bucket } = this;
    if (bucket.tokens < 0) return;
    bucket.share = Math.max(bucket.share / 2, 1 / Math.max(bucket.rate, 1));
    bucket.tokens = (-bucket.rate * bucket.share) / 2;
  }

  hasten() {
    this.bucket.share = Math.min(1, this.bucket.share + 0.01);
  }

  dropLongest() {
    const sent = [...this.lines.values()].flatMap((line) => line.outbox.filter((entry) => entry.sent));
    const longest = sent.reduce((a, b) => (a && a.bytes >= b.bytes ? a : b), undefined);
    longest?.settle(new RoomcastError("too_large", "longer than the server takes"));
  }

  rename(name) {
    if (!isName(name)) return refusal(badName());
    if (this.ended) return refusal(new RoomcastError("closed", "the client was closed"));
    this.name = name;
    if (this.status.state !== "open") return Promise.resolve(); // it goes with the next handshake
    this.take();
    const { promise, resolve, reject } = deferred();
    let refused = false;
    this.ask({ type: "rename", name }, (frame) => {
      if (frame.type !== "error") return;
      refused = true;
      if (this.name === name) this.name = this.goodName;
      reject(fromFrame(frame));
    });
    // There is no answer to wait for but that of something behind it.
    const joined = [...this.lines.values()].find((line) => line.state === "joined");
    const fence = joined ? { type: "members", room: joined.id, limit: 1 } : { type: "ping" };
    this.ask(fence, () => {
      if (!refused) this.goodName = name;
      resolve();
    }, () => resolve()); // the next handshake takes the name along
    return promise;
  }
}

// ---- one room

class Line {
  constructor(link, id, options) {
    this.link = link;
    this.id = id;
    this.room = new Room(this);
    this.state = "joining"; // joining | joined | left
    this.again = false; // whether it was joined before
    this.mode = undefined;
    // The last message seen. Before a first one: seq 0 and no term. Undefined: nothing is known.
    this.position = isPosition(options.since) ? { term: options.since.term, seq: options.since.seq } : undefined;
    this.terms = []; // [{term, from}]: which term a seq seen belonged to, the last 32
    this.present = new Map();
    this.online = 0;
    this.outbox = []; // publishes without answer, in order
    this.paused = false; // a publish was refused and waits, and what is behind it too
    this.quiet = new Set(); // ids of publishes that must not come back to us
    this.skips = new Map(); // seq -> {term, id} of those: holes in what we are told
    this.quietFlying = 0;
    this.held = []; // messages behind a hole that may be ours
    this.reads = new Set(); // history and members requests without answer
    this.tries = 0;
    this.timers = new Set();
    this.gone = undefined; // why it is over
    this.takenAt = undefined; // since when another has our name
    this.syncing = false;
    this.unseeing = false; // whether its members are not for us to see
    this.mendedAt = undefined; // the seq behind which something is missing and was asked for
    this.renumber();
    this.ready = deferred();
  }

  renumber() {
    this.producer = hex(16);
    this.number = 0;
  }

  error(code, words, more) {
    return new RoomcastError(code, words, { ...more, room: this.id });
  }

  tooLarge() {
    return this.error("too_large", `the server takes ${this.link.limits.messageBytes} bytes`);
  }

  undecided() {
    return this.error("undecided", "no answer will come: it may be stored or not");
  }

  notConnected() {
    return this.error("not_connected", "ephemeral messages do not wait", { retryable: true });
  }

  emit(event, value) {
    return emit(this.room, event, value, (thrown) => this.link.complain(thrown));
  }

  report(error) {
    if (!this.emit("error", error)) this.link.report(error);
  }

  later(ms, run) {
    const timer = this.link.later(ms, () => {
      this.timers.delete(timer);
      run();
    });
    this.timers.add(timer);
  }

  // -- joining

  enter() {
    const { link, position } = this;
    this.state = "joining";
    const since = position?.term ? position : undefined;
    link.ask({ type: "join", room: this.id, since }, (frame) => {
      if (this.state !== "joining") return;
      if (frame.type === "error") this.refused(frame);
      else if (frame.type !== "joined" || frame.room !== this.id) link.bad("an answer to join");
      else this.joined(frame);
    });
  }

  // Leaves and joins again, so that the node sends what lies behind the position.
  mend() {
    this.state = "joining";
    this.held = [];
    this.skips.clear();
    this.link.ask({ type: "leave", room: this.id });
    this.enter();
  }

  refused(frame) {
    const { link } = this;
    const error = fromFrame(frame, this.id);
    this.tries += 1;
    // Whoever comes back from a node that was killed meets their own name, until its lease is over.
    if (error.code === "name_taken") this.takenAt ??= Date.now();
    const own = error.code === "name_taken" && this.again && Date.now() - this.takenAt < NAME_PATIENCE_MS;
    const strange = error.code === "already_joined" && this.tries < 3;
    if (!error.retryable && !own && !strange) return this.end(error, true);
    const ceiling = Math.min(link.options.maxDelayMs, (own ? 4000 : RETRY_MS) * (own ? 1 : 2 ** this.tries));
    this.later(ceiling * link.options.random(), () => (strange ? this.mend() : this.enter()));
    if (!own) this.report(error);
  }

  joined(frame) {
    const { recovery } = frame;
    const durable = frame.mode !== "ephemeral";
    const messages = Array.isArray(frame.messages) ? frame.messages.filter(isMessage) : [];
    const end = { term: frame.term, seq: frame.seq };
    if (durable && !isPosition(end)) return this.link.bad("joined");
    const before = this.position;
    const cameBack = before !== undefined;
    this.mode = durable ? "durable" : "ephemeral";
    this.state = "joined";
    this.again = true;
    this.tries = 0;
    this.takenAt = undefined;
    this.unseeing = false;
    if (recovery !== "resumed") this.mendedAt = undefined;
    this.held = [];
    this.skips.clear();
    const kind = cameBack ? this.recover(recovery, frame.rollback, durable) : undefined;
    if (!durable) this.position = undefined;
    // What lies between the place where we are and the first message is had by joining again from there.
    const first = messages[0]?.seq ?? (durable ? end.seq + 1 : 0);
    const hole = durable && cameBack && ["diverged", "fresh"].includes(recovery) && this.position?.seq + 1 < first
      && (this.position.term ?? messages[0]?.term ?? end.term) !== null;
    if (hole) this.position.term ??= messages[0]?.term ?? end.term;
    this.count(frame);
    this.setPresent(frame.members);
    if (kind) this.emit("recovered", { kind, ...this.place() });
    if (this.state === "joined") {
      this.emit("joined", { recovery: recovery ?? "fresh", mode: this.mode, online: this.online, members: [...this.present.values()] });
    }
    this.ready.resolve();
    if (hole && this.state === "joined") return this.mend();
    for (const message of messages) {
      if (this.state !== "joined") return;
      if (recovery === "resumed") this.take(message, true);
      else if (!this.isRepeat(message)) this.accept(message, true);
    }
    if (this.state !== "joined") return;
    if (durable && recovery !== "resumed") this.move(end.term, end.seq);
    for (const read of this.reads) this.sendRead(read);
    this.link.pump();
  }

  // Brings the position to where the room stands; says what to tell.
  recover(recovery, rollback, durable) {
    if (!durable) return "unknown_term";
    if (recovery === "diverged" && isPosition(rollback)) {
      this.rollBack(rollback);
      return "diverged";
    }
    if (recovery === "gap" || recovery === "resumed") return recovery;
    if (recovery === "fresh" && this.position.seq === 0) return "resumed";
    this.terms = [];
    this.position = undefined;
    return "unknown_term";
  }

  place() {
    return { term: this.position?.term ?? null, seq: this.position?.seq ?? 0 };
  }

  // -- order

  move(term, seq) {
    this.position = { term, seq };
    if (term !== null && this.terms.at(-1)?.term !== term) this.terms.push({ term, from: seq });
    if (this.terms.length > 32) this.terms.shift();
  }

  rollBack({ term, seq }) {
    this.terms = this.terms.filter(({ from }) => from <= seq);
    this.move(term, seq);
  }

  isRepeat({ seq, term }) {
    if (seq === undefined || this.position === undefined || seq > this.position.seq) return false;
    return (this.terms.findLast(({ from }) => from <= seq)?.term ?? term) === term;
  }

  receive(frame) {
    if (this.state !== "joined") return; // on the way in or out: joining brings it again
    if (!isMessage(frame)) return this.link.bad("message");
    this.take(frame, false);
    this.goOn();
  }

  take(frame, replayed) {
    if (this.mode === "ephemeral" || frame.seq === undefined) return this.deliver(frame, replayed);
    const { seq } = this.place();
    if (this.isRepeat(frame)) return undefined;
    this.skips.delete(frame.seq); // it came
    if (frame.seq === seq + 1) return this.accept(frame, replayed);
    const mayWait = this.quietFlying > 0 || this.skips.has(seq + 1);
    if (frame.seq > seq && mayWait && this.held.length < MOST_HELD) return this.held.push(frame);
    return this.jumped(frame, replayed);
  }

  // A place in the order that cannot follow ours. Asked for once; if it comes again there is no more to be had.
  jumped(frame, replayed) {
    const { seq } = this.place();
    if (this.mendedAt !== seq) {
      this.mendedAt = seq;
      this.report(this.error("out_of_order", `message ${frame.seq} came after ${seq}: asking for what is missing`, { retryable: true }));
      if (this.state === "joined") this.mend();
      return;
    }
    this.rollBack({ term: frame.term, seq: frame.seq - 1 });
    this.emit("recovered", { kind: "gap", ...this.place() });
    if (this.state === "joined") this.accept(frame, replayed);
  }

  accept(frame, replayed) {
    this.move(frame.term, frame.seq);
    this.mendedAt = undefined;
    this.deliver(frame, replayed);
  }

  // Past what we published without echo, then on to what was held behind it.
  goOn() {
    while (this.state === "joined" && this.position) {
      const next = this.position.seq + 1;
      const skip = this.skips.get(next);
      // What was stored before may be another's: then it comes, unless something behind it shows that it does not.
      if (skip && (!skip.before || (this.held.length > 0 && this.held[0].seq > next))) {
        this.skips.delete(next);
        this.quiet.delete(skip.id);
        this.move(skip.term, next);
      } else if (this.held.length > 0 && (this.held[0].seq <= next || this.quietFlying === 0)) {
        this.take(this.held.shift(), false);
      } else return;
    }
  }

  deliver(frame, replayed) {
    const own = this.link.mine.has(frame.from.id);
    if (own && this.quiet.delete(frame.id)) this.settleStored(frame);
    else {
      if (own) this.settleStored(frame);
      const { id, from, ts, data, seq, term } = frame;
      this.emit("message", { room: this.id, id, from, ts, data, seq, term, own, replayed });
    }
  }

  // Stored before the connection broke: no need to send it again.
  settleStored({ id, seq, term }) {
    const entry = this.outbox.find((one) => one.id === id && one.doubt && !one.sent);
    entry?.settle(undefined, { id, seq, term, duplicate: true });
  }

  reset(frame) {
    const { reason: kind, term, seq } = frame;
    if (this.state !== "joined") return;
    if (!["gap", "diverged", "unknown_term"].includes(kind) || !isPosition({ term, seq })) return this.link.bad("reset");
    this.held = [];
    this.skips.clear();
    this.mendedAt = undefined;
    if (kind === "unknown_term") this.terms = [];
    this.rollBack({ term, seq });
    this.emit("recovered", { kind, term, seq });
  }

  // -- who is there

  count({ online }) {
    if (isSeq(online)) this.online = online;
  }

  setPresent(members) {
    if (!Array.isArray(members)) return;
    this.present.clear();
    for (const member of members.filter(isMember)) this.present.set(member.id, member);
  }

  presence(frame) {
    if (this.state !== "joined") return;
    const { event, member } = frame;
    this.count(frame);
    if (event === "count") this.syncSoon();
    else if (!["join", "leave", "rename"].includes(event) || !isMember(member)) return this.link.bad("presence");
    const before = this.present.get(member?.id);
    if (event === "leave") this.present.delete(member.id);
    else if (event !== "count") this.present.set(member.id, member);
    if (event === "join" && before) return; // told again after a fault: no news
    this.emit("presence", { event, member: event === "count" ? undefined : member, was: before?.name, online: this.online });
  }

  // In a crowd only the count is told. While one page holds all, it is worth asking who they are.
  syncSoon() {
    if (this.syncing || this.unseeing || this.online > SYNC_BELOW) return;
    this.syncing = true;
    this.later(1000 + 4000 * this.link.options.random(), () => {
      this.syncing = false;
      if (this.state === "joined") this.read("members", { limit: SYNC_BELOW }).catch(({ code }) => {
        // Who may not see others is not told who they are, however often it asks.
        if (code === "forbidden") this.unseeing = true;
      });
    });
  }

  // -- questions: repeated after a lost connection, as nothing depends on how often they are asked

  read(type, { before = undefined, after = undefined, cursor = undefined, limit = undefined } = {}) {
    const { link } = this;
    const gone = this.gone ?? link.stopped;
    if (gone) return refusal(gone);
    if (this.reads.size >= MOST_READS) return refusal(this.error("overloaded", "too many questions at a time", { retryable: true }));
    const { promise, resolve, reject } = deferred();
    const read = { frame: { type, room: this.id, before, after, cursor, limit } };
    const timer = link.later(link.options.timeoutMs, () => read.settle(this.error("timeout", "no answer in time", { retryable: true })));
    read.settle = (error, value) => {
      link.cancel(timer);
      this.reads.delete(read);
      if (error) reject(error);
      else resolve(value);
    };
    this.reads.add(read);
    if (this.state === "joined") this.sendRead(read);
    return promise;
  }

  sendRead(read) {
    this.link.ask(read.frame, (answer) => {
      const { type, cursor } = read.frame;
      const { next } = answer;
      if (!this.reads.has(read)) return undefined;
      if (answer.type === "error") return read.settle(fromFrame(answer, this.id));
      if (answer.type === "history" && type === "history" && Array.isArray(answer.messages)) {
        const messages = answer.messages.filter(isMessage).map(({ id, from, ts, data, seq, term }) => ({ room: this.id, id,
          from, ts, data, seq, term, own: this.link.mine.has(from.id), replayed: true }));
        return read.settle(undefined, { messages, next: isSeq(next) ? next : undefined });
      }
      if (answer.type === "members" && type === "members" && Array.isArray(answer.members)) {
        const whole = cursor === undefined && next === undefined;
        this.count(answer);
        if (whole) {
          this.setPresent(answer.members);
          this.emit("presence", { event: "list", online: this.online });
        }
        return read.settle(undefined, { members: answer.members.filter(isMember), online: this.online,
          next: isText(next) ? next : undefined });
      }
      return read.settle(this.error("bad_frame", "an answer of another kind"));
    });
  }

  // -- publishing

  publish(data, { id = undefined, echo = true, timeoutMs = this.link.options.timeoutMs } = {}) {
    const { link } = this;
    const { maxQueuedMessages, maxQueuedBytes } = link.options;
    let json, cause;
    try {
      json = JSON.stringify(data);
    } catch (thrown) {
      cause = thrown;
    }
    if (json === undefined) return refusal(this.error("bad_data", "data is no JSON", { cause }));
    if (id !== undefined && (!isText(id) || id === "" || byteLength(id) > 128)) {
      return refusal(this.error("bad_data", "an id has 1 to 128 bytes"));
    }
    const gone = this.gone ?? link.stopped;
    if (gone) return refusal(gone);
    if (this.mode === "ephemeral" && this.state !== "joined") return refusal(this.notConnected());
    const bytes = byteLength(json) + 200; // about what the frame has
    if (bytes - 200 > link.limits.messageBytes) return refusal(this.tooLarge());
    if (link.queued.count >= maxQueuedMessages || link.queued.bytes + bytes > maxQueuedBytes) {
      return refusal(this.error("overloaded", "too many messages wait to be sent", { retryable: true }));
    }
    const { promise, resolve, reject } = deferred();
    const entry = { json, id, ownId: id !== undefined, quiet: !echo, bytes, tries: 0, sent: false, doubt: false,
      until: Date.now() + timeoutMs };
    const late = () => this.error("timeout", entry.doubt || entry.sent ? "no answer in time: it may be stored or not"
      : "not sent in time", { retryable: true });
    const timer = Number.isFinite(timeoutMs) ? link.later(timeoutMs, () => entry.settle(late())) : undefined;
    entry.expire = () => Date.now() >= entry.until && (entry.settle(late()), true);
    entry.settle = (error, value) => {
      if (entry.settled) return;
      entry.settled = true;
      link.cancel(timer);
      this.outbox = this.outbox.filter((one) => one !== entry);
      link.queued.count -= 1;
      link.queued.bytes -= bytes;
      if (error) reject(error);
      else resolve({ room: this.id, ...value });
    };
    link.queued.count += 1;
    link.queued.bytes += bytes;
    this.outbox.push(entry);
    link.pump();
    return promise;
  }

  next() {
    if (this.state !== "joined" || this.paused) return undefined;
    return this.outbox.find((entry) => !entry.sent && !entry.expire());
  }

  send(entry) {
    const { link } = this;
    const id = entry.id ?? `${this.producer}#${this.number}`;
    const text = `{"type":"publish","room":${JSON.stringify(this.id)},"id":${JSON.stringify(id)},"ref":${link.counter + 1}${
      entry.quiet ? ',"echo":false' : ""},"data":${entry.json}}`;
    if (byteLength(text) > link.limits.messageBytes) return entry.settle(this.tooLarge());
    if (entry.id === undefined) this.number += 1;
    entry.id = id;
    entry.sent = true;
    link.flying.count += 1;
    link.flying.bytes += entry.bytes;
    if (entry.quiet) {
      this.quietFlying += 1;
      addUpTo(MOST_HELD, this.quiet, entry.id);
    }
    link.expect((frame) => this.answered(entry, frame), () => this.unanswered(entry));
    link.write(text);
  }

  // It is no longer under way.
  landed(entry) {
    const { flying } = this.link;
    flying.count -= 1;
    flying.bytes -= entry.bytes;
    entry.sent = false;
    if (entry.quiet) this.quietFlying -= 1;
  }

  unanswered(entry) {
    this.landed(entry);
    entry.doubt = true;
    if (this.mode === "ephemeral" || this.state === "left") entry.settle(this.undecided());
  }

  answered(entry, frame) {
    const { link } = this;
    const { seq, term, code } = frame;
    this.landed(entry);
    if (frame.type === "ack") {
      link.hasten();
      if (entry.quiet && isSeq(seq) && isText(term) && this.state === "joined" && seq > this.place().seq) {
        this.skips.set(seq, { term, id: entry.id, before: frame.duplicate === true });
      }
      entry.settle(undefined, { id: entry.id, seq, term, duplicate: frame.duplicate === true });
    } else if (!entry.settled) this.refusedPublish(entry, fromFrame(frame, this.id), frame.type === "error" ? code : "bad_frame");
    this.goOn();
    link.pump();
  }

  refusedPublish(entry, error, code) {
    const { link } = this;
    entry.tries += 1;
    const mayTry = this.mode !== "ephemeral" && this.state !== "left" && entry.tries < MOST_TRIES;
    if (code === "rate_limited") link.slow();
    if (code === "undecided") entry.doubt = true;
    if (code === "stale_id" && !entry.ownId && !entry.doubt && mayTry) {
      if (entry.id.startsWith(`${this.producer}#`)) this.renumber();
      entry.id = undefined;
    } else if (code === "not_joined" && mayTry) {
      if (this.state === "joined") this.enter();
    } else if (error.retryable && mayTry && code !== "bad_frame") {
      if (!this.paused) {
        this.paused = true;
        this.later(Math.min(10_000, 250 * 2 ** entry.tries) * (1 + link.options.random()) / 2, () => {
          this.paused = false;
          link.pump();
        });
      }
    } else entry.settle(error);
  }

  // -- the end of a connection, of membership, of everything

  disconnected() {
    this.state = "joining";
    for (const timer of this.timers) this.link.cancel(timer);
    this.timers.clear();
    this.paused = this.syncing = false;
    this.held = [];
    this.skips.clear();
    if (this.mode === "ephemeral") for (const { settle } of [...this.outbox]) settle(this.notConnected());
  }

  // All that waits is told why it will not be.
  fail(error) {
    for (const { settle } of [...this.outbox, ...this.reads]) settle(error);
    this.disconnected();
  }

  // The room is over for this client, by its own wish or, which is told, by the server's.
  end(error, tell = false) {
    this.gone ??= error;
    // What was sent before may have been stored before.
    if (tell) for (const { sent, settle } of [...this.outbox]) if (sent) settle(this.undecided());
    this.fail(error);
    this.state = "left";
    this.ready.reject(error);
    this.link.lines.delete(this.id);
    if (!tell) return;
    this.report(error);
    this.emit("left", { reason: error.code });
  }

  removed(frame) {
    if (this.state !== "joined") return;
    const reason = isText(frame.reason) ? frame.reason : "removed";
    this.end(this.error(reason, "the server removed this client from the room"), true);
  }

  leave() {
    const { link } = this;
    if (this.state === "left") return Promise.resolve();
    const { promise, resolve } = deferred();
    const done = () => resolve();
    if (link.status.state === "open") link.ask({ type: "leave", room: this.id }, done, done);
    else done();
    // What was sent before is answered before, and keeps its place in the order.
    this.outbox = this.outbox.filter(({ sent }) => !sent);
    this.end(this.error("left", "the room was left"));
    this.emit("left", { reason: "left" });
    return promise;
  }
}

// ---- what users hold

const lineOf = new WeakMap();

/** A room, from `client.join()`. It is joined again after every reconnect, until `leave()`. */
export class Room extends Emitter {
  constructor(line) {
    super();
    lineOf.set(this, line);
  }

  get id() { return lineOf.get(this).id; }
  get state() { return lineOf.get(this).state; }
  get mode() { return lineOf.get(this).mode; }
  get online() { return lineOf.get(this).online; }
  get present() { return lineOf.get(this).present; }
  get ready() {
    const { link, ready, gone } = lineOf.get(this);
    return link.stopped && !gone ? refusal(link.stopped) : ready.promise;
  }

  get position() {
    const { position } = lineOf.get(this);
    return position && { ...position };
  }

  publish(data, options) { return lineOf.get(this).publish(data, options); }
  history(page) { return lineOf.get(this).read("history", page); }
  members(page) { return lineOf.get(this).read("members", page); }
  leave() { return lineOf.get(this).leave(); }
}

const linkOf = new WeakMap();

/** A client: one connection, any number of rooms. Connects by itself, and again whenever the connection is lost. */
export class Roomcast extends Emitter {
  constructor(url, options = {}) {
    super();
    const link = new Link(this, url, options);
    linkOf.set(this, link);
    if (link.options.autoConnect) queueMicrotask(() => link.era === 0 && link.start());
  }

  get status() { return linkOf.get(this).status; }
  get name() { return linkOf.get(this).name ?? linkOf.get(this).status.name; }
  get rooms() { return [...linkOf.get(this).lines.values()].map((line) => line.room); }

  /** Connects now instead of waiting, and again after the server has sent this client away for good. */
  connect() {
    const link = linkOf.get(this);
    if (link.ended) throw new RoomcastError("closed", "the client was closed");
    if (["waiting", "closed"].includes(link.status.state)) link.start();
  }

  /** Joins a room, or makes one under a name that nobody knows. The same room twice is the same object. */
  join(id = uuid(), options = {}) {
    const link = linkOf.get(this);
    if (!isText(id)) throw new TypeError("a room's id is a string");
    if (link.ended) throw new RoomcastError("closed", "the client was closed");
    const known = link.lines.get(id);
    if (known) return known.room;
    const line = new Line(link, id, options);
    link.lines.set(id, line);
    if (link.status.state === "open") line.enter();
    return line.room;
  }

  rename(name) { return linkOf.get(this).rename(name); }

  /** Ends everything: what waits is rejected, no timer or listener stays. Resolves when the socket is closed. */
  close() { return linkOf.get(this).close(); }
}
