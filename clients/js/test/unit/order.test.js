// A room's place in the order: repeats, gaps, terms, what a reconnect comes to, and who is there.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { START, inLobby, joined, message, pass, record, settle, start, watch } from "../fake.js";

const seqs = (events) => events.message.map(({ seq }) => seq);

// Loses the connection and comes back; returns the socket and the join asked for.
async function comeBack({ client, server }, more) {
  server.last.drop();
  await pass(client.status.retryInMs);
  server.last.welcome(more);
  return { socket: server.last, join: server.last.only("join") };
}

describe("joining", () => {
  test("history comes as messages, after joined, each once", async (t) => {
    const { events, room } = await inLobby(t, { answer: { seq: 2, online: 3, messages: [message(1), message(2)],
      members: [{ id: "x", name: "xan" }] } });
    assert.deepEqual(events.log, ["joined", 1, 2]);
    assert.deepEqual(events.joined[0], { recovery: "fresh", mode: "durable", online: 3, members: [{ id: "x", name: "xan" }] });
    assert.deepEqual(events.message[0], { room: "lobby", id: "other#1", from: { id: "x", name: "xan" }, ts: 1_700_000_000_000, data: 1, seq: 1,
      term: "t1", own: false, replayed: true });
    assert.deepEqual(room.position, { term: "t1", seq: 2 });
    assert.equal(room.state, "joined");
    await room.ready;
  });

  test("without an id: a new room that nobody can guess", async (t) => {
    const { client } = await start(t);
    const [one, two] = [client.join(), client.join()];
    assert.match(one.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.notEqual(one.id, two.id);
    assert.equal(client.join(one.id), one);
    assert.deepEqual(client.rooms, [one, two]);
    assert.throws(() => client.join(5), TypeError);
  });

  test("from where an earlier client ended", async (t) => {
    const { client, server } = await start(t);
    const room = client.join("lobby", { since: { term: "t1", seq: 7 } });
    const events = record(room);
    server.last.welcome();
    const join = server.last.only("join");
    assert.deepEqual(join.since, { term: "t1", seq: 7 });
    server.last.say(joined(join, { term: "t1", seq: 9, messages: [message(8), message(9)] }));
    assert.deepEqual(events.log, ["recovered", "joined", 8, 9].map((word) => (word === "recovered" ? "resumed" : word)));
  });

  test("every room again after a reconnect, each with its place", async (t) => {
    const all = await inLobby(t);
    all.client.join("empty");
    const second = all.server.last.all("join")[1];
    all.server.last.say(joined(second));
    all.server.last.drop();
    await pass(all.client.status.retryInMs);
    all.server.last.welcome();
    assert.deepEqual(all.server.last.all("join").map(({ room, since }) => [room, since]),
      [["lobby", { term: "t1", seq: 10 }], ["empty", undefined]]);
  });

  for (const code of ["bad_room", "room_limit", "forbidden", "name_taken"]) {
    test(`refused with ${code} is the end of the room`, async (t) => {
      const { client, server } = await start(t);
      const room = client.join("lobby");
      const events = record(room);
      const waiting = room.publish(1).catch((error) => error.code);
      server.last.welcome();
      server.last.say({ type: "error", ref: server.last.only("join").ref, code, message: "no", retryable: false });
      assert.equal(room.state, "left");
      assert.equal(await waiting, code);
      await assert.rejects(room.ready, { code });
      await assert.rejects(room.publish(1), { code });
      assert.deepEqual(events.log, ["error", "left"]);
      assert.equal(events.left[0].reason, code);
      assert.deepEqual(client.rooms, []);
      assert.notEqual(client.join("lobby"), room);
    });
  }

  test("refused for a while is tried again, ever later", async (t) => {
    const { client, server } = await start(t, { random: () => 1 });
    const room = client.join("lobby");
    const events = record(room);
    server.last.welcome();
    for (const wait of [1000, 2000, 4000]) {
      const asked = server.last.all("join");
      server.last.say({ type: "error", ref: asked.at(-1).ref, code: "broker_unavailable", message: "no", retryable: true });
      await pass(wait - 1);
      assert.equal(server.last.all("join").length, asked.length);
      await pass(1);
      assert.equal(server.last.all("join").length, asked.length + 1);
    }
    server.last.say(joined(server.last.all("join").at(-1)));
    assert.equal(room.state, "joined");
    assert.equal(events.error.length, 3);
  });

  test("the own name, still held by the node that died, is waited for", async (t) => {
    const all = await inLobby(t);
    const { socket } = await comeBack(all);
    const refuse = () => socket.say({ type: "error", ref: socket.all("join").at(-1).ref, code: "name_taken", message: "no", retryable: false });
    for (let passed = 0; passed < 20_000; passed += 2000) {
      refuse();
      assert.equal(all.room.state, "joining");
      await pass(2000);
    }
    await pass(8_000);
    refuse();
    await pass(2_000);
    assert.ok(socket.all("join").length < 14);
    refuse();
    assert.equal(all.room.state, "left", "but not forever");
  });

  test("its time begins with the first refusal for the name", async (t) => {
    const all = await inLobby(t);
    const { socket } = await comeBack(all);
    const refuse = (code, retryable) => socket.say({ type: "error", ref: socket.all("join").at(-1).ref, code, message: "no", retryable });
    socket.server.answer = (frame, at) => frame.type === "ping" && at.say({ type: "pong" });
    for (let passed = 0; passed < 40_000; passed += 15_000) {
      refuse("broker_unavailable", true);
      await pass(15_000);
    }
    refuse("name_taken", false);
    assert.equal(all.room.state, "joining");
  });

  test("already joined means leaving first", async (t) => {
    const { client, server } = await start(t);
    client.join("lobby");
    server.last.welcome();
    server.last.say({ type: "error", ref: server.last.only("join").ref, code: "already_joined", message: "no", retryable: false });
    await pass(1000);
    assert.deepEqual(server.last.sent.map(({ type }) => type), ["join", "leave", "join"]);
  });
});

describe("order", () => {
  test("repeats are dropped", async (t) => {
    const { socket, events } = await inLobby(t);
    for (const seq of [11, 11, 5, 10, 12, 11]) socket.say(message(seq));
    assert.deepEqual(seqs(events), [11, 12]);
  });

  test("messages of rooms that are not joined are not heard", async (t) => {
    const { socket, events, client, server } = await inLobby(t);
    socket.say(message(1, { room: "other" }));
    const other = record(client.join("other"));
    socket.say(message(1, { room: "other" }));
    assert.deepEqual([seqs(events), seqs(other)], [[], []]);
    server.last.say(joined(socket.all("join")[1], { term: "t1", seq: 1, messages: [message(1, { room: "other" })] }));
    assert.deepEqual(seqs(other), [1]);
  });

  test("a new term behind the old one is no news, and repeats of both are dropped", async (t) => {
    const { socket, events, room } = await inLobby(t);
    socket.say(message(11));
    socket.say(message(12, { term: "t2" }));
    socket.say(message(11));
    socket.say(message(12, { term: "t2" }));
    socket.say(message(13, { term: "t3" }));
    socket.say(message(12, { term: "t2" }));
    assert.deepEqual(events.log, ["joined", 11, 12, 13]);
    assert.deepEqual(room.position, { term: "t3", seq: 13 });
  });

  test("a hole is told and what is in it asked for", async (t) => {
    const { socket, events, room } = await inLobby(t);
    socket.say(message(11));
    socket.say(message(13));
    assert.equal(events.error[0].code, "out_of_order");
    assert.equal(room.state, "joining");
    socket.say(message(14)); // on its way when we left
    assert.deepEqual(socket.sent.map(({ type }) => type), ["join", "leave", "join"]);
    const again = socket.all("join")[1];
    assert.deepEqual(again.since, { term: "t1", seq: 11 });
    socket.say({ type: "left", ref: socket.only("leave").ref, room: "lobby" });
    socket.say(joined(again, { term: "t1", seq: 14, messages: [message(12), message(13)] }));
    socket.say(message(14));
    assert.deepEqual(seqs(events), [11, 12, 13, 14]);
    assert.deepEqual(events.log, ["joined", 11, "error", "resumed", "joined", 12, 13, 14]);
  });

  test("so is a hole in front of a new term, and a term that begins too early", async (t) => {
    for (const odd of [message(12, { term: "t2" }), message(10, { term: "t2" })]) {
      await t.test(`${odd.term}:${odd.seq}`, async (t) => {
        const { socket, events } = await inLobby(t);
        socket.say(odd);
        assert.equal(events.error[0].code, "out_of_order");
        assert.deepEqual(socket.all("join")[1].since, { term: "t1", seq: 10 });
        assert.deepEqual(seqs(events), []);
      });
    }
  });

  test("what was before the first message seen is nothing to us, whatever its term", async (t) => {
    const { socket, events } = await inLobby(t);
    socket.say(message(3, { term: "t0" }));
    assert.deepEqual(events.log, ["joined"]);
  });

  test("a hole that stays is a gap, not a circle", async (t) => {
    const { socket, events } = await inLobby(t);
    socket.say(message(13));
    socket.say(joined(socket.all("join")[1], { term: "t1", seq: 13, messages: [message(13)] }));
    assert.deepEqual(events.log, ["joined", "error", "resumed", "joined", "gap", 13]);
    assert.deepEqual(events.recovered[1], { kind: "gap", term: "t1", seq: 12 });
    assert.equal(events.message[0].replayed, true);
    socket.say(message(14));
    assert.equal(socket.all("join").length, 2);
    assert.deepEqual(seqs(events), [13, 14]);
  });

  test("in a room's first messages too", async (t) => {
    const { socket, events, room } = await inLobby(t, { answer: { term: null, seq: 0 } });
    assert.deepEqual(room.position, { term: null, seq: 0 });
    socket.say(message(1));
    socket.say(message(2));
    assert.deepEqual(seqs(events), [1, 2]);
  });

  test("ephemeral messages have none", async (t) => {
    const { socket, events, room } = await inLobby(t, { answer: { mode: "ephemeral", term: null, seq: null } });
    for (const data of ["b", "a", "a"]) socket.say({ ...message(1), seq: undefined, term: undefined, data });
    assert.deepEqual(events.message.map(({ data }) => data), ["b", "a", "a"]);
    assert.equal(room.position, undefined);
    assert.equal(room.mode, "ephemeral");
  });

  test("own messages without echo are no hole, whichever comes first", async (t) => {
    for (const order of [["ack", "message"], ["message", "ack"]]) {
      await t.test(order.join(" then "), async (t) => {
        const { socket, events, room } = await inLobby(t);
        const sent = room.publish("quiet", { echo: false });
        const { ref, id, echo } = socket.only("publish");
        assert.equal(echo, false);
        const say = { ack: { type: "ack", ref, id, room: "lobby", seq: 11, term: "t1" }, message: message(12) };
        for (const which of order) socket.say(say[which]);
        await sent;
        socket.say(message(13));
        assert.deepEqual(events.log, ["joined", 12, 13]);
        assert.deepEqual(room.position, { term: "t1", seq: 13 });
      });
    }
  });

  test("what was stored before under that id may be another's, and is heard", async (t) => {
    const { socket, events, room } = await inLobby(t);
    const sent = room.publish("mine", { id: "shared", echo: false });
    const { ref, id } = socket.only("publish");
    socket.say({ type: "ack", ref, id, room: "lobby", seq: 11, term: "t1", duplicate: true });
    await sent;
    socket.say(message(11, { id, from: { id: "c9", name: "bob" } }));
    socket.say(message(12));
    assert.deepEqual(events.log, ["joined", 11, 12]);
    // Of a retry of our own nothing comes: what follows shows it.
    const again = room.publish("mine", { id: "own", echo: false });
    const { ref: second } = socket.all("publish").at(-1);
    socket.say({ type: "ack", ref: second, id: "own", room: "lobby", seq: 13, term: "t1", duplicate: true });
    await again;
    socket.say(message(14));
    socket.say(message(15));
    assert.deepEqual(events.log, ["joined", 11, 12, 14, 15]);
    assert.equal(events.error.length, 0);
  });

  test("a publish on its way when the member is removed is undecided", async (t) => {
    const { socket, room } = await inLobby(t);
    const sent = room.publish("on its way").catch(({ code }) => code);
    socket.only("publish");
    socket.say({ type: "left", room: "lobby", reason: "removed" });
    assert.equal(await sent, "undecided");
  });

  test("so is one on its way while the room is joined again, and joining is refused", async (t) => {
    const { socket, room, events } = await inLobby(t);
    const sent = room.publish("on its way").catch(({ code }) => code);
    socket.say(message(13)); // a hole: leaves and joins
    const waiting = room.publish("not sent").catch(({ code }) => code);
    socket.say({ type: "error", ref: socket.all("join")[1].ref, code: "forbidden", message: "no", retryable: false });
    assert.deepEqual([await sent, await waiting], ["undecided", "forbidden"]);
    assert.deepEqual(events.left, [{ reason: "forbidden" }]);
  });

  test("several of them, mixed with those of others, in a new term", async (t) => {
    const { socket, events, room } = await inLobby(t);
    const all = [1, 2, 3].map((data) => room.publish(data, { echo: false }));
    const [a, b, c] = socket.all("publish");
    const ack = ({ ref, id }, seq, term = "t1") => socket.say({ type: "ack", ref, id, room: "lobby", seq, term });
    socket.say(message(12));
    socket.say(message(15, { term: "t2" }));
    ack(a, 11);
    assert.deepEqual(seqs(events), [12]);
    ack(b, 13);
    ack(c, 14, "t2");
    await Promise.all(all);
    assert.deepEqual(events.log, ["joined", 12, 15]);
  });

  test("a hole beside them is found when they are answered", async (t) => {
    const { socket, events, room } = await inLobby(t);
    const sent = room.publish("quiet", { echo: false });
    const { ref, id } = socket.only("publish");
    socket.say(message(13)); // 11 and 12 are not here, only one may be ours
    assert.equal(events.error.length, 0);
    socket.say({ type: "ack", ref, id, room: "lobby", seq: 12, term: "t1" });
    await sent;
    assert.equal(events.error[0].code, "out_of_order");
    assert.deepEqual(socket.all("join")[1].since, { term: "t1", seq: 10 });
    // The repaired order has our own message, which we do not want to hear.
    socket.say(joined(socket.all("join")[1], { term: "t1", seq: 13, messages: [message(11), message(12, { id, from: { id: "c1", name: "guest" } }),
      message(13)] }));
    assert.deepEqual(seqs(events), [11, 13]);
  });

  test("those of a lost connection excuse no hole", async (t) => {
    const all = await inLobby(t);
    all.room.publish("quiet", { echo: false });
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { term: "t1", seq: 10 }));
    const { ref, id } = socket.only("publish");
    socket.say({ type: "ack", ref, id, room: "lobby", seq: 11, term: "t1" });
    socket.say(message(13));
    assert.equal(all.events.error[0].code, "out_of_order");
  });

  test("a server that refuses them leaves no hole", async (t) => {
    const { socket, events, room } = await inLobby(t);
    const sent = room.publish("quiet", { echo: false }).catch((error) => error.code);
    socket.say(message(11));
    socket.say({ type: "error", ref: socket.only("publish").ref, code: "forbidden", message: "no", retryable: false });
    socket.say(message(12));
    assert.equal(await sent, "forbidden");
    assert.deepEqual(seqs(events), [11, 12]);
  });
});

