// A cluster for a test that kills: a redis-server and gateways as processes of their own, on free ports, and balancers
// in front of them. What was started here is stopped by `stop`, and nothing else.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

import { freePort } from "../../../clients/js/test/gateway/ports.js";

const DEADLINE = 60_000; // ms

export async function until(what, holds, within = DEADLINE) {
  const end = Date.now() + within;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (Date.now() > end) throw new Error(`deadline passed: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function listening(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server.address().port;
}

export class Cluster {
  #work = mkdtempSync(path.join(tmpdir(), "roomcast-page-"));
  #processes = [];
  #balancers = [];
  #args; #gateway; #redis;
  nodes = [];

  // `args` go to each node, `config` is the text of its file.
  static async start(gateway, count, { args = [], config = "" } = {}) {
    const cluster = new Cluster();
    try {
      const port = await freePort();
      const redis = cluster.#run("redis-server", ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
      await until("redis-server answers", () => redis.out.includes("Ready to accept connections"));
      writeFileSync(path.join(cluster.#work, "rooms.toml"), config);
      cluster.#redis = port;
      cluster.#args = [...args, "--redis", `redis://127.0.0.1:${port}`];
      cluster.#gateway = path.resolve(gateway);
      for (let number = 0; number < count; number += 1) await cluster.#node(number, 0);
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  async #node(number, port) {
    const id = `node-${number + 1}`;
    const node = this.#run(this.#gateway, ["--node-id", id, "--listen", `127.0.0.1:${port}`, "--admin-listen", "127.0.0.1:0",
      "--log-format", "json", "--config", "rooms.toml", ...this.#args]);
    const listens = /"message": *"listening","addr": *"[^"]*:(\d+)"/;
    await until(`${id} listens`, () => listens.test(node.out) || node.ended);
    const line = listens.exec(node.out);
    if (!line) throw new Error(`${id} did not start:\n${node.out}`);
    this.nodes[number] = { id, process: node, port: Number(line[1]) };
  }

  // A node that was killed, as a new process at its old place.
  revive(number) {
    return this.#node(number, this.nodes[number].port);
  }

  // A directory and an environment of its own keep the developer's settings out.
  #run(program, args) {
    const child = spawn(program, args.map(String), { cwd: this.#work, env: { PATH: process.env.PATH }, stdio: ["ignore", "pipe", "pipe"] });
    const running = { child, out: "", ended: false };
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => { running.out += data; });
    child.on("exit", () => { running.ended = true; });
    child.on("error", (error) => { running.out += error; running.ended = true; });
    this.#processes.push(running);
    return running;
  }

  // An address that leads to the first of these nodes (by number, from 0) that takes a connection.
  async balancer(...order) {
    const open = new Set();
    const heads = []; // of what came through, as text
    const server = net.createServer((client) => {
      open.add(client);
      client.on("close", () => open.delete(client)).on("error", () => {});
      this.#connect(client, order, heads);
    });
    const url = `http://127.0.0.1:${await listening(server)}`;
    this.#balancers.push({ url, server, open, heads });
    return url;
  }

  #connect(client, [first, ...others], heads) {
    if (first === undefined) return client.destroy();
    const node = net.connect(this.nodes[first].port, "127.0.0.1");
    const next = () => this.#connect(client, others, heads);
    node.once("error", next);
    node.once("connect", () => {
      node.off("error", next).on("error", () => client.destroy()).on("close", () => client.destroy());
      client.on("close", () => node.destroy());
      client.once("data", (data) => heads.push(data.toString("latin1")));
      client.pipe(node).pipe(client);
    });
    return undefined;
  }

  // The first bytes of every connection through a balancer: what a page asked for.
  heads(url) {
    return this.#balancers.find((one) => one.url === url).heads;
  }

  // Breaks every connection through a balancer.
  cut(url) {
    for (const client of this.#balancers.find((one) => one.url === url).open) client.destroy();
  }

  // Empties Redis.
  async forget() {
    const socket = net.connect(this.#redis, "127.0.0.1").setEncoding("utf8");
    socket.write("FLUSHALL\r\n");
    const [answer] = await once(socket, "data");
    socket.destroy();
    if (!answer.startsWith("+OK")) throw new Error(answer);
  }

  // As a machine dies: without a word.
  async kill(number, signal = "SIGKILL") {
    const { process: node } = this.nodes[number];
    node.child.kill(signal);
    await until(`node ${number} is gone`, () => node.ended);
  }

  logs() {
    return this.nodes.map(({ id, process: node }) => `--- ${id}\n${node.out.split("\n").slice(-15).join("\n")}`).join("\n");
  }

  async stop() {
    for (const { server, open } of this.#balancers) {
      server.close();
      for (const client of open) client.destroy();
    }
    for (const running of this.#processes) if (!running.ended) running.child.kill("SIGKILL");
    await Promise.all(this.#processes.map((running) => until("a process is gone", () => running.ended)));
    rmSync(this.#work, { recursive: true, force: true });
  }
}
