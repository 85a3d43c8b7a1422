// A server, or whoever sits in between, that says what cannot be.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { inLobby, joined, message, pass, record, settle, start, watch } from "../fake.js";

const WRONG = [undefined, null, true, 0, -1, 1.5, 2 ** 60, "", "x", [], [[]], {}, { id: 1 }, "__proto__", "constructor"];
const TYPES = ["welcome", "joined", "message", "presence", "ack", "left", "pong", "history", "members", "reset", "reconnect", "error",
  "refreshed", "constructor", "__proto__", "toString", "news", ""];
const KEYS = ["ref", "room", "id", "from", "seq", "term", "mode", "recovery", "online", "members", "messages", "rollback", "event",
  "member", "reason", "afterMs", "code", "message", "retryable", "clientId", "nodeId", "limits", "data", "next", "expiresAtMs"];

// It goes on as if nothing had been.
async function works({ client, server, room, events }) {
  const socket = server.last;
  const before = events.message.length;
  const { seq } = room.position;
  socket.say(message(seq + 1));
  assert.equal(events.message.length, before + 1);
  const sent = room.publish("still here");
  const { ref, id } = socket.all("publish").at(-1);
  socket.say({ type: "ack", ref, id, room: "lobby", seq: seq + 2, term: "t1" });
  assert.equal((await sent).seq, seq + 2);
  assert.equal(client.status.state, "open");
}

describe("what is no frame", () => {
  const NO_FRAMES = ["", " ", "{", "null", "1", "[]", '"text"', "{}", '{"type":1}', '{"type":null}', "\u0000", "[".repeat(100_000),
    new ArrayBuffer(8), new Uint8Array(8), undefined, { toString: () => "{}" }];
  for (const text of NO_FRAMES) {
    test(String(text).slice(0, 20), async (t) => {
      const all = await inLobby(t);
      all.socket.raw(text);
      assert.deepEqual(all.seen.errors.map(({ code }) => code), ["bad_frame"]);
      await works(all);
    });
  }

  test("a frame of many megabytes is not even read", async (t) => {
    const all = await inLobby(t);
    const text = JSON.stringify(message(11, { data: "x".repeat(17 * 2 ** 20) }));
    all.socket.raw(text);
    assert.equal(all.seen.errors[0].code, "bad_frame");
    assert.equal(all.events.message.length, 0);
    await works(all);
  });
});

describe("before welcome", () => {
  test("nothing counts", async (t) => {
    const { client, server, seen } = await start(t);
    const room = client.join("lobby");
    const events = record(room);
    server.last.readyState = 1;
    for (const type of TYPES.filter((type) => type !== "welcome" && type !== "")) server.last.say({ type, room: "lobby", reason: "gap", term: "t", seq: 1,
      afterMs: 0, ref: 1 });
    assert.ok(seen.errors.every(({ code }) => code === "bad_frame"));
    assert.equal(client.status.state, "connecting");
    assert.deepEqual(events.log, []);
    assert.deepEqual(server.last.sent, []);
  });

  test("a welcome that is none, and a second one", async (t) => {
    const { client, server, seen } = await start(t);
    server.last.readyState = 1;
    for (const wrong of [undefined, 5, {}]) server.last.say({ type: "welcome", clientId: wrong, nodeId: "n" });
    assert.equal(client.status.state, "connecting");
    server.last.welcome({ limits: { messageBytes: "x", publishRate: -5, rooms: {} } });
    assert.equal(client.status.state, "open");
    const before = seen.errors.length;
    server.last.welcome();
    assert.equal(seen.errors.length, before + 1);
    assert.equal(seen.status.filter(({ state }) => state === "open").length, 1);
  });
});