describe("coming back", () => {
  test("resumed: what was missed follows, in joined and behind it", async (t) => {
    const all = await inLobby(t);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { term: "t2", seq: 14, messages: [message(11), message(12)] }));
    assert.deepEqual(all.room.position, { term: "t1", seq: 12 }, "not that of the room: the rest is to come");
    socket.say(message(13, { term: "t2" }));
    socket.say(message(14, { term: "t2" }));
    assert.deepEqual(all.events.log, ["joined", "resumed", "joined", 11, 12, 13, 14]);
    assert.deepEqual(all.events.message.map(({ replayed }) => replayed), [true, true, false, false]);
  });

  test("losing the connection again in the midst of it loses nothing", async (t) => {
    const all = await inLobby(t);
    const first = await comeBack(all);
    first.socket.say(joined(first.join, { term: "t1", seq: 14, messages: [message(11), message(12)] }));
    const second = await comeBack(all);
    assert.deepEqual(second.join.since, { term: "t1", seq: 12 });
    second.socket.say(joined(second.join, { term: "t1", seq: 14, messages: [message(13), message(14)] }));
    assert.deepEqual(seqs(all.events), [11, 12, 13, 14]);
  });

  test("gap: goes on behind it", async (t) => {
    const all = await inLobby(t);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { recovery: "gap", term: "t1", seq: 91, messages: [message(90), message(91)] }));
    socket.say(message(92));
    assert.deepEqual(all.events.log, ["joined", "gap", "joined", 90, 91, 92]);
  });

  test("gap: what was seen is not told again", async (t) => {
    const all = await inLobby(t, { answer: { seq: 12, messages: [message(11), message(12)] } });
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { recovery: "gap", term: "t1", seq: 91, messages: [message(12), message(91)] }));
    assert.deepEqual(seqs(all.events), [11, 12, 91]);
  });

  test("diverged: says where the order ends, and what replaces the rest follows", async (t) => {
    const all = await inLobby(t, { answer: { term: "t1", seq: 8, messages: [message(7), message(8)] } });
    all.socket.say(message(9));
    all.socket.say(message(10, { term: "t2" }));
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { recovery: "diverged", rollback: { term: "t1", seq: 8 }, term: "t3", seq: 10,
      messages: [message(7), message(8), message(9, { term: "t3", id: "n9" }), message(10, { term: "t3", id: "n10" })] }));
    socket.say(message(11, { term: "t3" }));
    assert.deepEqual(all.events.recovered, [{ kind: "diverged", term: "t1", seq: 8 }]);
    assert.deepEqual(all.events.message.slice(4).map(({ seq, id }) => [seq, id]), [[9, "n9"], [10, "n10"], [11, "other#11"]]);
    assert.deepEqual(all.events.log.slice(5), ["diverged", "joined", 9, 10, 11]);
  });

  test("diverged: what lies between is fetched, too", async (t) => {
    const all = await inLobby(t);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { recovery: "diverged", rollback: { term: "t1", seq: 6 }, term: "t2", seq: 99, messages: [message(98, { term: "t2" }),
      message(99, { term: "t2" })] }));
    const again = socket.all("join")[1];
    assert.deepEqual(again.since, { term: "t1", seq: 6 });
    socket.say(joined(again, { term: "t2", seq: 99, messages: [7, 8].map((seq) => message(seq, { term: "t2" })) }));
    socket.say(message(9, { term: "t2" }));
    assert.deepEqual(all.events.recovered.map(({ kind, seq }) => [kind, seq]), [["diverged", 6], ["resumed", 6]]);
    assert.deepEqual(seqs(all.events), [7, 8, 9]);
  });

  test("diverged with nothing behind it", async (t) => {
    const all = await inLobby(t);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { recovery: "diverged", rollback: { term: "t1", seq: 6 }, term: "t1", seq: 6, messages: [message(6)] }));
    socket.say(message(7, { term: "t2" }));
    assert.deepEqual(seqs(all.events), [7]);
  });

  test("a place to go back to means nothing without having diverged", async (t) => {
    const all = await inLobby(t);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { recovery: "resumed", rollback: { term: "t1", seq: 3 }, term: "t1", seq: 11, messages: [message(11)] }));
    assert.deepEqual(all.events.log, ["joined", "resumed", "joined", 11]);
  });

  test("unknown_term: starts over", async (t) => {
    const all = await inLobby(t);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { recovery: "unknown_term", term: "t9", seq: 2, messages: [message(1, { term: "t9" }), message(2, { term: "t9" })] }));
    socket.say(message(3, { term: "t9" }));
    assert.deepEqual(all.events.log, ["joined", "unknown_term", "joined", 1, 2, 3]);
  });

  test("unknown_term with nothing left", async (t) => {
    const all = await inLobby(t);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { recovery: "unknown_term", term: null, seq: 0 }));
    socket.say(message(1, { term: "t9" }));
    assert.deepEqual(seqs(all.events), [1]);
  });

  test("to a room that was empty: from its beginning", async (t) => {
    const all = await inLobby(t, { answer: { term: null, seq: 0 } });
    const { socket, join } = await comeBack(all);
    assert.equal(join.since, undefined);
    socket.say(joined(join, { term: "t1", seq: 2, messages: [message(1), message(2)] }));
    assert.deepEqual(all.events.log, ["joined", "resumed", "joined", 1, 2]);
  });

  test("to a room that was empty and has more than fits: all of it", async (t) => {
    const all = await inLobby(t, { answer: { term: null, seq: 0 } });
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { term: "t1", seq: 81, messages: [message(80), message(81)] }));
    const again = socket.all("join")[1];
    assert.deepEqual(again.since, { term: "t1", seq: 0 });
    socket.say(joined(again, { term: "t1", seq: 81, messages: [message(1), message(2)] }));
    assert.deepEqual(seqs(all.events), [1, 2]);
  });

  test("a room that turned ephemeral", async (t) => {
    const all = await inLobby(t);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { mode: "ephemeral", recovery: "unknown_term", term: null, seq: null }));
    assert.deepEqual(all.events.recovered, [{ kind: "unknown_term", term: null, seq: 0 }]);
    assert.equal(all.room.mode, "ephemeral");
  });
});

