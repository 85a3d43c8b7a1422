// Nodes are killed and drained, Redis is restarted and set back, while clients talk.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { assertOrdered, eventually, joined, place, range } from "./nodes.js";

// Publishes `count` numbers at a pace, `at` may do something on the way; all that was acked.
async function talk(room, count, at = {}) {
  const sent = [];
  for (let number = 0; number < count; number += 1) {
    sent.push(room.publish(number));
    at[number]?.();
    await new Promise((run) => setTimeout(run, 5));
  }
  return Promise.all(sent);
}

const ordered = (list) => [...list].sort((a, b) => a - b);

describe("a node is killed", () => {
  test("while its client publishes: all acked are there once, in one order, on the other node", async (t) => {
    const { redis, node, client } = await place(t);
    await redis();
    const [n1, n2] = [await node("n1"), await node("n2")];
    const writer = client([n1, n2], { name: "writer" });
    const [w, r] = [await joined(writer, "lobby"), await joined(client(n2, { name: "reader" }), "lobby")];
    const acks = await talk(w, 300, { 150: () => n1.end("SIGKILL") });
    assert.equal(acks.length, 300);
    assert.equal(writer.status.nodeId, "n2");
    await eventually(() => `all arrived: ${w.data().length}, ${r.data().length}`, () => w.data().length >= 300 && r.data().length >= 300);
    for (const room of [w, r]) {
      assertOrdered(room);
      assert.deepEqual(ordered(room.data()), range(300));
    }
    assert.deepEqual(w.data(), r.data());
    assert.deepEqual(r.data(), range(300), "the order of publishing, since nothing was refused");
    const bySeq = new Map(r.events.message.map(({ seq, id }) => [seq, id]));
    for (const { seq, id } of acks) assert.equal(bySeq.get(seq), id);
    assert.deepEqual(w.events.recovered.map(({ kind }) => kind), ["resumed"]);
    assert.deepEqual(r.events.recovered, []);
  });

  test("with a reader on it: it misses nothing and sees nothing twice", async (t) => {
    const { redis, node, client } = await place(t);
    await redis();
    const [n1, n2] = [await node("n1"), await node("n2")];
    const [r, w] = [await joined(client([n1, n2]), "lobby"), await joined(client(n2), "lobby")];
    await talk(w, 200, { 60: () => n1.end("SIGKILL") });
    await eventually("all arrived", () => r.data().length >= 200);
    assert.deepEqual(r.data(), range(200));
    assertOrdered(r);
  });

  test("where names are unique, its client waits for its own name", async (t) => {
    const { redis, node, client } = await place(t);
    await redis();
    const setup = { config: '[[rooms]]\npattern = "*"\nunique_names = true\n', args: ["--lease-beat", "500ms", "--lease-expiry", "3s"] };
    const [n1, n2] = [await node("n1", setup), await node("n2", setup)];
    const ann = client([n1, n2], { name: "ann" });
    const room = await joined(ann, "lobby");
    await n1.end("SIGKILL");
    await eventually("it is back under its name", () => ann.status.nodeId === "n2" && room.state === "joined");
    assert.equal([...room.present.values()].find(({ id }) => id === ann.status.clientId).name, "ann");
  });
});

describe("a node drains", () => {
  test("its clients come back when it said, elsewhere, and nothing is missing", async (t) => {
    const { redis, node, client } = await place(t);
    await redis();
    const [n1, n2] = [await node("n1"), await node("n2")];
    const writer = client([n1, n2]);
    const [w, r] = [await joined(writer, "lobby"), await joined(client(n2), "lobby")];
    await talk(w, 200, { 80: () => n1.end("SIGTERM") });
    await eventually("all arrived", () => w.data().length >= 200 && r.data().length >= 200);
    assert.deepEqual(r.data(), range(200));
    assert.deepEqual(w.data(), range(200));
    const waited = writer.seen.status.filter(({ state }) => state === "waiting");
    assert.deepEqual(waited.map(({ code, nodeId }) => [code, nodeId]), [[1012, "n1"]]);
    assert.ok(waited[0].retryInMs <= 1000, `${waited[0].retryInMs}`);
    const next = writer.seen.status.find(({ state, at }) => state === "connecting" && at >= waited[0].at);
    assert.ok(next.at - waited[0].at >= waited[0].retryInMs - 2, "not before the time it was told");
    await n1.exited;
  });

  test("so in a rolling restart of both, with both clients talking", async (t) => {
    const { redis, node, client } = await place(t);
    await redis();
    let [n1, n2] = [await node("n1"), await node("n2")];
    const n3 = await node("n3");
    const [one, two] = [client([n1, n2, n3]), client([n2, n3, n1])];
    const [a, b] = [await joined(one, "lobby"), await joined(two, "lobby")];
    const talks = Promise.all([a, b].map((room, who) => talk({ publish: (number) => room.publish(`${who}-${number}`) }, 300)));
    await n1.end("SIGTERM");
    await n2.end("SIGTERM");
    await talks;
    await eventually("all arrived", () => a.data().length >= 600 && b.data().length >= 600);
    assert.deepEqual(a.data(), b.data());
    assert.equal(new Set(a.data()).size, 600);
    for (const who of [0, 1]) {
      assert.deepEqual(a.data().filter((text) => text.startsWith(`${who}-`)), range(300).map((number) => `${who}-${number}`));
    }
  });
});

