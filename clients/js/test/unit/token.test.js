// Tokens: how they are sent, when they are fetched anew, what happens when they are refused.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { START, inLobby, pass, settle, start } from "../fake.js";

const jwt = (claims) => ["{}", JSON.stringify(claims), "sig"].map((part) => Buffer.from(part).toString("base64url")).join(".");
const endingIn = (ms, more = {}) => jwt({ exp: (START + ms) / 1000, ...more });

describe("a token", () => {
  test("goes as a subprotocol and not in the address", async (t) => {
    const token = endingIn(60_000);
    const { server } = await start(t, { token });
    assert.deepEqual(server.last.protocols, ["roomcast.v1.json", `bearer.${token}`]);
    assert.ok(!server.last.url.href.includes(token));
  });

  test("from a function is fetched for each connection", async (t) => {
    let count = 0;
    const { client, server } = await start(t, { token: async () => `t${(count += 1)}` });
    server.last.drop();
    await pass(client.status.retryInMs);
    assert.deepEqual(server.sockets.map(({ protocols }) => protocols[1]), ["bearer.t1", "bearer.t2"]);
  });

  test("a function need not be async", async (t) => {
    const { server } = await start(t, { token: () => "plain" });
    assert.equal(server.last.protocols[1], "bearer.plain");
  });

  for (const [what, token] of Object.entries({
    "that throws": () => {
      throw new Error("offline");
    },
    "that rejects": async () => {
      throw new Error("offline");
    },
    "that returns no string": async () => undefined,
  })) {
    test(`a function ${what} is asked again later`, async (t) => {
      let calls = 0;
      const { client, server, seen } = await start(t, { token: () => ((calls += 1) > 2 ? "good" : token()) });
      assert.equal(seen.errors[0].code, "token");
      assert.ok(seen.errors[0].cause);
      assert.equal(client.status.state, "waiting");
      await pass(10_000);
      assert.equal(calls, 3);
      assert.equal(server.sockets.length, 1);
    });
  }

  test("that cannot be had after a long connection is asked for ever later", async (t) => {
    let fails = false;
    const { client, server, seen } = await inLobby(t, { alive: true, random: () => 1, token: async () => {
      if (fails) throw new Error("offline");
      return "t";
    } });
    await pass(60_000);
    fails = true;
    server.last.drop();
    for (let turn = 0; turn < 4; turn += 1) await pass(client.status.retryInMs);
    assert.deepEqual(seen.status.filter(({ state }) => state === "waiting").map(({ retryInMs }) => retryInMs), [500, 2000, 4000, 8000, 16_000]);
  });

  test("a function that never answers is given up and not heard later", async (t) => {
    const answers = [];
    const { client, server } = await start(t, { token: () => new Promise((resolve) => answers.push(resolve)) });
    await pass(15_000);
    assert.equal(client.status.state, "waiting");
    await pass(client.status.retryInMs);
    answers[0]("late");
    await settle();
    assert.equal(server.sockets.length, 0);
    answers[1]("good");
    await settle();
    assert.equal(server.last.protocols[1], "bearer.good");
  });

  test("one that arrives after close is not used", async (t) => {
    let answer;
    const { client, server } = await start(t, { token: () => new Promise((resolve) => (answer = resolve)) });
    await client.close();
    answer("late");
    await settle();
    assert.equal(server.sockets.length, 0);
  });

  test("its holder's name is not carried over from the server's answer", async (t) => {
    const { client, server } = await start(t, { token: "t" });
    server.last.welcome({ name: "Ann of the token" });
    assert.equal(client.name, "Ann of the token");
    server.last.drop();
    await pass(client.status.retryInMs);
    assert.equal(server.last.url.searchParams.get("name"), null);
  });
});