describe("reset", () => {
  test("gap", async (t) => {
    const { socket, events } = await inLobby(t);
    socket.say({ type: "reset", room: "lobby", reason: "gap", term: "t1", seq: 40 });
    socket.say(message(41));
    socket.say(message(42, { term: "t2" }));
    assert.deepEqual(events.recovered, [{ kind: "gap", term: "t1", seq: 40 }]);
    assert.deepEqual(events.log, ["joined", "gap", 41, 42]);
  });

  test("diverged: the same seqs come again, in another term", async (t) => {
    const { socket, events, room } = await inLobby(t);
    socket.say(message(11));
    socket.say(message(12));
    socket.say({ type: "reset", room: "lobby", reason: "diverged", term: "t1", seq: 10 });
    assert.deepEqual(room.position, { term: "t1", seq: 10 });
    socket.say(message(11, { term: "t2", id: "new" }));
    socket.say(message(11, { term: "t2", id: "new" }));
    socket.say(message(12, { term: "t2" }));
    assert.deepEqual(events.log, ["joined", 11, 12, "diverged", 11, 12]);
  });

  test("unknown_term, with and without something left", async (t) => {
    const { socket, events } = await inLobby(t);
    socket.say({ type: "reset", room: "lobby", reason: "unknown_term", term: "t8", seq: 3 });
    socket.say(message(4, { term: "t8" }));
    socket.say({ type: "reset", room: "lobby", reason: "unknown_term", term: null, seq: 0 });
    socket.say(message(1, { term: "t9" }));
    assert.deepEqual(events.log, ["joined", "unknown_term", 4, "unknown_term", 1]);
  });

  test("unknown_term: what was known of earlier terms counts no more", async (t) => {
    const { socket, events } = await inLobby(t);
    socket.say({ type: "reset", room: "lobby", reason: "unknown_term", term: "t8", seq: 20 });
    socket.say(message(15, { term: "t8" }));
    assert.deepEqual(events.log, ["joined", "unknown_term"]);
  });

  test("gap: what was known of earlier terms still does", async (t) => {
    const { socket, events } = await inLobby(t);
    socket.say({ type: "reset", room: "lobby", reason: "gap", term: "t8", seq: 20 });
    socket.say(message(15, { term: "t8" }));
    assert.deepEqual(events.log, ["joined", "gap", "error"]);
  });
});

