// Tokens that a real node checks.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { test } from "node:test";

import { eventually, joined, place, range } from "./nodes.js";

const SECRET = "a secret of at least thirty-two bytes";
const SETUP = { alone: true, args: ["--jwt-secret", SECRET, "--jwt-audience", "chat"] };

function token(seconds, claims = {}) {
  const now = Date.now() / 1000;
  const parts = [{ alg: "HS256", typ: "JWT" }, { sub: "u-ann", aud: "chat", iat: Math.floor(now), exp: now + seconds, rooms: ["*"], ...claims }];
  const text = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}

test("a token that is refreshed in time keeps the connection", async (t) => {
  const { node, client } = await place(t);
  const n1 = await node("n1", SETUP);
  let fetched = 0;
  // The second is fetched after 16 s, which leaves a slow machine 4 to bring it.
  let over;
  const ann = client(n1, { token: async () => {
    fetched += 1;
    over ??= Date.now() + 20_000;
    return token(fetched === 1 ? 20 : 600, { name: "Ann" });
  } });
  const room = await joined(ann, "lobby");
  await eventually("it was refreshed, and the first token is over", () => fetched === 2 && Date.now() > over + 1000);
  await room.publish("still here");
  assert.deepEqual(ann.seen.status.map(({ state }) => state), ["connecting", "open"]);
  assert.deepEqual(ann.seen.errors, []);
  assert.deepEqual([...room.present.values()].map(({ name, user }) => [name, user]), [["Ann", "u-ann"]]);
});

test("one that ends is replaced, and nothing is missed", async (t) => {
  const { node, client } = await place(t);
  const n1 = await node("n1", SETUP);
  let fetched = 0;
  const ann = client(n1, { token: () => token((fetched += 1) === 1 ? 3 : 600) });
  const [a, b] = [await joined(ann, "lobby"), await joined(client(n1, { token: token(600) }), "lobby")];
  const opened = () => ann.seen.status.filter(({ state }) => state === "open").length;
  let count = 0;
  await eventually("it is back", async () => {
    await b.publish(count++); // before, while and after it is away
    return opened() >= 2;
  });
  await b.publish(count++);
  await eventually("all arrived", () => a.data().length === count);
  assert.deepEqual(a.data(), range(count));
  assert.deepEqual(ann.seen.status.filter(({ state }) => state === "waiting").map(({ code }) => code), [4401]);
});

test("one that ends and is a string ends the client", async (t) => {
  const { node, client } = await place(t);
  const n1 = await node("n1", SETUP);
  const ann = client(n1, { token: token(2) });
  const room = ann.join("lobby");
  await eventually("it is closed", () => ann.status.state === "closed");
  assert.equal(ann.status.code, 4401);
  await assert.rejects(room.publish(1), { code: "stopped" });
});

test("one that the node refuses is fetched anew", async (t) => {
  const { node, client } = await place(t);
  const n1 = await node("n1", SETUP);
  let fetched = 0;
  const ann = client(n1, { token: async () => ((fetched += 1) < 3 ? token(600, { aud: "other" }) : token(600)) });
  await eventually("it is in", () => ann.status.state === "open");
  assert.equal(fetched, 3);
  assert.match(ann.seen.status.find(({ state }) => state === "waiting").reason, /401/);
});

test("what it does not allow is forbidden, and not tried again", async (t) => {
  const { node, client } = await place(t);
  const n1 = await node("n1", SETUP);
  const rooms = { join: ["news-*"], publish: ["news-mine"], history: ["news-*"], presence: [] };
  const ann = client(n1, { token: token(600, { rooms }) });
  await assert.rejects(joined(ann, "lobby"), { code: "forbidden", retryable: false });
  const news = await joined(ann, "news-all");
  await assert.rejects(news.publish("mine?"), { code: "forbidden" });
  await assert.rejects(news.members(), { code: "forbidden" });
  assert.deepEqual(await news.history(), { messages: [], next: undefined });
  await (await joined(ann, "news-mine")).publish("mine");
  assert.equal(ann.status.state, "open");
});
