// What is published: the types are true, the files are there, the README's first example works.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module"; // unlike `import`, it heeds NODE_PATH
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import * as library from "roomcast";

import { FakeServer, joined, message } from "./fake.js";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);
const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));

async function tsc(...args) {
  const program = join(createRequire(import.meta.url).resolve("typescript/package.json"), "../bin/tsc");
  const target = ["--noEmit", "--target", "es2022", "--lib", "es2023,dom", "--module", "nodenext", "--types", ""];
  try {
    await run(process.execPath, [program, ...target, ...args], { cwd: ROOT });
  } catch ({ stdout, stderr }) {
    assert.fail(stdout + stderr);
  }
}

test("the types are strict, and what they allow and forbid is so", () => tsc("--strict", "test/example.ts"));

test("the code uses nothing that is not there", () => tsc("--allowJs", "--checkJs", "--strict", "false", "src/roomcast.js"));

test("what the types export is what the code exports", async () => {
  const text = await readFile(join(ROOT, "src/roomcast.d.ts"), "utf8");
  const declared = [...text.matchAll(/^export class (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(Object.keys(library).sort(), declared.sort());
  for (const name of ["Room", "Roomcast"]) {
    const body = text.slice(text.search(new RegExp(`export class ${name}\\b`))).split("\n}")[0];
    const members = [...body.matchAll(/^ {2}(?:readonly )?(\w+)(?:<[^>]*>)?[(:]/gm)].map(([, member]) => member).filter((word) => word !== "constructor");
    const there = Object.getOwnPropertyNames(library[name].prototype).filter((word) => word !== "constructor");
    assert.deepEqual(there.sort(), members.sort(), name);
  }
});

test("it imports nothing, so that a page can take the file as it is", async () => {
  const text = await readFile(join(ROOT, "src/roomcast.js"), "utf8");
  assert.doesNotMatch(text, /^\s*import\b|\bimport\(|\brequire\(|\bprocess\./m);
});

test("the package holds code, types, README and licence, and no tests", async () => {
  const { stdout } = await run("npm", ["pack", "--dry-run", "--json", "--offline"], { cwd: ROOT });
  const [{ files, version: packed }] = JSON.parse(stdout);
  assert.deepEqual(files.map(({ path }) => path).sort(), ["LICENSE", "README.md", "package.json", "src/roomcast.d.ts", "src/roomcast.js"]);
  assert.equal(packed, version);
});

test("the README's five lines are a working chat", async (t) => {
  const text = await readFile(join(ROOT, "README.md"), "utf8");
  const example = /```js\n([\s\S]*?)```/.exec(text)[1].trimEnd();
  assert.equal(example.split("\n").length, 5);
  const folder = await mkdtemp(join(tmpdir(), "roomcast-readme-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "chat.mjs");
  const source = new URL("../src/roomcast.js", import.meta.url).href;
  await writeFile(file, example.replace('"roomcast"', JSON.stringify(source)) + "\nexport { client };\n");

  const server = new FakeServer();
  const before = globalThis.WebSocket;
  globalThis.WebSocket = server.WebSocket;
  t.after(() => (globalThis.WebSocket = before));
  const told = t.mock.method(console, "log", () => {});
  server.answer = (frame, socket) => queueMicrotask(() => {
    if (frame.type === "join") socket.say(joined(frame));
    if (frame.type !== "publish") return;
    socket.say(message(1, { id: frame.id, from: { id: "c1", name: "ann" }, data: frame.data }));
    socket.say({ type: "ack", ref: frame.ref, id: frame.id, room: frame.room, seq: 1, term: "t1" });
  });
  const greeting = setInterval(() => server.last?.readyState === 0 && server.last.welcome(), 5);
  const { client } = await import(file);
  clearInterval(greeting);
  assert.deepEqual(told.mock.calls.map(({ arguments: [line] }) => line), ["ann: hello"]);
  await client.close();
});