describe("Redis", () => {
  test("restarts with its data: publishes wait, then all are there once", async (t) => {
    const { redis, node, client } = await place(t);
    const persistent = ["--appendonly", "yes", "--appendfsync", "always"];
    const first = await redis(...persistent);
    const [n1, n2] = [await node("n1"), await node("n2")];
    const [writer, reader] = [client(n1), client(n2)];
    const [w, r] = [await joined(writer, "lobby"), await joined(reader, "lobby")];
    await talk(w, 20);
    await first.end("SIGKILL");
    const during = talk(w, 50);
    await redis(...persistent);
    await during;
    await eventually(() => `all arrived: ${w.data().length}, ${r.data().length}`, () => w.data().length >= 70 && r.data().length >= 70);
    assert.deepEqual(w.data(), r.data());
    assertOrdered(r);
    assert.deepEqual(ordered(r.data().slice(20)), range(50));
    assert.equal(new Set(r.events.message.map(({ term }) => term)).size, 2, "a new term");
    assert.deepEqual(r.events.recovered, []);
    assert.equal(writer.seen.status.at(-1).state, "open");
  });

  test("comes back without its data: the clients are told and go on", async (t) => {
    const { redis, node, client } = await place(t);
    const first = await redis();
    const n1 = await node("n1");
    const [w, r] = [await joined(client(n1), "lobby"), await joined(client(n1), "lobby")];
    await talk(w, 20);
    await eventually("all arrived", () => r.data().length === 20);
    await first.end("SIGKILL");
    await redis();
    await w.publish("after");
    await eventually("the reader has it", () => r.data().includes("after"));
    assert.ok(r.events.recovered.length > 0);
    assert.ok(r.events.recovered.every(({ kind }) => ["unknown_term", "diverged"].includes(kind)), JSON.stringify(r.events.recovered));
  });

  test("is set back to an older state: what was lost is told exactly", async (t) => {
    const { redis, node, client, tell } = await place(t);
    const snapshots = ["--dbfilename", "dump.rdb"];
    const first = await redis(...snapshots);
    const [n1, n2] = [await node("n1"), await node("n2")];
    const [w, r] = [await joined(client(n1), "lobby"), await joined(client(n2), "lobby")];
    await talk(w, 10);
    assert.equal(await tell("SAVE"), "+OK");
    const lost = await Promise.all(range(5).map((number) => w.publish(`lost-${number}`)));
    await eventually("all arrived", () => r.data().length === 15);
    await first.end("SIGKILL");
    await redis(...snapshots);
    await w.publish("after");
    await eventually("the reader has it", () => r.data().includes("after"));
    const [told] = r.events.recovered;
    assert.equal(told.kind, "diverged");
    assert.equal(told.seq, 10);
    // What a program would show: it drops those above.
    const shown = new Map();
    let at = 0;
    for (const one of r.events.message) {
      if (at === 15) for (const seq of [...shown.keys()]) if (seq > told.seq) shown.delete(seq);
      shown.set(one.seq, one.data);
      at += 1;
    }
    assert.deepEqual([...shown.values()], [...range(10), "after"]);
    // Who must be sure repeats, under the same ids: they are new again.
    const again = await Promise.all(lost.map(({ id }, number) => w.publish(`lost-${number}`, { id })));
    assert.ok(again.every(({ duplicate }) => !duplicate));
  });
});
