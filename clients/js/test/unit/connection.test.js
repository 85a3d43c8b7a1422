// When the client connects, waits, stops and lets go.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { Roomcast } from "../../src/roomcast.js";
import { FakeServer, fakeTime, inLobby, joined, pass, settle, sleep, start, timersLeft } from "../fake.js";

const comeBack = (client) => pass(client.status.retryInMs);
const waits = (seen) => seen.status.filter(({ state }) => state === "waiting").map(({ retryInMs }) => retryInMs);

describe("the address", () => {
  for (const [given, expected] of [
    ["wss://a.example", "wss://a.example/connect?name=ann"],
    ["https://a.example/", "wss://a.example/connect?name=ann"],
    ["http://a.example:8080", "ws://a.example:8080/connect?name=ann"],
    ["wss://a.example/chat/connect?x=1#y", "wss://a.example/chat/connect?x=1&name=ann"],
  ]) {
    test(given, async (t) => {
      const { server } = await start(t, { url: given, name: "ann" });
      assert.equal(server.last.url.href, expected);
      assert.deepEqual(server.last.protocols, ["roomcast.v1.json"]);
    });
  }

  test("several are tried in turn", async (t) => {
    const { client, server } = await start(t, { url: ["ws://a.example", "ws://b.example"] });
    const hosts = [];
    for (let attempt = 0; attempt < 4; attempt += 1) {
      hosts.push(server.last.url.host);
      server.last.drop();
      await comeBack(client);
    }
    assert.deepEqual(hosts, ["a.example", "b.example", "a.example", "b.example"]);
  });

  test("one that cannot be ends in closed, without trying again", async (t) => {
    class Picky {
      constructor() {
        throw new SyntaxError("no");
      }
    }
    const { client, seen } = await start(t, { WebSocket: Picky });
    await pass(100_000);
    assert.equal(client.status.state, "closed");
    assert.equal(seen.errors[0].code, "bad_url");
    assert.equal(seen.errors[0].cause.message, "no");
  });

  test("nonsense is refused at once", () => {
    for (const url of ["", "not a url", []]) assert.throws(() => new Roomcast(url, { WebSocket: class {} }));
    if (!globalThis.WebSocket) assert.throws(() => new Roomcast("ws://a.example"), /pass one as an option/);
  });

  test("so is a name that no server takes: it would be refused for ever", () => {
    for (const name of ["", "é".repeat(33), "a\nb", 5]) {
      assert.throws(() => new Roomcast("ws://a.example", { WebSocket: class {}, name, autoConnect: false }), { code: "bad_name" });
    }
  });

  test("autoConnect: false waits for connect()", async (t) => {
    const { client, server } = await start(t, { autoConnect: false });
    await pass(60_000);
    assert.equal(server.sockets.length, 0);
    client.connect();
    assert.equal(server.sockets.length, 1);
    client.connect();
    assert.equal(server.sockets.length, 1, "connecting already");
  });
});