describe("who is there", () => {
  const ann = { id: "a", name: "ann", user: "u-1", info: { team: 1 } };
  const bob = { id: "b", name: "bob" };

  test("comes, goes and is renamed", async (t) => {
    const { socket, room, events } = await inLobby(t, { answer: { members: [ann], online: 1 } });
    socket.say({ type: "presence", room: "lobby", event: "join", member: bob, online: 2 });
    assert.deepEqual([...room.present.values()], [ann, bob]);
    socket.say({ type: "presence", room: "lobby", event: "rename", member: { id: "b", name: "Bo" }, online: 2 });
    socket.say({ type: "presence", room: "lobby", event: "leave", member: { id: "b", name: "Bo" }, online: 1 });
    assert.deepEqual([...room.present.keys()], ["a"]);
    assert.equal(room.online, 1);
    assert.deepEqual(events.presence.map(({ event, was, online }) => [event, was, online]),
      [["join", undefined, 2], ["rename", "bob", 2], ["leave", "Bo", 1]]);
  });

  test("a join of someone listed is no news", async (t) => {
    const { socket, room, events } = await inLobby(t, { answer: { members: [ann], online: 1 } });
    socket.say({ type: "presence", room: "lobby", event: "join", member: ann, online: 1 });
    assert.equal(events.presence.length, 0);
    assert.equal(room.present.size, 1);
  });

  test("a small crowd is asked for, once at a time", async (t) => {
    const { socket, room, events } = await inLobby(t, { answer: { members: [ann], online: 60 } });
    for (const online of [61, 62, 63]) socket.say({ type: "presence", room: "lobby", event: "count", online });
    assert.equal(room.online, 63);
    await pass(5_000);
    const { ref, limit } = socket.only("members");
    assert.equal(limit, 100);
    socket.say({ type: "members", ref, room: "lobby", members: [ann, bob], online: 64 });
    assert.deepEqual([...room.present.keys()], ["a", "b"]);
    assert.deepEqual(events.presence.map(({ event }) => event), ["count", "count", "count", "list"]);
    assert.equal(room.online, 64);
  });

  test("is not asked for again by who may not see it, until the connection or the token is another", async (t) => {
    const all = await inLobby(t, { alive: true, answer: { online: 3 }, token: async () => "t", welcome: { expiresAtMs: START + 100_000 } });
    const asked = async (socket) => {
      const before = socket.all("members").length;
      socket.say({ type: "presence", room: "lobby", event: "count", online: 4 });
      await pass(5_000);
      const found = socket.all("members");
      if (found.length > before) socket.say({ type: "error", ref: found.at(-1).ref, code: "forbidden", message: "no", retryable: false });
      await settle();
      return found.length;
    };
    assert.deepEqual([await asked(all.socket), await asked(all.socket)], [1, 1]);
    await pass(80_000);
    all.socket.say({ type: "refreshed", ref: all.socket.only("refresh").ref, expiresAtMs: null });
    assert.deepEqual([await asked(all.socket), await asked(all.socket)], [2, 2]);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { term: "t1", seq: 10 }));
    assert.deepEqual([await asked(socket), await asked(socket)], [1, 1]);
    assert.deepEqual(all.seen.errors, []);
  });

  test("is one map all the time", async (t) => {
    const all = await inLobby(t, { answer: { members: [ann] } });
    const { present } = all.room;
    assert.deepEqual([...present.keys()], ["a"]);
    const { socket, join } = await comeBack(all);
    socket.say(joined(join, { term: "t1", seq: 10, members: [bob] }));
    assert.equal(all.room.present, present);
    assert.deepEqual([...present.keys()], ["b"]);
  });

  test("a large one is not", async (t) => {
    const { socket } = await inLobby(t);
    socket.say({ type: "presence", room: "lobby", event: "count", online: 5000 });
    await pass(10_000);
    assert.equal(socket.all("members").length, 0);
  });

  test("a removal ends the room and no reconnect undoes it", async (t) => {
    const all = await inLobby(t);
    const waiting = all.room.history().catch(({ code }) => code);
    all.socket.say({ type: "left", room: "lobby", reason: "removed" });
    assert.deepEqual(all.events.left, [{ reason: "removed" }]);
    assert.equal(await waiting, "removed");
    all.server.last.drop();
    await pass(1000);
    all.server.last.welcome();
    assert.equal(all.server.last.all("join").length, 0);
  });
});