describe("frames with wrong parts", () => {
  for (const type of TYPES) {
    test(type || "no type", async (t) => {
      const all = await inLobby(t, { url: "ws://a.example" });
      const { server, client, room } = all;
      server.answer = (frame, socket) => {
        if (frame.type === "join") socket.say(joined(frame, { term: room.position?.term ?? "t1", seq: room.position?.seq ?? 10 }));
        if (frame.type === "ping") socket.say({ type: "pong" });
      };
      for (const key of KEYS) {
        for (const wrong of WRONG) {
          const waiting = [watch(room.publish(1)), watch(room.history()), watch(room.members())];
          const refs = server.last.sent.slice(-3).map(({ ref }) => ref);
          for (const ref of [undefined, ...refs]) {
            const good = { type, ref, room: "lobby", id: "i", from: { id: "x", name: "x" }, ts: 1, data: 1, seq: room.position?.seq, term: "t1",
              mode: "durable", recovery: "resumed", online: 1, members: [], messages: [], event: "join", member: { id: "m", name: "m" },
              reason: "gap", code: "no", message: "no", retryable: false, clientId: "c", nodeId: "n" };
            server.last.say({ ...good, [key]: wrong });
          }
          await settle();
          assert.ok(waiting.every(({ state, error }) => state !== "rejected" || typeof error.code === "string"));
          if (room.state === "left") break; // it may say that, too
        }
        if (room.state === "left" || client.status.state !== "open") break;
      }
      assert.ok(["open", "waiting"].includes(client.status.state));
      assert.ok(all.seen.errors.every(({ code }) => code !== "listener"));
    });
  }

  test("messages, one part wrong at a time", async (t) => {
    const all = await inLobby(t);
    for (const key of ["id", "from", "seq", "term"]) {
      for (const wrong of [null, true, 0, -1, 1.5, [], {}, 2 ** 60]) all.socket.say(message(11, { [key]: wrong }));
    }
    all.socket.raw(JSON.stringify(message(11)).replace('"data":11', '"ata":11'));
    assert.equal(all.events.message.length, 0);
    assert.equal(all.room.state, "joined");
    await works(all);
  });

  test("a join answered with nonsense keeps the connection", async (t) => {
    for (const wrong of [{ type: "joined", room: "other" }, { type: "ack" }, { type: "joined", room: "lobby", term: 5, seq: 1 },
      { type: "joined", room: "lobby", term: "t", seq: -1 }]) {
      await t.test(JSON.stringify(wrong), async (t) => {
        const { client, server, seen } = await start(t);
        const room = client.join("lobby");
        server.last.welcome();
        server.last.say({ ...wrong, ref: server.last.only("join").ref });
        assert.equal(seen.errors[0].code, "bad_frame");
        assert.equal(room.state, "joining");
        assert.equal(client.status.state, "open");
      });
    }
  });

  test("lists with wrong entries keep the right ones", async (t) => {
    const { room, events } = await inLobby(t, { answer: { seq: 2, online: "many", messages: [null, message(1), 5, message(0), message(2), {}],
      members: [null, { id: 1, name: "x" }, { id: "a", name: "ann" }, "x"] } });
    assert.deepEqual(events.message.map(({ seq }) => seq), [1, 2]);
    assert.deepEqual([...room.present.keys()], ["a"]);
    assert.equal(room.online, 0);
  });

  test("names like those of an object's own parts are only names", async (t) => {
    const { client, server } = await start(t);
    const rooms = ["__proto__", "constructor", "hasOwnProperty"].map((id) => client.join(id));
    server.last.welcome();
    for (const join of server.last.all("join")) server.last.raw(JSON.stringify(joined(join, { members: [{ id: "__proto__", name: "x" }] })));
    assert.deepEqual(rooms.map(({ state, present }) => [state, [...present.keys()]]), rooms.map(() => ["joined", ["__proto__"]]));
    server.last.raw('{"type":"presence","room":"__proto__","event":"leave","member":{"id":"__proto__","name":"x"},"online":0}');
    assert.equal(rooms[0].present.size, 0);
    assert.equal({}.polluted, undefined);
  });
});

describe("answers to what was not asked", () => {
  test("are nothing", async (t) => {
    const all = await inLobby(t);
    for (const type of ["ack", "joined", "history", "members", "left2", "pong"]) all.socket.say({ type, ref: 999, room: "lobby", seq: 50, term: "t1" });
    assert.deepEqual(all.room.position, { term: "t1", seq: 10 });
    await works(all);
  });

  test("an ack twice is one ack", async (t) => {
    const all = await inLobby(t);
    const sent = all.room.publish(1, { echo: false });
    const { ref, id } = all.socket.only("publish");
    for (const seq of [11, 12, 13]) all.socket.say({ type: "ack", ref, id, room: "lobby", seq, term: "t1" });
    assert.equal((await sent).seq, 11);
    await works(all);
  });

  test("a server that is out of order for ever does not keep us busy by itself", async (t) => {
    const { server, events } = await inLobby(t);
    server.answer = (frame, socket) => frame.type === "join" && socket.say(joined(frame, { term: "t1", seq: 99, messages: [message(99)] }));
    server.last.say(message(50));
    await pass(0);
    assert.ok(server.last.all("join").length <= 3);
    assert.equal(events.message.at(-1).seq, 99);
  });

  test("errors without a request are told", async (t) => {
    const { socket, seen } = await inLobby(t);
    socket.say({ type: "error", code: "unknown_type", message: "what?", retryable: "yes" });
    socket.say({ type: "error" });
    assert.deepEqual(seen.errors.map(({ code, message, retryable }) => [code, message, retryable]),
      [["unknown_type", "what?", false], ["undefined", "undefined", false]]);
  });
});