describe("close codes", () => {
  const STOPS = [1002, 1003, 1007, 4403, 4409];
  const SOON = [1000, 1001, 1005, 1006, 1011, 1012, 4408, 4999];
  const LATE = [1008, 1009, 1013];

  for (const code of STOPS) {
    test(`${code} ends it`, async (t) => {
      const { client, server, seen, room } = await inLobby(t);
      const waiting = room.publish(1).catch((error) => error);
      server.last.drop(code, "why");
      await pass(600_000);
      assert.equal(server.sockets.length, 1);
      assert.equal(client.status.state, "closed");
      assert.equal(client.status.code, code);
      assert.equal((await waiting).code, "stopped");
      assert.equal((await room.publish(2).catch((error) => error)).code, "stopped");
      assert.match(seen.errors.at(-1).message, new RegExp(`${code} why`));
      // By hand it may be tried again, and rooms are joined anew.
      client.connect();
      server.last.welcome();
      assert.equal(server.last.only("join").since.seq, 10);
    });
  }

  for (const code of SOON) {
    test(`${code} waits up to half a second`, async (t) => {
      const { client, server, seen } = await inLobby(t, { random: () => 1 });
      await pass(10_000);
      server.last.drop(code);
      assert.equal(client.status.state, "waiting");
      assert.equal(client.status.code, code);
      assert.equal(client.status.nodeId, "n1");
      assert.deepEqual(waits(seen), [500]);
      await pass(499);
      assert.equal(server.sockets.length, 1);
      await pass(1);
      assert.equal(server.sockets.length, 2);
    });
  }

  for (const code of LATE) {
    test(`${code} waits longer, and never nearly nothing`, async (t) => {
      for (const [random, first] of [[0, 2500], [1, 5000]]) {
        await t.test(`chance ${random}`, async (t) => {
          const { server, seen } = await inLobby(t, { random: () => random });
          server.last.drop(code);
          assert.deepEqual(waits(seen), [first]);
          await pass(first);
          server.last.drop(code);
          assert.deepEqual(waits(seen), [first, first * 2]);
        });
      }
    });
  }
});

describe("4429, as many connections as the user may have", () => {
  test("waits half a minute or more, whatever else wants it back", async (t) => {
    for (const [random, expected] of [[0, 30_000], [1, 60_000]]) {
      await t.test(`chance ${random}`, async (t) => {
        const { server, seen } = await start(t, { random: () => random });
        server.last.readyState = 1;
        server.last.drop(4429, "connection_limit");
        await pass(expected);
        server.last.drop(4429, "connection_limit");
        assert.deepEqual(waits(seen), [expected, expected]);
      });
    }
  });

  test("less after a connection of its own, which may still be counted", async (t) => {
    const { client, server, seen } = await inLobby(t, { random: () => 1 });
    server.last.drop(1006);
    await comeBack(client);
    server.last.drop(4429);
    assert.deepEqual(waits(seen), [500, 10_000]);
  });
});

