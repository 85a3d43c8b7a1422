// What becomes of a publish: order, pace, retries, ids, bounds.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { inLobby, joined, message, pass, settle, sleep, start, timersLeft, watch } from "../fake.js";

const refuse = (socket, { ref }, code, retryable = true) => socket.say({ type: "error", ref, code, message: "no", retryable });
const ack = (socket, { ref, id, room = "lobby" }, seq, more = {}) => socket.say({ type: "ack", ref, id, room, seq, term: "t1", ...more });

async function comeBack({ client, server }, more) {
  server.last.drop();
  await pass(client.status.retryInMs);
  server.last.welcome();
  const socket = server.last;
  for (const join of socket.all("join")) socket.say(joined(join, { term: "t1", seq: 10, ...more }));
  return socket;
}

describe("publish()", () => {
  test("sends at once and resolves with the ack", async (t) => {
    const { socket, room } = await inLobby(t);
    const sent = room.publish({ text: "hi" });
    const frame = socket.only("publish");
    assert.deepEqual(frame.data, { text: "hi" });
    assert.equal(frame.room, "lobby");
    assert.equal("echo" in frame, false);
    assert.match(frame.id, /^[0-9a-f]{32}#0$/);
    ack(socket, frame, 11);
    assert.deepEqual(await sent, { room: "lobby", id: frame.id, seq: 11, term: "t1", duplicate: false });
  });

  test("numbers without holes, for each room", async (t) => {
    const { client, socket, room } = await inLobby(t);
    const other = client.join("other");
    socket.say(joined(socket.all("join")[1]));
    for (let count = 0; count < 3; count += 1) {
      room.publish(count);
      other.publish(count);
    }
    const ids = (name) => socket.all("publish").filter((frame) => frame.room === name).map(({ id }) => id.split("#"));
    assert.deepEqual(ids("lobby").map(([, number]) => number), ["0", "1", "2"]);
    assert.equal(new Set(ids("lobby").map(([producer]) => producer)).size, 1);
    assert.notEqual(ids("lobby")[0][0], ids("other")[0][0]);
    assert.match(ids("lobby")[0][0], /^[0-9A-Za-z_.~-]{1,64}$/);
  });

  test("takes any JSON byte for byte, as it is at that moment", async (t) => {
    const { socket, room } = await inLobby(t);
    const data = { list: [1] };
    room.publish(data);
    data.list.push(2);
    for (const one of [null, "</script>\u2028\"", 0, false, [], { __proto__: null, a: 1 }]) room.publish(one);
    assert.deepEqual(socket.all("publish").map((frame) => JSON.stringify(frame.data)),
      ['{"list":[1]}', "null", JSON.stringify("</script>\u2028\""), "0", "false", "[]", '{"a":1}']);
  });

  test("refuses what is no JSON, no id, or too long", async (t) => {
    const { socket, room } = await inLobby(t, { welcome: { limits: { messageBytes: 1000, publishRate: 0 } } });
    const circle = {};
    circle.circle = circle;
    for (const data of [undefined, () => 1, Symbol("s"), 1n, circle]) await assert.rejects(room.publish(data), { code: "bad_data" });
    for (const id of ["", "é".repeat(65), 5]) await assert.rejects(room.publish(1, { id }), { code: "bad_data" });
    await assert.rejects(room.publish("é".repeat(500)), { code: "too_large", retryable: false });
    assert.equal(socket.all("publish").length, 0);
  });

  test("nothing that is sent is longer than the server takes", async (t) => {
    const limit = 1000;
    const { socket, room } = await inLobby(t, { welcome: { limits: { messageBytes: limit, publishRate: 0 } } });
    socket.server.answer = (frame, at) => ack(at, frame, 11);
    for (let length = 700; length <= limit; length += 1) for (const echo of [true, false]) room.publish("x".repeat(length), { echo });
    const lengths = socket.all("publish").map((frame) => JSON.stringify(frame).length);
    assert.ok(lengths.length > 100);
    assert.ok(Math.max(...lengths) <= limit, `${Math.max(...lengths)}`);
  });

  test("one that was accepted before the limit was known is refused when it is", async (t) => {
    const { client, server } = await start(t);
    const room = client.join("lobby");
    const outcomes = [watch(room.publish("x".repeat(5000))), watch(room.publish("y"))];
    server.last.welcome({ limits: { messageBytes: 1000, publishRate: 0 } });
    server.last.say(joined(server.last.only("join")));
    await settle();
    assert.equal(outcomes[0].code, "too_large");
    assert.equal(server.last.only("publish").data, "y");
    assert.match(server.last.only("publish").id, /#0$/, "and costs no number");
  });

  test("waits for the connection and for the room, and keeps the order", async (t) => {
    const { client, server } = await start(t);
    const room = client.join("lobby");
    for (let count = 0; count < 5; count += 1) room.publish(count);
    server.last.welcome();
    assert.equal(server.last.all("publish").length, 0);
    server.last.say(joined(server.last.only("join")));
    assert.deepEqual(server.last.all("publish").map(({ data }) => data), [0, 1, 2, 3, 4]);
  });

  test("a duplicate is told as such, also when its place is forgotten", async (t) => {
    const { socket, room } = await inLobby(t);
    const sent = room.publish(1, { id: "mine" });
    const { ref, id } = socket.only("publish");
    assert.equal(id, "mine");
    socket.say({ type: "ack", ref, id, room: "lobby", duplicate: true });
    assert.deepEqual(await sent, { room: "lobby", id: "mine", seq: undefined, term: undefined, duplicate: true });
  });

  test("a rejection that nobody hears harms nobody", async (t) => {
    const unhandled = [];
    const listener = (reason) => unhandled.push(reason);
    process.on("unhandledRejection", listener);
    t.after(() => process.off("unhandledRejection", listener));
    const { client, room, socket } = await inLobby(t);
    room.publish(undefined);
    room.publish(1);
    refuse(socket, socket.only("publish"), "forbidden", false);
    room.publish(2);
    room.history();
    client.rename("");
    client.join("bad room!").ready;
    client.close();
    room.publish(3);
    client.rename("x");
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(unhandled, []);
  });
});

describe("after a lost connection", () => {
  test("what has no answer is repeated under the same id, in order", async (t) => {
    const all = await inLobby(t);
    const outcomes = [0, 1, 2, 3].map((data) => watch(all.room.publish(data)));
    const before = all.socket.all("publish");
    ack(all.socket, before[1], 11);
    const socket = await comeBack(all, { seq: 11, messages: [message(11)] });
    all.room.publish(4);
    assert.deepEqual(socket.all("publish").map(({ id, data }) => [id, data]).slice(0, 3), [0, 2, 3].map((at) => [before[at].id, at]));
    assert.equal(socket.all("publish")[3].data, 4);
    for (const frame of socket.all("publish")) ack(socket, frame, 12, { duplicate: true });
    await settle();
    assert.deepEqual(outcomes.map(({ state }) => state), Array(4).fill("resolved"));
    assert.equal(timersLeft(), 1, "only that which minds the connection");
  });

  test("not before the room is joined again", async (t) => {
    const all = await inLobby(t);
    all.room.publish(0);
    all.server.last.drop();
    await pass(all.client.status.retryInMs);
    all.server.last.welcome();
    assert.equal(all.server.last.all("publish").length, 0);
  });

  test("what came back as a message was stored and is not sent again", async (t) => {
    const all = await inLobby(t);
    const sent = all.room.publish("mine");
    const { id } = all.socket.only("publish");
    const socket = await comeBack(all, { seq: 11, messages: [message(11, { id, from: { id: "c1", name: "guest" }, data: "mine" })] });
    assert.deepEqual(await sent, { room: "lobby", id, seq: 11, term: "t1", duplicate: true });
    assert.equal(socket.all("publish").length, 0);
    assert.deepEqual(all.events.message.map(({ own, data }) => [own, data]), [[true, "mine"]]);
  });

  test("another's message under that id is not ours", async (t) => {
    const all = await inLobby(t);
    all.room.publish("mine");
    const { id } = all.socket.only("publish");
    const socket = await comeBack(all, { seq: 11, messages: [message(11, { id })] });
    assert.equal(socket.only("publish").id, id);
  });

  test("a message without echo does not come back either", async (t) => {
    const all = await inLobby(t);
    const sent = all.room.publish("quiet", { echo: false });
    const { id } = all.socket.only("publish");
    await comeBack(all, { seq: 12, messages: [message(11, { id, from: { id: "c1", name: "guest" } }), message(12)] });
    assert.equal((await sent).seq, 11);
    assert.deepEqual(all.events.message.map(({ seq }) => seq), [12]);
  });

  test("what waited too long is not sent any more, not even after a sleep", async (t) => {
    const all = await inLobby(t);
    const sent = watch(all.room.publish("sent"));
    all.server.last.drop();
    const waiting = watch(all.room.publish("waiting"));
    const patient = watch(all.room.publish("patient", { timeoutMs: Infinity }));
    await sleep(3_600_000);
    await settle();
    assert.deepEqual([sent.code, waiting.code, patient.state], ["timeout", "timeout", "pending"]);
    assert.match(sent.error.message, /may be stored/);
    assert.match(waiting.error.message, /not sent/);
    all.server.last.welcome();
    all.server.last.say(joined(all.server.last.only("join"), { term: "t1", seq: 10 }));
    assert.equal(all.server.last.only("publish").data, "patient");
  });

  test("timeoutMs holds while connected too", async (t) => {
    const { room, socket } = await inLobby(t);
    const outcome = watch(room.publish(1, { timeoutMs: 2000 }));
    await pass(1999);
    assert.equal(outcome.state, "pending");
    await pass(1);
    assert.equal(outcome.code, "timeout");
    ack(socket, socket.only("publish"), 11);
    assert.equal(outcome.state, "rejected");
    room.publish(2);
    assert.equal(socket.all("publish").length, 2, "a late answer still frees its place");
  });

  test("1009 gives up the longest and repeats the others", async (t) => {
    const all = await inLobby(t);
    const outcomes = ["a", "x".repeat(100), "b"].map((data) => watch(all.room.publish(data)));
    all.server.last.drop(1009, "too_big");
    await settle();
    assert.deepEqual(outcomes.map(({ code }) => code), [undefined, "too_large", undefined]);
    await pass(all.client.status.retryInMs);
    all.server.last.welcome();
    all.server.last.say(joined(all.server.last.only("join"), { term: "t1", seq: 10 }));
    assert.deepEqual(all.server.last.all("publish").map(({ data }) => data), ["a", "b"]);
  });
});

describe("refused", () => {
  for (const code of ["overloaded", "broker_unavailable", "storage_full", "undecided", "internal", "rate_limited"]) {
    test(`${code} is repeated under the same id, and what is behind it waits`, async (t) => {
      const { socket, room } = await inLobby(t, { random: () => 1 });
      const outcomes = [0, 1].map((data) => watch(room.publish(data)));
      for (const frame of socket.all("publish")) refuse(socket, frame, code);
      outcomes.push(watch(room.publish(2)));
      await pass(499);
      assert.equal(socket.all("publish").length, 2);
      await pass(1);
      await pass(3000);
      assert.deepEqual(socket.all("publish").map(({ data }) => data), [0, 1, 0, 1, 2]);
      assert.equal(socket.all("publish")[0].id, socket.all("publish")[2].id);
      for (const frame of socket.all("publish").slice(2)) ack(socket, frame, 11);
      await settle();
      assert.deepEqual(outcomes.map(({ state }) => state), Array(3).fill("resolved"));
    });
  }

  for (const code of ["forbidden", "too_large", "bad_frame", "something_new"]) {
    test(`${code} is not repeated`, async (t) => {
      const { socket, room } = await inLobby(t);
      const outcome = watch(room.publish(0));
      refuse(socket, socket.only("publish"), code, false);
      await pass(20_000);
      assert.equal(outcome.code, code);
      assert.equal(outcome.error.room, "lobby");
      assert.equal(socket.all("publish").length, 1);
    });
  }

  test("the waits grow and the number of tries is bounded", async (t) => {
    const { socket, room } = await inLobby(t, { random: () => 1, timeoutMs: 3_600_000 });
    const outcome = watch(room.publish(0));
    const moments = [];
    socket.server.answer = (frame, at) => {
      if (frame.type === "ping") at.say({ type: "pong" });
      if (frame.type !== "publish") return;
      moments.push(Date.now());
      refuse(at, frame, "broker_unavailable");
    };
    refuse(socket, socket.only("publish"), "broker_unavailable");
    await pass(600_000);
    const waits = moments.slice(1).map((moment, at) => moment - moments[at]);
    assert.deepEqual(waits, [1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000]);
    assert.equal(outcome.code, "broker_unavailable");
  });

  test("other rooms are not held up", async (t) => {
    const { client, socket, room } = await inLobby(t);
    const other = client.join("other");
    socket.say(joined(socket.all("join")[1]));
    room.publish(0);
    refuse(socket, socket.only("publish"), "overloaded");
    room.publish(1);
    other.publish(2);
    assert.deepEqual(socket.all("publish").map(({ data }) => data), [0, 2]);
  });

  test("stale_id: again under a new producer", async (t) => {
    const { socket, room } = await inLobby(t);
    const sent = [0, 1].map((data) => room.publish(data));
    const [a, b] = socket.all("publish");
    refuse(socket, a, "stale_id", false);
    refuse(socket, b, "stale_id", false);
    const [, , c, d] = socket.all("publish");
    assert.deepEqual([c.data, d.data], [0, 1]);
    assert.notEqual(c.id.split("#")[0], a.id.split("#")[0]);
    assert.deepEqual([c.id.split("#")[1], d.id.split("#")[1]], ["0", "1"]);
    assert.equal(c.id.split("#")[0], d.id.split("#")[0], "one for both");
    ack(socket, c, 11);
    ack(socket, d, 12);
    assert.deepEqual((await Promise.all(sent)).map(({ seq }) => seq), [11, 12]);
  });

  test("stale_id of one that may be stored is no reason to store it again", async (t) => {
    const all = await inLobby(t);
    const outcome = watch(all.room.publish(0));
    const socket = await comeBack(all);
    refuse(socket, socket.only("publish"), "stale_id", false);
    await settle();
    assert.equal(outcome.code, "stale_id");
    const custom = watch(all.room.publish(0, { id: "p#1" }));
    refuse(socket, socket.all("publish")[1], "stale_id", false);
    await settle();
    assert.equal(custom.code, "stale_id");
  });

  test("not_joined: joins again first, once for all", async (t) => {
    const { socket, room } = await inLobby(t);
    const sent = [0, 1].map((data) => room.publish(data));
    for (const frame of socket.all("publish")) refuse(socket, frame, "not_joined", false);
    assert.equal(room.state, "joining");
    assert.equal(socket.all("join").length, 2);
    socket.say(joined(socket.all("join")[1], { term: "t1", seq: 10 }));
    socket.all("publish").slice(2).forEach((frame, at) => ack(socket, frame, 11 + at));
    assert.deepEqual((await Promise.all(sent)).map(({ seq }) => seq), [11, 12]);
  });
});

describe("pace", () => {
  test("no faster than the server allows", async (t) => {
    const { socket, room } = await inLobby(t, { welcome: { limits: { publishRate: 100, messageBytes: 65_536 } } });
    socket.server.answer = (frame, at) => frame.type === "publish" && ack(at, frame, 11);
    for (let count = 0; count < 300; count += 1) room.publish(count);
    assert.equal(socket.all("publish").length, 9);
    await pass(1000);
    const after = socket.all("publish").length;
    assert.ok(after > 90 && after <= 9 + 90, `${after}`);
    await pass(3000);
    assert.deepEqual(socket.all("publish").map(({ data }) => data), Array.from({ length: 300 }, (_, at) => at));
  });

  test("rooms take turns", async (t) => {
    const { client, socket, room } = await inLobby(t, { welcome: { limits: { publishRate: 10, messageBytes: 65_536 } } });
    const other = client.join("other");
    socket.say(joined(socket.all("join")[1]));
    for (let count = 0; count < 20; count += 1) room.publish("many");
    for (let count = 0; count < 3; count += 1) other.publish("few");
    await pass(1000);
    assert.deepEqual(socket.all("publish").slice(0, 9).map(({ data }) => data).filter((data) => data === "few").length, 3);
  });

  for (const [what, rate, burst, delay] of [["a small burst", 100, 3, 0], ["a user's limit", 5, 5, 0], ["the same from afar", 5, 5, 100]]) {
    test(`slower where that is too fast: ${what}`, async (t) => {
      const { client, socket, room } = await inLobby(t, { timeoutMs: 600_000, welcome: { limits: { publishRate: 100, messageBytes: 65_536 } } });
      let [tokens, points, worst] = [burst, 0, 0];
      let since = Date.now();
      // Each refusal is a point, one is forgiven each second, twenty close the connection.
      const decide = (frame, at) => {
        const passed = (Date.now() - since) / 1000;
        since = Date.now();
        tokens = Math.min(burst, tokens + passed * rate);
        points = Math.max(0, points - passed);
        if (tokens >= 1) {
          tokens -= 1;
          ack(at, frame, 11);
        } else {
          points += 1;
          worst = Math.max(worst, points);
          refuse(at, frame, "rate_limited");
        }
      };
      socket.server.answer = (frame, at) => {
        if (frame.type === "ping") at.say({ type: "pong" });
        if (frame.type === "publish") setTimeout(() => decide(frame, at), delay);
      };
      const outcomes = Array.from({ length: 100 }, (_, at) => watch(room.publish(at)));
      await pass(120_000);
      assert.equal(outcomes.filter(({ state }) => state === "resolved").length, 100);
      assert.ok(worst < 20, `${worst} points`);
      assert.equal(client.status.state, "open");
    });
  }

  test("and faster again when it is taken", async (t) => {
    const { socket, room } = await inLobby(t, { welcome: { limits: { publishRate: 100, messageBytes: 65_536 } } });
    room.publish(0);
    refuse(socket, socket.only("publish"), "rate_limited");
    socket.server.answer = (frame, at) => frame.type === "publish" && ack(at, frame, 11);
    for (let count = 0; count < 400; count += 1) room.publish(count);
    await pass(7000);
    const before = socket.all("publish").length;
    assert.ok(before > 200, `${before}`);
    for (let count = 0; count < 200; count += 1) room.publish(count);
    await pass(1000);
    assert.ok(socket.all("publish").length - before >= 85, `${socket.all("publish").length - before}`);
  });

  test("only so many are under way at a time", async (t) => {
    const { socket, room } = await inLobby(t);
    for (let count = 0; count < 500; count += 1) room.publish(count);
    assert.equal(socket.all("publish").length, 128);
    ack(socket, socket.all("publish")[0], 11);
    assert.equal(socket.all("publish").length, 129);
  });

  test("and so many bytes, but always one", async (t) => {
    const { socket, room } = await inLobby(t);
    for (let count = 0; count < 4; count += 1) room.publish("x".repeat(40_000));
    assert.equal(socket.all("publish").length, 1);
    ack(socket, socket.all("publish")[0], 11);
    assert.equal(socket.all("publish").length, 2);
  });
});

describe("bounds", () => {
  test("messages that wait", async (t) => {
    const { client, server } = await start(t, { maxQueuedMessages: 3 });
    const [one, two] = [client.join("one"), client.join("two")];
    one.publish(1);
    two.publish(2);
    one.publish(3);
    await assert.rejects(two.publish(4), { code: "overloaded", retryable: true });
    server.last.welcome();
    for (const join of server.last.all("join")) server.last.say(joined(join));
    ack(server.last, server.last.all("publish")[0], 1);
    two.publish(5);
    await assert.rejects(two.publish(6), { code: "overloaded" });
  });

  test("an answer that comes too late is not counted twice", async (t) => {
    const { socket, room } = await inLobby(t, { maxQueuedMessages: 1 });
    const late = watch(room.publish(1, { timeoutMs: 100 }));
    await pass(100);
    assert.equal(late.code, "timeout");
    ack(socket, socket.only("publish"), 11);
    room.publish(2);
    await assert.rejects(room.publish(3), { code: "overloaded" });
  });

  test("a thousand by default, and a mebibyte", async (t) => {
    const { client } = await start(t);
    const room = client.join("lobby");
    for (let count = 0; count < 1000; count += 1) room.publish(count);
    await assert.rejects(room.publish(1), { code: "overloaded" });
    await room.leave();
    const again = client.join("lobby");
    for (let count = 0; count < 4; count += 1) again.publish("x".repeat(2 ** 18 - 300));
    await assert.rejects(again.publish("x".repeat(2000)), { code: "overloaded" });
    again.publish("x");
  });
});

describe("ephemeral rooms", () => {
  const answer = { mode: "ephemeral", term: null, seq: null };

  test("hand on once, and say so", async (t) => {
    const { socket, room } = await inLobby(t, { answer });
    const sent = room.publish({ x: 1 });
    const { ref, id } = socket.only("publish");
    socket.say({ type: "ack", ref, id, room: "lobby" });
    assert.deepEqual(await sent, { room: "lobby", id, seq: undefined, term: undefined, duplicate: false });
  });

  test("nothing is repeated: what was sent is undecided, what was not is refused", async (t) => {
    const all = await inLobby(t, { answer });
    const sent = watch(all.room.publish(1));
    all.server.last.drop();
    await settle();
    assert.equal(sent.code, "undecided");
    await assert.rejects(all.room.publish(2), { code: "not_connected", retryable: true });
    const socket = await comeBack(all, answer);
    assert.equal(socket.all("publish").length, 0);
    const refused = watch(all.room.publish(3));
    refuse(socket, socket.only("publish"), "overloaded");
    await pass(10_000);
    assert.equal(refused.code, "overloaded");
    assert.equal(socket.all("publish").length, 1);
  });

  test("before the first join a publish waits, since nobody knows yet", async (t) => {
    const { client, server } = await start(t);
    const room = client.join("lobby");
    room.publish(1);
    server.last.welcome();
    server.last.say(joined(server.last.only("join"), answer));
    assert.equal(server.last.only("publish").data, 1);
  });
});
