// A server that says what a test wants, and time that passes when a test says so.

import assert from "node:assert/strict";

import { Roomcast } from "../src/roomcast.js";

export const START = 1_700_000_000_000;
const real = { setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout, now: Date.now };

// Timers in the order in which they are due, each at its own moment. (Those of node:test jump to the end of a step first.)
class Clock {
  constructor() {
    Object.assign(this, { now: START, timers: [] });
    globalThis.setTimeout = (run, ms = 0) => {
      const timer = { run, due: this.now + ms };
      this.timers.push(timer);
      return timer;
    };
    globalThis.clearTimeout = (timer) => (this.timers = this.timers.filter((one) => one !== timer));
    Date.now = () => this.now;
  }

  next(until) {
    const due = this.timers.filter((timer) => timer.due <= until);
    return due.reduce((a, b) => (a && a.due <= b.due ? a : b), undefined);
  }

  async pass(ms) {
    const end = this.now + ms;
    for (let timer = this.next(end); timer; timer = this.next(end)) {
      this.now = Math.max(this.now, timer.due);
      clearTimeout(timer);
      timer.run();
      await settle();
    }
    this.now = Math.max(this.now, end);
    await settle();
  }

  restore() {
    Object.assign(globalThis, { setTimeout: real.setTimeout, clearTimeout: real.clearTimeout });
    Date.now = real.now;
  }
}

let clock;

export function fakeTime(t) {
  clock = new Clock();
  t.after(() => clock.restore());
}

export const pass = (ms) => clock.pass(ms);

// The machine sleeps: the time is another, and no timer ran meanwhile.
export async function sleep(ms) {
  clock.now += ms;
  await clock.pass(0);
}

export const timersLeft = () => clock.timers.length;

class FakeSocket {
  constructor(server, url, protocols) {
    Object.assign(this, { server, url: new URL(url), protocols, readyState: 0, sent: [], closedWith: undefined });
    this.onmessage = this.onclose = this.onerror = null;
  }

  // What the client does.

  send(text) {
    assert.equal(this.readyState, 1, "sent on a socket that is not open");
    const frame = JSON.parse(text);
    this.sent.push(frame);
    this.server.answer?.(frame, this);
  }

  close(code) {
    if (this.readyState >= 2) return;
    this.readyState = 2;
    this.closedWith = code;
    queueMicrotask(() => this.drop(code));
  }

  // What the server does.

  raw(data) {
    this.onmessage?.({ data });
  }

  say(frame) {
    this.raw(JSON.stringify(frame));
  }

  welcome(more = {}) {
    this.readyState = 1;
    this.server.connections += 1;
    this.say({ type: "welcome", clientId: `c${this.server.connections}`, roomId: null, nodeId: `n${this.server.connections}`,
      name: this.url.searchParams.get("name") ?? "guest", session: "s", pingIntervalMs: 25_000,
      limits: { messageBytes: 65_536, rooms: 64, publishRate: 0, queueBytes: 262_144 }, ...more });
  }

  drop(code = 1006, reason = "") {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  // What it said of one type, oldest first.
  all(type) {
    return this.sent.filter((frame) => frame.type === type);
  }

  only(type) {
    const found = this.all(type);
    assert.equal(found.length, 1, `${found.length} frames ${type}`);
    return found[0];
  }
}

export class FakeServer {
  constructor() {
    this.sockets = [];
    this.connections = 0;
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        super(server, url, protocols);
        server.sockets.push(this);
      }
    };
  }

  get last() {
    return this.sockets.at(-1);
  }
}

export const message = (seq, more = {}) => ({ type: "message", room: "lobby", seq, term: "t1", id: `other#${seq}`,
  from: { id: "x", name: "xan" }, ts: START, data: seq, ...more });

export const joined = (frame, more = {}) => ({ type: "joined", ref: frame.ref, room: frame.room, mode: "durable", term: null, seq: 0,
  recovery: frame.since ? "resumed" : "fresh", online: 1, members: [], messages: [], ...more });

// Lets what waits for promises happen.
export async function settle() {
  for (let turn = 0; turn < 12; turn += 1) await Promise.resolve();
}

// A client before a fake server. Waits are half of their ceiling unless `random` says otherwise.
export async function start(t, options = {}) {
  fakeTime(t);
  const server = new FakeServer();
  const seen = { status: [], errors: [] };
  const { url = "wss://gateway.example", ...rest } = options;
  const client = new Roomcast(url, { WebSocket: server.WebSocket, random: () => 0.5, ...rest });
  client.on("status", (status) => seen.status.push(status));
  client.on("error", (error) => seen.errors.push(error));
  t.after(() => client.close());
  await settle();
  return { client, server, seen };
}

// The same, connected and in the room `lobby`, whose events are kept.
// `alive`: the server answers pings.
export async function inLobby(t, { answer = {}, alive = false, welcome, ...options } = {}) {
  const all = await start(t, options);
  if (alive) all.server.answer = (frame, socket) => frame.type === "ping" && socket.say({ type: "pong" });
  const { client, server } = all;
  const room = client.join("lobby");
  const events = record(room);
  server.last.welcome(welcome);
  server.last.say(joined(server.last.only("join"), { term: "t1", seq: 10, ...answer }));
  await settle();
  return { ...all, room, events, socket: server.last };
}

export function record(room) {
  const events = { joined: [], message: [], presence: [], recovered: [], left: [], error: [], log: [] };
  for (const name of Object.keys(events).filter((name) => name !== "log")) {
    room.on(name, (value) => {
      events[name].push(value);
      events.log.push(name === "message" ? value.seq ?? value.data : name === "recovered" ? value.kind : name);
    });
  }
  return events;
}

// What became of a promise so far.
export function watch(promise) {
  const outcome = { state: "pending" };
  promise.then((value) => Object.assign(outcome, { state: "resolved", value }),
    (error) => Object.assign(outcome, { state: "rejected", error, code: error.code }));
  return outcome;
}