describe("leave()", () => {
  test("asks and resolves when it is done; what was not sent is rejected, what was sent is answered", async (t) => {
    const { client, socket, room, events } = await inLobby(t);
    const sent = room.publish(1);
    const left = room.leave();
    assert.equal(room.state, "left");
    await assert.rejects(room.publish(2), { code: "left" });
    let done = false;
    left.then(() => (done = true));
    await settle();
    assert.equal(done, false);
    const { ref, id } = socket.only("publish");
    socket.say({ type: "ack", ref, id, room: "lobby", seq: 11, term: "t1" });
    socket.say(message(11));
    socket.say({ type: "left", ref: socket.only("leave").ref, room: "lobby" });
    await left;
    assert.equal((await sent).seq, 11);
    assert.deepEqual(events.log, ["joined", "left"]);
    assert.deepEqual(client.rooms, []);
    await room.leave();
  });

  test("a room may be joined again before that is answered", async (t) => {
    const { client, socket, room } = await inLobby(t);
    room.leave();
    const again = client.join("lobby");
    assert.notEqual(again, room);
    const events = record(again);
    socket.say(message(11));
    socket.say({ type: "left", ref: socket.only("leave").ref, room: "lobby" });
    socket.say(joined(socket.all("join")[1], { term: "t1", seq: 12, messages: [message(11), message(12)] }));
    assert.deepEqual(seqs(events), [11, 12]);
  });

  test("while the connection is lost it is enough not to come back", async (t) => {
    const { server, room, client } = await inLobby(t);
    server.last.drop();
    await room.leave();
    await pass(client.status.retryInMs);
    server.last.welcome();
    assert.equal(server.last.sent.length, 0);
  });

  test("is answered once, however the connection fares", async (t) => {
    const all = await inLobby(t);
    const other = all.client.join("other");
    all.socket.say(joined(all.socket.all("join")[1]));
    const sent = [1, 2].map((data) => watch(all.room.publish(data)));
    const left = all.room.leave();
    const { ref, id } = all.socket.all("publish")[0];
    all.socket.say({ type: "ack", ref, id, room: "lobby", seq: 11, term: "t1" });
    const kept = watch(other.publish(3));
    all.server.last.drop();
    await left;
    await pass(all.client.status.retryInMs);
    all.server.last.welcome();
    all.server.last.say(joined(all.server.last.only("join")));
    assert.deepEqual(all.server.last.all("publish").map(({ data }) => data), [3]);
    assert.deepEqual([...sent, kept].map(({ state, code }) => code ?? state), ["resolved", "undecided", "pending"]);
  });

  test("in an ephemeral room rejects what was not sent with left, too", async (t) => {
    const { socket, room } = await inLobby(t, { answer: { mode: "ephemeral", term: null, seq: null },
      welcome: { limits: { publishRate: 10, messageBytes: 65_536 } } });
    const outcomes = [1, 2].map((data) => watch(room.publish(data)));
    assert.equal(socket.only("publish").data, 1, "the other waits for its turn");
    room.leave();
    await settle();
    assert.deepEqual(outcomes.map(({ state, code }) => code ?? state), ["pending", "left"]);
  });

  test("and what was sent before is undecided when the connection breaks", async (t) => {
    const { server, room } = await inLobby(t);
    const sent = room.publish(1).catch(({ code }) => code);
    const left = room.leave();
    server.last.drop();
    assert.equal(await sent, "undecided");
    await left;
  });
});

