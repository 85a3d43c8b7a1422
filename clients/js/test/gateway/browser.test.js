// The same file in a real browser, with the browser's own WebSocket, on a page of another origin with a strict policy.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module"; // unlike `import`, it heeds NODE_PATH
import { test } from "node:test";

import { eventually, joined, place, range } from "./nodes.js";

const { chromium } = createRequire(import.meta.url)("playwright-core");
const SOURCE = await readFile(new URL("../../src/roomcast.js", import.meta.url));

// A page that has nothing but the file; `complaints` is what the browser finds wrong with it.
async function page(t) {
  const server = createServer((request, response) => {
    const script = request.url === "/roomcast.js";
    response.setHeader("content-type", script ? "text/javascript" : "text/html");
    response.setHeader("content-security-policy", "default-src 'none'; script-src 'self'; connect-src ws:");
    response.end(script ? SOURCE : '<!doctype html><title>t</title><link rel="icon" href="data:,">');
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const origin = `http://127.0.0.1:${server.address().port}`;
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"] });
  t.after(async () => {
    await browser.close();
    server.closeAllConnections();
    server.close();
  });
  const context = await browser.newContext();
  const tab = await context.newPage();
  const complaints = [];
  tab.on("pageerror", (error) => complaints.push(String(error)));
  await tab.goto(origin);
  return { origin, tab, context, complaints };
}

test("it survives the death of its node while it publishes", async (t) => {
  const { origin, tab, complaints } = await page(t);
  const { redis, node, client } = await place(t);
  await redis();
  const args = ["--allowed-origins", origin];
  const [n1, n2] = [await node("n1", { args }), await node("n2", { args })];
  const reader = await joined(client(n2), "lobby");
  await tab.evaluate(async (urls) => {
    const { Roomcast } = await import("/roomcast.js");
    window.client = new Roomcast(urls, { name: "in the browser" });
    window.room = client.join("lobby");
    window.heard = [];
    window.kinds = [];
    room.on("message", ({ data }) => heard.push(data));
    room.on("recovered", ({ kind }) => kinds.push(kind));
    await room.ready;
  }, [n1.url, n2.url]);
  assert.equal(await tab.evaluate(() => client.status.nodeId), "n1");
  const sending = tab.evaluate(async () => {
    const sent = [];
    for (let number = 0; number < 200; number += 1) {
      sent.push(room.publish(number));
      await new Promise((run) => setTimeout(run, 5));
    }
    return (await Promise.all(sent)).length;
  });
  await eventually("some arrived", () => reader.data().length >= 50);
  await n1.end("SIGKILL");
  assert.equal(await sending, 200);
  await eventually("all arrived", async () => reader.data().length >= 200 && (await tab.evaluate(() => heard.length)) >= 200);
  assert.deepEqual(reader.data(), range(200));
  assert.deepEqual(await tab.evaluate(() => [heard, kinds, client.status.nodeId]), [range(200), ["resumed"], "n2"]);
  assert.equal(reader.events.message[0].from.name, "in the browser");
  await tab.evaluate(() => client.close());
  await eventually("it is gone", () => reader.online === 1);
  assert.deepEqual(complaints, []);
});

test("it comes back at once when the browser is online again", async (t) => {
  const { origin, tab, context, complaints } = await page(t);
  const { node } = await place(t);
  const args = ["--allowed-origins", origin];
  const n1 = await node("n1", { alone: true, args });
  await tab.evaluate(async (url) => {
    const { Roomcast } = await import("/roomcast.js");
    window.client = new Roomcast(url, { random: () => 1000, maxDelayMs: 600_000 }); // waits minutes
  }, n1.url);
  const state = (wanted) => eventually(wanted, async () => (await tab.evaluate(() => client.status.state)) === wanted);
  await state("open");
  await n1.end("SIGKILL");
  await state("waiting");
  await node("n1", { alone: true, args: [...args, "--listen", new URL(n1.url).host] });
  assert.equal(await tab.evaluate(() => client.status.state), "waiting");
  await context.setOffline(true);
  await context.setOffline(false);
  await state("open");
  assert.deepEqual(complaints, []);
});
