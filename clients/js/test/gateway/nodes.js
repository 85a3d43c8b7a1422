// Real nodes and a real Redis for a test, and clients that write down what they see.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module"; // unlike `import`, it heeds NODE_PATH
import net from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { Roomcast } from "../../src/roomcast.js";
import { freePort } from "./ports.js";

const GATEWAY = resolve(process.env.GATEWAY_UNDER_TEST ?? "target/debug/gateway");
const DEADLINE = 60_000;
export const { WebSocket } = createRequire(import.meta.url)("ws");

export async function eventually(what, holds) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const answer = await holds();
    if (answer) return answer;
    if (Date.now() > end) assert.fail(`deadline passed: ${typeof what === "function" ? what() : what}`);
    await new Promise((run) => setTimeout(run, 20));
  }
}

// A folder with the processes of one test in it. They are gone when the test is.
export async function place(t) {
  const folder = await mkdtemp(join(tmpdir(), "roomcast-js-"));
  const processes = [];
  t.after(async () => {
    for (const one of processes) await one.end("SIGKILL");
    await rm(folder, { recursive: true, force: true });
  });

  async function run(name, program, args, ready) {
    const log = join(folder, `${name}.log`);
    const stream = createWriteStream(log, { flags: "a" });
    await once(stream, "open");
    const from = (await readFile(log)).length;
    const child = spawn(program, args, { cwd: folder, env: { PATH: process.env.PATH }, stdio: ["ignore", stream, stream] });
    const exited = once(child, "exit");
    exited.then(() => stream.close());
    const text = async () => (await readFile(log)).subarray(from).toString();
    const handle = { name, pid: child.pid, text, exited,
      async end(signal = "SIGTERM") {
        if (child.exitCode === null && child.signalCode === null) child.kill(signal);
        await exited;
      } };
    processes.push(handle);
    handle.found = await eventually(`${name} is ready`, async () => {
      assert.equal(child.exitCode, null, `${name} ended: ${await text()}`);
      return ready.exec(await text());
    });
    return handle;
  }

  const port = await freePort();
  return {
    folder,
    async redis(...args) {
      const all = ["--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no", ...args];
      return run("redis", "redis-server", all.map(String), /Ready to accept connections/);
    },
    // One command, in Redis' own words for people.
    async tell(command) {
      const socket = net.connect(port, "127.0.0.1");
      socket.setEncoding("utf8");
      socket.write(`${command}\r\n`);
      const [answer] = await once(socket, "data");
      socket.destroy();
      return answer.trim();
    },
    async node(name, { alone = false, config, args = [] } = {}) {
      const all = ["--node-id", name, "--admin-listen", "127.0.0.1:0", "--log-format", "json", "--workers", "1", ...args];
      if (!args.includes("--listen")) all.push("--listen", "127.0.0.1:0");
      if (!alone) all.push("--redis", `redis://127.0.0.1:${port}`);
      if (config) {
        await writeFile(join(folder, `${name}.toml`), config);
        all.push("--config", `${name}.toml`);
      }
      const node = await run(name, GATEWAY, all, /"addr": *"([^"]+)"[^\n]*"message": *"listening"|"message": *"listening"[^\n]*"addr": *"([^"]+)"/);
      node.url = `ws://${node.found[1] ?? node.found[2]}`;
      return node;
    },
    client: (urls, options = {}) => client(t, urls, options),
  };
}

// A client that keeps what it is told, closed when the test ends.
export function client(t, urls, options) {
  const made = new Roomcast([urls].flat().map((node) => node.url ?? node), { WebSocket, ...options });
  const seen = { status: [], errors: [] };
  made.on("status", (status) => seen.status.push({ ...status, at: Date.now() }));
  made.on("error", (error) => seen.errors.push(error));
  t.after(() => made.close());
  return Object.assign(made, { seen });
}

export async function joined(made, id, options) {
  const room = made.join(id, options);
  const events = { joined: [], message: [], presence: [], recovered: [], left: [], error: [] };
  for (const name of Object.keys(events)) room.on(name, (value) => events[name].push(value));
  await room.ready;
  return Object.assign(room, { events, data: () => events.message.map(({ data }) => data) });
}

// Each once, in the order of their seqs.
export function assertOrdered(room) {
  const seqs = room.events.message.map(({ seq }) => seq);
  for (let at = 1; at < seqs.length; at += 1) assert.ok(seqs[at] > seqs[at - 1], `seq ${seqs[at]} after ${seqs[at - 1]}`);
  const ids = room.events.message.map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length, "an id twice");
}

export const range = (count, from = 0) => Array.from({ length: count }, (_, at) => at + from);

// Between a client and a node. While it is `stalled`, nothing passes; connections of then never pass anything again, and
// nobody is told.
export async function stallingProxy(t, node) {
  const target = new URL(node.url);
  const sockets = new Set();
  const state = { stalled: false };
  const server = net.createServer((near) => {
    const far = net.connect(Number(target.port), target.hostname);
    let dead = false;
    const passes = () => !(dead ||= state.stalled);
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from);
      from.on("data", (bytes) => passes() && to.write(bytes));
      from.on("error", () => to.destroy());
      from.on("close", () => passes() && to.destroy());
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return Object.assign(state, { url: `ws://127.0.0.1:${server.address().port}` });
}
