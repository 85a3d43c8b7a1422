// With one node or two that live: what the protocol promises, seen through the client.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, test } from "node:test";
import { promisify } from "node:util";

import { assertOrdered, eventually, joined, place, range, stallingProxy } from "./nodes.js";

describe("two nodes", () => {
  test("chat: messages, presence, names, history and members", async (t) => {
    const { redis, node, client } = await place(t);
    await redis();
    const [n1, n2] = [await node("n1"), await node("n2")];
    const [ann, bob] = [client(n1, { name: "ann" }), client(n2, { name: "bob" })];
    const [a, b] = [await joined(ann, "lobby"), await joined(bob, "lobby")];
    assert.equal(ann.status.nodeId, "n1");
    assert.equal(bob.status.nodeId, "n2");
    await eventually("both see both", () => a.online === 2 && b.online === 2 && a.present.size === 2);
    assert.deepEqual([...a.present.values()].map(({ name }) => name).sort(), ["ann", "bob"]);
    assert.equal(a.events.presence[0].event, "join");

    const sent = await a.publish({ text: "hello" });
    await b.publish("quiet", { echo: false });
    await b.publish(["third"]);
    await eventually("all arrived", () => a.data().length === 3 && b.data().length === 2);
    assert.deepEqual(a.data(), [{ text: "hello" }, "quiet", ["third"]]);
    assert.deepEqual(b.data(), [{ text: "hello" }, ["third"]]);
    assert.deepEqual([sent.seq, sent.duplicate], [1, false]);
    assert.deepEqual(a.events.message.map(({ own, from }) => [own, from.name]), [[true, "ann"], [false, "bob"], [false, "bob"]]);
    assert.deepEqual(b.position, a.position);

    await ann.rename("Anna");
    await eventually("the new name is seen", () => [...b.present.values()].some(({ name }) => name === "Anna"));
    assert.equal(b.events.presence.at(-1).was, "ann");

    const newest = await b.history({ limit: 2 });
    assert.deepEqual(newest.messages.map(({ data }) => data), ["quiet", ["third"]]);
    assert.deepEqual((await b.history({ before: newest.next, limit: 2 })).messages.map(({ seq }) => seq), [1]);
    assert.deepEqual((await b.history({ after: 0, limit: 1 })).next, 1);
    const first = await b.members({ limit: 1 });
    const second = await b.members({ limit: 1, cursor: first.next });
    assert.deepEqual([...first.members, ...second.members].map(({ name }) => name).sort(), ["Anna", "bob"]);

    await a.leave();
    await eventually("the leave is seen", () => b.online === 1);
    assert.equal(b.events.presence.at(-1).event, "leave");
    await assert.rejects(a.publish(1), { code: "left" });
    assert.deepEqual([ann.seen.errors, bob.seen.errors], [[], []]);
  });

  test("several rooms, and one that is made without a name", async (t) => {
    const { node, client } = await place(t);
    const n1 = await node("n1", { alone: true });
    const [ann, bob] = [client(n1), client(n1)];
    const made = await joined(ann);
    const [a, b, other] = [await joined(ann, "one"), await joined(bob, made.id), await joined(bob, "one")];
    await Promise.all([made.publish("in made"), a.publish("in one")]);
    await eventually("each in its room", () => b.data().length && other.data().length);
    assert.deepEqual([b.data(), other.data()], [["in made"], ["in one"]]);
  });

  test("ephemeral rooms", async (t) => {
    const { redis, node, client } = await place(t);
    await redis();
    const config = '[[rooms]]\npattern = "cursor-*"\nmode = "ephemeral"\n';
    const [n1, n2] = [await node("n1", { config }), await node("n2", { config })];
    const [a, b] = [await joined(client(n1), "cursor-1"), await joined(client(n2), "cursor-1")];
    assert.equal(a.mode, "ephemeral");
    await eventually("both are there", () => a.online === 2);
    const sent = await a.publish({ x: 1 });
    assert.equal(sent.seq, undefined);
    await eventually("it arrived", () => b.data().length === 1);
    await n1.end("SIGKILL");
    await eventually("the loss is seen", () => a.state !== "joined");
    await assert.rejects(a.publish({ x: 2 }), { code: "not_connected" });
  });
});

describe("what the server refuses", () => {
  test("room names, lengths and names that are taken", async (t) => {
    const { node, client } = await place(t);
    const n1 = await node("n1", { alone: true, config: '[[rooms]]\npattern = "only-*"\nunique_names = true\n', args: ["--max-message-bytes", "2000"] });
    const [ann, other] = [client(n1, { name: "ann" }), client(n1, { name: "ann" })];
    await assert.rejects(joined(ann, "no such room!"), { code: "bad_room", retryable: false });
    const room = await joined(ann, "only-1");
    await assert.rejects(room.publish("x".repeat(2000)), { code: "too_large" });
    await room.publish("x".repeat(1800));
    await assert.rejects(room.publish(1, { id: "" }), { code: "bad_data" });
    let deep = 1;
    for (let level = 0; level < 200; level += 1) deep = [deep];
    await assert.rejects(room.publish(deep), { code: "too_large" });
    await assert.rejects(joined(other, "only-1"), { code: "name_taken" });
    await other.rename("bob");
    const third = await joined(other, "only-1");
    await assert.rejects(other.rename("ann"), { code: "name_taken" });
    assert.equal(other.name, "bob");
    await third.publish("works");
    assert.equal(ann.status.state, "open");
  });

  test("a burst is paced to what the node takes, and nobody is closed for abuse", async (t) => {
    const { node, client } = await place(t);
    const n1 = await node("n1", { alone: true, args: ["--publish-rate", "100", "--publish-burst", "20"] });
    const ann = client(n1);
    const room = await joined(ann, "lobby");
    const sent = await Promise.all(range(300).map((data) => room.publish(data)));
    assert.equal(new Set(sent.map(({ seq }) => seq)).size, 300);
    assert.deepEqual(ann.seen.status.map(({ state }) => state), ["connecting", "open"]);
    await eventually("all came back", () => room.data().length === 300);
    assertOrdered(room);
  });
});

