// One fault after the other while several clients talk in several rooms. Whatever happens: all that was acked is there, once,
// and everybody saw the same order.

import assert from "node:assert/strict";
import { test } from "node:test";

import { assertOrdered, eventually, joined, place } from "./nodes.js";

const ROOMS = ["one", "two"];
const PERSISTENT = ["--appendonly", "yes", "--appendfsync", "always"];
// How long a fault lasts, and the pace of talking: nothing is expected to have happened after it.
const breath = (ms) => new Promise((run) => setTimeout(run, ms));

test("nodes killed, drained and started again, Redis restarted, in turn", async (t) => {
  const { redis, node, client } = await place(t);
  let server = await redis(...PERSISTENT);
  const nodes = [await node("n1"), await node("n2"), await node("n3")];
  const again = async (at) => {
    nodes[at] = await node(nodes[at].name, { args: ["--listen", new URL(nodes[at].url).host] });
  };
  const faults = [
    async () => {
      await nodes[0].end("SIGKILL");
      await breath(300);
      await again(0);
    },
    async () => {
      await nodes[1].end("SIGTERM");
      await again(1);
    },
    async () => {
      await server.end("SIGKILL");
      await breath(500);
      server = await redis(...PERSISTENT);
    },
    async () => {
      await Promise.all([nodes[1].end("SIGKILL"), nodes[2].end("SIGTERM")]);
      await Promise.all([again(1), again(2)]);
    },
    async () => {
      await Promise.all([nodes[0].end("SIGKILL"), server.end("SIGKILL")]);
      server = await redis(...PERSISTENT);
      await again(0);
    },
  ];

  const clients = [0, 1, 2].map((first) => client([0, 1, 2].map((at) => nodes[(first + at) % 3]), { name: `c${first}` }));
  const members = await Promise.all(clients.map((one) => Promise.all(ROOMS.map((id) => joined(one, id)))));
  const acked = ROOMS.map(() => []);
  const refused = [];
  let over = false;
  const talks = members.flatMap((rooms, who) => rooms.map(async (room, at) => {
    const sent = [];
    for (let number = 0; !over; number += 1) {
      // Every third without echo, which its sender must not hear, and must not take for a hole.
      sent.push(room.publish(`${who}-${number}`, { echo: number % 3 !== 0 }).then(
        (stored) => acked[at].push({ who, data: `${who}-${number}`, quiet: number % 3 === 0, ...stored }), (error) => refused.push(error)));
      await breath(20);
    }
    await Promise.all(sent);
  }));
  for (const fault of faults) {
    await fault();
    await eventually("all are back", () => clients.every(({ status }) => status.state === "open")
      && members.flat().every(({ state }) => state === "joined"));
    const before = acked.map(({ length }) => length);
    await eventually("they talk on", () => acked.every(({ length }, at) => length >= before[at] + 30));
  }
  over = true;
  await Promise.all(talks);
  assert.deepEqual(refused, []);

  for (const [at, all] of acked.entries()) {
    assert.ok(all.length > 100, `${all.length} messages`);
    const order = [...all].sort((a, b) => a.seq - b.seq).map(({ data }) => data);
    assert.equal(new Set(order).size, order.length);
    for (const [who, rooms] of members.entries()) {
      const room = rooms[at];
      const mute = new Set(all.filter((one) => one.quiet && one.who === who).map(({ data }) => data));
      const expected = order.filter((data) => !mute.has(data));
      await eventually(() => `client ${who} has all: ${room.data().length} of ${expected.length}`, () => room.data().length >= expected.length);
      assertOrdered(room);
      assert.deepEqual(room.data(), expected);
      assert.ok(room.events.recovered.every(({ kind }) => kind === "resumed"), JSON.stringify(room.events.recovered));
    }
  }
  const told = clients.flatMap(({ seen }) => seen.errors).map(({ code }) => code);
  assert.ok(told.every((code) => code === "broker_unavailable" || code === "internal"), told.join());
});