describe("refresh", () => {
  test("after four fifths of the time, again and again", async (t) => {
    let calls = 0;
    const { socket } = await inLobby(t, { alive: true, token: async () => endingIn(100_000 * (calls += 1)) });
    await pass(79_999);
    assert.equal(socket.all("refresh").length, 0);
    await pass(1);
    const { ref, token } = socket.only("refresh");
    assert.equal(token, endingIn(200_000));
    socket.say({ type: "refreshed", ref, expiresAtMs: START + 200_000 });
    await pass(96_000); // four fifths of the 120 s that are left
    assert.equal(socket.all("refresh").length, 2);
    assert.equal(calls, 3);
  });

  test("a token that cannot be read is refreshed as the server says", async (t) => {
    const { socket } = await inLobby(t, { alive: true, token: async () => "opaque", welcome: { expiresAtMs: START + 50_000 } });
    await pass(40_000);
    const { ref } = socket.only("refresh");
    socket.say({ type: "refreshed", ref, expiresAtMs: START + 90_000 });
    await pass(40_000);
    assert.equal(socket.all("refresh").length, 2);
  });

  test("one that does not end is refreshed never", async (t) => {
    const { socket } = await inLobby(t, { alive: true, token: async () => "opaque", welcome: { expiresAtMs: null } });
    await pass(60_000);
    assert.equal(socket.all("refresh").length, 0);
  });

  test("nor once the server says so", async (t) => {
    const { socket } = await inLobby(t, { alive: true, token: async () => "opaque", welcome: { expiresAtMs: START + 50_000 } });
    await pass(40_000);
    socket.say({ type: "refreshed", ref: socket.only("refresh").ref, expiresAtMs: null });
    await pass(600_000);
    assert.equal(socket.all("refresh").length, 1);
  });

  test("a plain string is not refreshed, nor is what does not end", async (t) => {
    for (const token of [endingIn(10_000), async () => "opaque", async () => jwt({ exp: "soon" }), async () => jwt({})]) {
      await t.test(String(token), async (t) => {
        const { socket, seen } = await inLobby(t, { alive: true, token });
        await pass(60_000);
        assert.equal(socket.all("refresh").length, 0);
        assert.deepEqual(seen.errors, []);
      });
    }
  });

  test("a function that fails, or a refusal, is told and tried again in a few seconds", async (t) => {
    let calls = 0;
    const { socket, seen } = await inLobby(t, { alive: true, token: async () => {
      calls += 1;
      if (calls === 2) throw new Error("offline");
      return endingIn(100_000);
    } });
    await pass(80_000);
    assert.equal(seen.errors.at(-1).code, "token");
    assert.equal(socket.all("refresh").length, 0);
    await pass(5_000);
    socket.say({ type: "error", ref: socket.only("refresh").ref, code: "forbidden", message: "no", retryable: false });
    assert.equal(seen.errors.at(-1).code, "forbidden");
    await pass(5_000);
    assert.equal(socket.all("refresh").length, 2);
  });

  test("the same old token again is no reason to ask all the time", async (t) => {
    const { socket } = await inLobby(t, { alive: true, token: async () => endingIn(100_000) });
    await pass(99_000);
    assert.ok(socket.all("refresh").length >= 2 && socket.all("refresh").length <= 4, `${socket.all("refresh").length}`);
    await pass(60_000);
    assert.ok(socket.all("refresh").length < 20, `${socket.all("refresh").length}`);
  });

  test("a clock that is wrong is no reason either, in neither direction", async (t) => {
    for (const [what, exp] of [["ahead", START / 1000 - 7200 + 100], ["behind", START / 1000 + 7200 + 100]]) {
      await t.test(what, async (t) => {
        const { socket } = await inLobby(t, { alive: true, token: async () => jwt({ iat: exp - 100, exp }) });
        await pass(79_999);
        assert.equal(socket.all("refresh").length, 0);
        await pass(1);
        assert.equal(socket.all("refresh").length, 1);
      });
    }
  });

  test("one that ends in a year does not overflow the timer", async (t) => {
    const { socket } = await inLobby(t, { alive: true, token: async () => endingIn(365 * 86_400_000) });
    await pass(1000);
    assert.equal(socket.all("refresh").length, 0);
  });

  test("a new connection has its own plan", async (t) => {
    const { client, server } = await inLobby(t, { alive: true, token: async () => endingIn(Date.now() - START + 100_000) });
    await pass(50_000);
    server.last.drop();
    await pass(client.status.retryInMs);
    server.last.welcome();
    await pass(79_000);
    assert.deepEqual(server.sockets.map((socket) => socket.all("refresh").length), [0, 0]);
    await pass(1_000);
    assert.deepEqual(server.sockets.map((socket) => socket.all("refresh").length), [0, 1]);
  });
});

describe("4401", () => {
  test("asks for a fresh token, and stops if that is refused too", async (t) => {
    let calls = 0;
    const { client, server } = await inLobby(t, { alive: true, token: async () => `t${(calls += 1)}` });
    server.last.drop(4401, "expired");
    assert.equal(client.status.state, "waiting");
    await pass(client.status.retryInMs);
    assert.equal(server.last.protocols[1], "bearer.t2");
    server.last.drop(4401, "bad");
    assert.equal(client.status.state, "closed");
    assert.equal(client.status.code, 4401);
    await pass(600_000);
    assert.equal(server.sockets.length, 2);
  });

  test("also if the fresh one was taken for a moment", async (t) => {
    const { client, server } = await inLobby(t, { alive: true, token: async () => "t" });
    server.last.drop(4401);
    await pass(client.status.retryInMs);
    server.last.welcome();
    server.last.drop(4401);
    assert.equal(client.status.state, "closed");
  });

  test("but each time after a connection that lasted", async (t) => {
    const { client, server } = await inLobby(t, { alive: true, token: async () => "t" });
    for (let turn = 0; turn < 3; turn += 1) {
      await pass(11_000);
      server.last.drop(4401);
      assert.equal(client.status.state, "waiting");
      await pass(client.status.retryInMs);
      server.last.welcome();
    }
  });

  test("and with other failures in between it is still the second time", async (t) => {
    const { client, server } = await inLobby(t, { alive: true, token: async () => "t" });
    server.last.drop(4401);
    await pass(client.status.retryInMs);
    server.last.drop(1006);
    await pass(client.status.retryInMs);
    server.last.drop(4401);
    assert.equal(client.status.state, "closed");
  });

  test("a token that is a string cannot be fetched anew", async (t) => {
    const { client, server } = await inLobby(t, { alive: true, token: "t" });
    server.last.drop(4401, "expired");
    assert.equal(client.status.state, "closed");
    assert.equal(client.status.reason, "expired");
  });
});