describe("questions", () => {
  test("history and members", async (t) => {
    const { socket, room } = await inLobby(t);
    const history = room.history({ before: 9, limit: 2 });
    const { ref, before, limit, after } = socket.only("history");
    assert.deepEqual([before, limit, after], [9, 2, undefined]);
    socket.say({ type: "history", ref, room: "lobby", messages: [message(7), message(8)], next: 7 });
    const page = await history;
    assert.deepEqual(page.messages.map(({ seq }) => seq), [7, 8]);
    assert.equal(page.next, 7);
    assert.ok(page.messages.every(({ replayed, own }) => replayed && !own));
    const members = room.members({ cursor: "c", limit: 1 });
    assert.equal(socket.only("members").cursor, "c");
    socket.say({ type: "members", ref: socket.only("members").ref, room: "lobby", members: [{ id: "z", name: "zoe" }], online: 7, next: "z" });
    assert.deepEqual(await members, { members: [{ id: "z", name: "zoe" }], online: 7, next: "z" });
    const end = room.members({ cursor: "c" });
    socket.say({ type: "members", ref: socket.all("members")[1].ref, room: "lobby", members: [{ id: "z", name: "zoe" }], online: 7 });
    await end;
    const begin = room.members();
    socket.say({ type: "members", ref: socket.all("members")[2].ref, room: "lobby", members: [{ id: "a", name: "ann" }], online: 7, next: "a" });
    await begin;
    assert.equal(room.present.size, 0, "a part is not the list");
  });

  test("wait for the room, and are asked again after a reconnect", async (t) => {
    const all = await inLobby(t);
    const history = all.room.history();
    const { socket, join } = await comeBack(all);
    assert.equal(socket.all("history").length, 0);
    socket.say(joined(join, { term: "t1", seq: 10 }));
    socket.say({ type: "history", ref: socket.only("history").ref, room: "lobby", messages: [] });
    assert.deepEqual(await history, { messages: [], next: undefined });
  });

  test("refused, answered wrongly, or not at all", async (t) => {
    const { socket, room } = await inLobby(t);
    const refused = room.history();
    socket.say({ type: "error", ref: socket.only("history").ref, code: "forbidden", message: "no", retryable: false });
    await assert.rejects(refused, { code: "forbidden", retryable: false, room: "lobby" });
    const wrong = room.members();
    socket.say({ type: "history", ref: socket.only("members").ref, room: "lobby", messages: [] });
    await assert.rejects(wrong, { code: "bad_frame" });
    const silent = room.history().catch(({ code }) => code);
    for (let turn = 0; turn < 6; turn += 1) {
      await pass(10_000);
      socket.say({ type: "pong" });
    }
    assert.equal(await silent, "timeout");
  });

  test("are bounded", async (t) => {
    const { room } = await inLobby(t);
    for (let count = 0; count < 100; count += 1) room.history();
    await assert.rejects(room.history(), { code: "overloaded", retryable: true });
  });
});