describe("coming back", () => {
  test("a long absence is caught up in steps, without a hole", async (t) => {
    const { node, client } = await place(t);
    const n1 = await node("n1", { alone: true, args: ["--publish-rate", "0"] });
    const proxy = await stallingProxy(t, n1);
    const reader = await joined(client(proxy, { silenceMs: 300, pongTimeoutMs: 300, connectTimeoutMs: 2000 }), "lobby");
    const writer = await joined(client(n1), "lobby");
    await writer.publish(0);
    await eventually("the first arrived", () => reader.data().length === 1);
    proxy.stalled = true;
    await Promise.all(range(200, 1).map((at) => writer.publish([at, "x".repeat(4000)])));
    proxy.stalled = false;
    await eventually(() => `all arrived, ${reader.data().length}`, () => reader.data().length === 201);
    assertOrdered(reader);
    assert.deepEqual(reader.data().map((data) => data[0] ?? data), range(201));
    assert.deepEqual([...new Set(reader.events.recovered.map(({ kind }) => kind))], ["resumed"]);
  });

  test("a line that is dead without saying so is found, on another node", async (t) => {
    const { redis, node, client } = await place(t);
    await redis();
    const [n1, n2] = [await node("n1"), await node("n2")];
    const proxy = await stallingProxy(t, n1);
    const ann = client([proxy, n2], { silenceMs: 300, pongTimeoutMs: 300, name: "ann" });
    const [a, b] = [await joined(ann, "lobby"), await joined(client(n2), "lobby")];
    await a.publish("before");
    proxy.stalled = true;
    const [, mine] = await Promise.all([b.publish("while away"), a.publish("into nothing")]);
    assert.equal(ann.status.nodeId, "n2");
    await eventually("both have all", () => a.data().length === 3 && b.data().length === 3);
    assert.deepEqual(a.data(), b.data());
    assert.equal(mine.duplicate, false);
    assertOrdered(a);
  });

  test("to a room that was empty, and has more than joining shows", async (t) => {
    const { node, client } = await place(t);
    const n1 = await node("n1", { alone: true, args: ["--publish-rate", "0"] });
    const proxy = await stallingProxy(t, n1);
    const reader = await joined(client(proxy, { silenceMs: 300, pongTimeoutMs: 300, connectTimeoutMs: 2000 }), "lobby");
    assert.deepEqual(reader.position, { term: null, seq: 0 });
    proxy.stalled = true;
    const writer = await joined(client(n1), "lobby");
    await Promise.all(range(120).map((at) => writer.publish(at)));
    proxy.stalled = false;
    await eventually(() => `all arrived, ${reader.data().length}`, () => reader.data().length === 120);
    assert.deepEqual(reader.data(), range(120));
    assertOrdered(reader);
  });

  test("another client goes on where one ended", async (t) => {
    const { node, client } = await place(t);
    const n1 = await node("n1", { alone: true });
    const writer = await joined(client(n1), "lobby");
    const first = client(n1);
    const before = await joined(first, "lobby");
    await writer.publish(1);
    await eventually("it arrived", () => before.data().length === 1);
    const since = before.position;
    await first.close();
    await writer.publish(2);
    const after = await joined(client(n1), "lobby", { since });
    await eventually("what was missed arrived", () => after.data().length === 1);
    assert.deepEqual(after.data(), [2]);
    assert.equal(after.events.recovered[0].kind, "resumed");
  });
});

const OWN = Number(process.versions.node.split(".")[0]) < 22 ? ["--experimental-websocket", "--no-warnings"] : [];
const PACKAGE = `import { createRequire } from "node:module"; const { WebSocket } = createRequire(${JSON.stringify(import.meta.url)})("ws");`;

for (const [whose, options, start] of [["the package ws", [], PACKAGE], ["Node's own WebSocket", OWN, "const WebSocket = undefined;"]]) {
  test(`a program that closed its client ends by itself, with ${whose}`, async (t) => {
    const { node } = await place(t);
    const n1 = await node("n1", { alone: true });
    const text = `${start}
    import { Roomcast } from ${JSON.stringify(new URL("../../src/roomcast.js", import.meta.url).href)};
    const client = new Roomcast(${JSON.stringify(n1.url)}, { WebSocket });
    const lost = new Roomcast("ws://127.0.0.1:1", { WebSocket });
    lost.join("lobby").publish("never");
    const room = client.join("lobby");
    console.log((await room.publish("hello")).seq);
    room.publish("on its way");
    room.history();
    await Promise.all([client.close(), lost.close()]);`;
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [...options, "--input-type=module", "-e", text], { timeout: 60_000 });
    assert.equal(stdout, "1\n");
    assert.equal(stderr, "");
  });
}