describe("waits", () => {
  test("their ceiling doubles up to the longest, and begins anew after a stable time", async (t) => {
    const { client, server, seen } = await start(t, { random: () => 1 });
    for (let attempt = 0; attempt < 8; attempt += 1) {
      server.last.drop();
      await comeBack(client);
    }
    assert.deepEqual(waits(seen), [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    assert.deepEqual(seen.status.filter(({ state }) => state === "connecting").map(({ attempt }) => attempt),
      [0, 1, 2, 3, 4, 5, 6, 7, 8]);

    server.last.welcome();
    await pass(9_999);
    server.last.drop();
    assert.equal(waits(seen).at(-1), 30_000, "it was not stable yet");
    await pass(30_000);
    server.last.welcome();
    await pass(10_000);
    server.last.drop();
    assert.equal(waits(seen).at(-1), 500);
  });

  test("they are spread over everything below the ceiling", async (t) => {
    let next = 0;
    const chances = [0, 0.25, 0.999];
    const { client, server, seen } = await start(t, { random: () => chances[next++ % 3] });
    for (let attempt = 0; attempt < 3; attempt += 1) {
      server.last.drop();
      await comeBack(client);
    }
    assert.deepEqual(waits(seen), [0, 500, 3996]);
  });

  test("maxDelayMs bounds them", async (t) => {
    const { client, server, seen } = await start(t, { random: () => 1, maxDelayMs: 1500 });
    for (let attempt = 0; attempt < 3; attempt += 1) {
      server.last.drop(1013);
      await comeBack(client);
    }
    assert.deepEqual(waits(seen), [1500, 1500, 1500]);
  });

  test("what an implementation says of a refusal is passed on", async (t) => {
    const { client, server } = await start(t);
    server.last.onerror({ message: "Unexpected server response: 503" });
    server.last.drop(1006);
    assert.equal(client.status.reason, "Unexpected server response: 503");
    await comeBack(client);
    server.last.drop(1006);
    assert.equal(client.status.reason, "");
  });

  test("connect() does not wait", async (t) => {
    const { client, server } = await start(t);
    server.last.drop();
    client.connect();
    assert.equal(server.sockets.length, 2);
    await pass(60_000 - 46_000);
    assert.equal(server.sockets.length, 2, "the timer of before is gone");
  });
});

describe("reconnect", () => {
  test("afterMs is kept exactly, counted from the frame", async (t) => {
    const { server, socket } = await inLobby(t, { random: () => 0.01 });
    await pass(20_000);
    socket.say({ type: "reconnect", reason: "draining", afterMs: 611 });
    await pass(100);
    socket.drop(1012, "draining");
    await pass(510);
    assert.equal(server.sockets.length, 1);
    await pass(1);
    assert.equal(server.sockets.length, 2);
  });

  test("it is kept even if the node breaks instead, and once only", async (t) => {
    const { server, socket, seen } = await inLobby(t);
    socket.say({ type: "reconnect", reason: "draining", afterMs: 900 });
    socket.drop(1006);
    await pass(900);
    server.last.drop(1006);
    assert.deepEqual(waits(seen), [900, 1000]);
  });

  test("a node that does not close is left", async (t) => {
    const { server, socket } = await inLobby(t);
    socket.say({ type: "reconnect", reason: "rebalanced", afterMs: 300 });
    await pass(300);
    assert.equal(socket.closedWith, 1000);
    await pass(0);
    assert.equal(server.sockets.length, 2);
  });

  test("nonsense is told and ignored; too long is cut", async (t) => {
    const { socket, seen } = await inLobby(t);
    for (const afterMs of [-1, "5", null, undefined]) socket.say({ type: "reconnect", afterMs });
    assert.deepEqual(seen.errors.map(({ code }) => code), Array(4).fill("bad_frame"));
    socket.say({ type: "reconnect", afterMs: 1e12 });
    socket.drop(1012);
    assert.deepEqual(waits(seen), [30_000]);
  });
});

describe("a dead connection", () => {
  test("is found by asking after silence, and only then", async (t) => {
    const { server, socket, client } = await inLobby(t);
    await pass(15_000);
    assert.equal(socket.all("ping").length, 0, "the frames of the beginning were signs of life");
    await pass(15_000);
    assert.equal(socket.all("ping").length, 1);
    socket.say({ type: "pong" });
    await pass(10_000 + 15_000);
    assert.equal(socket.all("ping").length, 2);
    await pass(9_999);
    assert.equal(client.status.state, "open");
    await pass(1);
    assert.equal(client.status.state, "waiting");
    assert.equal(client.status.code, 1006);
    await pass(500);
    assert.equal(server.sockets.length, 2);
  });

  test("frames of any kind are signs of life", async (t) => {
    const { socket, client } = await inLobby(t);
    for (let turn = 0; turn < 20; turn += 1) {
      await pass(7_000);
      socket.say({ type: "news", of: "a later version" });
    }
    assert.equal(socket.all("ping").length, 0);
    assert.equal(client.status.state, "open");
  });

  test("after a sleep it is asked for before it is given up", async (t) => {
    const { socket, client } = await inLobby(t);
    await pass(30_000);
    assert.equal(socket.all("ping").length, 1);
    await sleep(3_600_000);
    assert.equal(client.status.state, "open");
    assert.equal(socket.all("ping").length, 2);
    await pass(5_000);
    assert.equal(client.status.state, "waiting");
  });

  test("one that never says welcome is given up", async (t) => {
    const { server, client } = await start(t);
    server.last.readyState = 1;
    await pass(15_000);
    assert.equal(client.status.state, "waiting");
    assert.equal(server.last.closedWith, 1000);
  });

  test("is let go by terminate where there is one, and what it says later is not heard", async (t) => {
    const { socket, client, server, events } = await inLobby(t);
    socket.terminate = () => (socket.terminated = true);
    await pass(40_000);
    assert.ok(socket.terminated);
    await pass(500);
    assert.equal(server.sockets.length, 2);
    socket.say({ type: "message", room: "lobby" });
    socket.drop(4403);
    assert.equal(client.status.state, "connecting");
    assert.equal(events.message.length, 0);
  });
});

describe("a browser", () => {
  beforeEach(() => {
    globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    const target = new EventTarget();
    globalThis.addEventListener = target.addEventListener.bind(target);
    globalThis.removeEventListener = target.removeEventListener.bind(target);
    globalThis.dispatchEvent = target.dispatchEvent.bind(target);
  });
  afterEach(() => {
    for (const name of ["document", "addEventListener", "removeEventListener", "dispatchEvent"]) delete globalThis[name];
  });
  const WAKES = {
    online: () => globalThis.dispatchEvent(new Event("online")),
    "the page looked at": () => globalThis.document.dispatchEvent(new Event("visibilitychange")),
  };

  for (const [what, wake] of Object.entries(WAKES)) {
    test(`${what}: comes back at once`, async (t) => {
      const { server } = await start(t, { random: () => 1 });
      server.last.drop();
      wake();
      assert.equal(server.sockets.length, 2);
      wake();
      assert.equal(server.sockets.length, 2);
    });

    test(`${what}: not if the server asked to wait`, async (t) => {
      const { server, socket } = await inLobby(t);
      socket.say({ type: "reconnect", reason: "draining", afterMs: 500 });
      socket.drop(1012);
      wake();
      assert.equal(server.sockets.length, 1);
      await pass(500);
      server.last.drop(1013);
      wake();
      assert.equal(server.sockets.length, 2);
    });

    test(`${what}: an open connection has to prove itself`, async (t) => {
      const { client, socket } = await inLobby(t);
      wake();
      assert.equal(socket.all("ping").length, 1);
      await pass(5_000);
      assert.equal(client.status.state, "waiting");
    });
  }

  test("a page that is hidden is no reason", async (t) => {
    const { server } = await start(t);
    server.last.drop();
    globalThis.document.visibilityState = "hidden";
    WAKES["the page looked at"]();
    assert.equal(server.sockets.length, 1);
  });

  test("nobody listens after close", async (t) => {
    const { client, server } = await start(t, { autoConnect: false });
    await client.close();
    for (const wake of Object.values(WAKES)) wake();
    assert.equal(server.sockets.length, 0);
  });
});

describe("once the server has closed for good", () => {
  test("nobody waits for a room, neither for an earlier one nor for a new one", async (t) => {
    const { client, server } = await start(t);
    const early = client.join("early");
    const waiting = early.ready;
    server.last.welcome();
    server.last.drop(4403);
    await assert.rejects(waiting, { code: "stopped" });
    await assert.rejects(early.ready, { code: "stopped" });
    await assert.rejects(client.join("late").ready, { code: "stopped" });
  });
});

describe("close()", () => {
  test("ends everything, whatever the state", async (t) => {
    for (const state of ["before", "connecting", "waiting", "open", "stopped"]) {
      await t.test(state, async (t) => {
        const { client, server, seen } = await start(t, { autoConnect: state !== "before" });
        const room = client.join("lobby");
        const outcomes = [room.publish(1), room.history(), room.members(), room.ready].map((one) => one.catch(({ code }) => code));
        if (state === "waiting") server.last.drop();
        if (state === "open") server.last.welcome();
        if (state === "stopped") server.last.drop(4403);
        const first = client.close();
        assert.equal(client.close(), first);
        await first;
        assert.equal(timersLeft(), 0);
        const expected = Array(4).fill(state === "stopped" ? "stopped" : "closed");
        assert.deepEqual(await Promise.all(outcomes), expected);
        assert.equal(room.state, "left");
        assert.equal(client.status.state, "closed");
        const sockets = server.sockets.length;
        await pass(3_600_000);
        assert.equal(server.sockets.length, sockets);
        assert.equal(seen.status.at(-1).state, "closed");
        assert.throws(() => client.connect(), { code: "closed" });
        assert.throws(() => client.join("other"), { code: "closed" });
        await assert.rejects(client.rename("x"), { code: "closed" });
        await assert.rejects(room.publish(1), { code: "closed" });
        await assert.rejects(room.history(), { code: "closed" });
        await room.leave();
      });
    }
  });

  test("closes as one should, where the connection is not dead", async (t) => {
    const { client, socket } = await inLobby(t);
    socket.terminate = () => (socket.terminated = true);
    await client.close();
    assert.equal(socket.closedWith, 1000);
    assert.equal(socket.terminated, undefined);
  });

  test("does not wait forever for the other side", async (t) => {
    const { client, socket } = await inLobby(t);
    socket.close = nothingHappens;
    let done = false;
    client.close().then(() => (done = true));
    await pass(999);
    assert.equal(done, false);
    await pass(1);
    assert.equal(done, true);
  });
  function nothingHappens() {}

  test("from a listener, in the midst of anything", async (t) => {
    for (const event of ["connecting", "open", "joined", "message", "waiting"]) {
      await t.test(event, async (t) => {
        const { client, server, seen } = await start(t, { autoConnect: false });
        const room = client.join("lobby");
        client.on("status", ({ state }) => state === event && client.close());
        if (event === "joined" || event === "message") room.on(event, () => client.close());
        client.connect();
        server.last?.welcome();
        const join = server.last?.all("join")[0];
        if (join) server.last.say(joined(join, { term: "t1", seq: 2, messages: [1, 2].map((seq) => ({ type: "message", room: "lobby", seq,
          term: "t1", id: `${seq}`, from: { id: "x", name: "x" }, ts: 1, data: 1 })) }));
        if (event === "waiting") server.last.drop();
        await pass(100_000);
        assert.equal(seen.status.at(-1).state, "closed");
        assert.deepEqual(seen.errors, []);
        assert.ok(server.sockets.length <= 1);
      });
    }
  });
});

describe("listeners", () => {
  test("that throw or reject disturb nobody", async (t) => {
    const { client, server, seen } = await start(t);
    const order = [];
    client.on("status", () => {
      throw new Error("first");
    });
    client.on("status", async () => {
      throw new Error("second");
    });
    client.on("status", ({ state }) => order.push(state));
    server.last.welcome();
    await settle();
    assert.deepEqual(order, ["open"]);
    assert.deepEqual(seen.errors.map(({ code, cause }) => [code, cause.message]), [["listener", "first"], ["listener", "second"]]);
  });

  test("of errors that throw are told on the console", async (t) => {
    const { client, server } = await start(t);
    const told = mock.method(console, "error", () => {});
    t.after(() => told.mock.restore());
    client.on("error", () => {
      throw new Error("oh");
    });
    server.last.raw("}");
    assert.equal(told.mock.callCount(), 1);
  });

  test("errors without any are warnings", async (t) => {
    fakeTime(t);
    const told = mock.method(console, "warn", () => {});
    t.after(() => told.mock.restore());
    const server = new FakeServer();
    const client = new Roomcast("ws://a.example", { WebSocket: server.WebSocket });
    await settle();
    server.last.raw("}");
    assert.match(told.mock.calls[0].arguments[0], /bad_frame/);
    await client.close();
  });

  test("on, once and off", async (t) => {
    const { client, server } = await start(t);
    const heard = [];
    const off = client.on("status", ({ state }) => heard.push(`on ${state}`));
    client.once("status", ({ state }) => heard.push(`once ${state}`));
    const listener = () => heard.push("never");
    client.on("status", listener);
    client.off("status", listener);
    server.last.welcome();
    server.last.drop();
    off();
    client.connect();
    assert.deepEqual(heard, ["on open", "once open", "on waiting"]);
    assert.throws(() => client.on("status"), TypeError);
  });
});