describe("rename()", () => {
  test("resolves when what was asked behind it is answered, and holds for the next connection", async (t) => {
    const all = await inLobby(t, { name: "ann" });
    const renamed = all.client.rename("Anna");
    assert.equal(all.socket.only("rename").name, "Anna");
    all.socket.say({ type: "members", ref: all.socket.only("members").ref, room: "lobby", members: [], online: 1 });
    await renamed;
    assert.equal(all.client.name, "Anna");
    const { socket } = await comeBack(all);
    assert.equal(socket.url.searchParams.get("name"), "Anna");
  });

  test("refused: the name of before stays", async (t) => {
    const all = await inLobby(t, { name: "ann" });
    const renamed = all.client.rename("bob");
    all.socket.say({ type: "error", ref: all.socket.only("rename").ref, code: "name_taken", message: "no", retryable: false });
    await assert.rejects(renamed, { code: "name_taken" });
    assert.equal(all.client.name, "ann");
    await assert.rejects(all.client.rename(""), { code: "bad_name" });
    for (const name of ["é".repeat(33), "a\tb", "\u0085", 5]) await assert.rejects(all.client.rename(name), { code: "bad_name" });
  });

  test("of several on their way, the last that was good stays", async (t) => {
    const all = await inLobby(t, { name: "ann" });
    const outcomes = ["good", "bad", "worse"].map((name) => all.client.rename(name).catch(({ code }) => code));
    const [good, ...others] = all.socket.all("rename");
    assert.equal(good.name, "good");
    all.socket.say({ type: "members", ref: all.socket.all("members")[0].ref, room: "lobby", members: [], online: 1 });
    for (const { ref } of others) all.socket.say({ type: "error", ref, code: "name_taken", message: "no", retryable: false });
    assert.deepEqual(await Promise.all(outcomes), [undefined, "name_taken", "name_taken"]);
    assert.equal(all.client.name, "good");
    const { socket } = await comeBack(all);
    assert.equal(socket.url.searchParams.get("name"), "good");
  });

  test("without a connection it goes with the next", async (t) => {
    const { client, server } = await start(t);
    server.last.drop();
    await client.rename("Anna");
    await pass(client.status.retryInMs);
    assert.equal(server.last.url.searchParams.get("name"), "Anna");
  });

  test("a name that the server gave is kept over a reconnect", async (t) => {
    const all = await inLobby(t, { welcome: { name: "guest-12" } });
    assert.equal(all.client.name, "guest-12");
    const { socket } = await comeBack(all);
    assert.equal(socket.url.searchParams.get("name"), "guest-12");
  });
});
